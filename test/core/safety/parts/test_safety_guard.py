"""The guard of the push, with arms placed by the test: bounds, directions, sags, rotations, and which arm is named."""
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from hybridvla_core.geometry import poses, rotations
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.execution.force_guard import DRAWN_BACK, FOLLOWS_M, FREE, RESTED_TICKS, SAG, ForceGuard
from hybridvla_core.safety.motion.pursuit import Goal

pytestmark = pytest.mark.robot_computer
DUAL = load_robot(ROOT / "config" / "robots" / "sim_dual.yaml")
BOUND, TURN = DUAL.arms[0].leash.distance_m, DUAL.arms[0].leash.rotation_rad
HERE = np.array([[0.5, 0.1, 0.4], [0.4, -0.1, 0.3]])
UP, DOWN, SIDE = np.array([0, 0, 1.0]), np.array([0, 0, -1.0]), np.array([0.6, 0.8, 0.0])


def turned(angle, axis=UP):
    return rotations.exp(angle * np.array(axis, dtype=float))


class Arms(list):
    """Two measured arms, each wherever the test puts it."""

    def __init__(self):
        super().__init__(SimpleNamespace(name=arm.name, position=HERE[index].copy(), matrix=np.eye(3))
                         for index, arm in enumerate(DUAL.arms))
        self.deaf = set()
        self.joints = np.zeros((2, 7))

    positions = property(lambda self: np.stack([arm.position for arm in self]))
    matrices = property(lambda self: np.stack([arm.matrix for arm in self]))

    def heard(self, index, now):
        return index not in self.deaf


@pytest.fixture
def stage():
    arms = Arms()
    motion = SimpleNamespace(positions=HERE.copy(), rotations=np.stack([np.eye(3)] * 2), at_rest=True, joints=np.zeros((2, 7)))
    return SimpleNamespace(arms=arms, motion=motion, guard=ForceGuard(DUAL, motion, arms))


def look(stage, times=1):
    for _ in range(times):
        stage.guard.look(0.0)
    return stage.guard


def held(stage, index, offset, turn=None):
    """Let something hold an arm away from its command, by an offset (3,) m, while the command moves."""
    stage.motion.at_rest = False
    stage.arms[index].position = HERE[index] - np.array(offset)
    if turn is not None:
        stage.arms[index].matrix = turn
    return look(stage)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("way", [UP, DOWN, SIDE])
def test_an_arm_is_held_beyond_the_bound_and_free_again_well_within_it(stage, index, way):
    assert not held(stage, index, 0.999 * BOUND * way).held
    guard = held(stage, index, 1.2 * BOUND * way)
    assert guard.held and guard.detail == f"{DUAL.arms[index].name}: the arm does not follow its command; free it"
    goal = guard.goal()
    np.testing.assert_allclose(goal.positions[index], HERE[index] - (1.2 - DRAWN_BACK) * BOUND * way, atol=1e-12)
    np.testing.assert_array_equal(goal.positions[1 - index], HERE[1 - index])
    assert held(stage, index, 1.01 * FREE * BOUND * way).held, "nearer, and not free yet"
    free = held(stage, index, 0.99 * FREE * BOUND * way)
    assert not free.held and free.detail == "" and free.goal() is None


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, -0.6, 0.8)])
def test_a_tool_that_does_not_turn_is_held_too(stage, index, axis):
    assert not held(stage, index, np.zeros(3), turned(0.999 * TURN, axis)).held
    guard = held(stage, index, np.zeros(3), turned(1.5 * TURN, axis))
    assert guard.held and guard.detail == f"{DUAL.arms[index].name}: the tool does not turn with its command; free it"
    place = guard.goal().rotations[index]
    assert poses.turn(place, stage.arms[index].matrix) == pytest.approx(DRAWN_BACK * TURN)
    np.testing.assert_allclose(place, turned((1.5 - DRAWN_BACK) * TURN, axis), atol=1e-9)
    assert held(stage, index, np.zeros(3), turned(1.01 * FREE * TURN, axis)).held
    assert not held(stage, index, np.zeros(3), turned(0.99 * FREE * TURN, axis)).held


def test_the_place_it_is_drawn_back_to_changes_only_when_the_arm_has_moved(stage):
    guard = held(stage, 0, 1.5 * BOUND * SIDE)
    place = guard.goal().positions[0].copy()
    stage.motion.positions[0] = place                       # the command has been drawn back
    np.testing.assert_array_equal(look(stage, 5).goal().positions[0], place)
    stage.arms[0].position = stage.arms[0].position - 0.2 * BOUND * SIDE       # pushed further: the command goes back further
    np.testing.assert_allclose(look(stage).goal().positions[0], place - 0.2 * BOUND * SIDE, atol=1e-12)


def test_what_the_other_arm_wants_goes_on_beside_one_that_is_held(stage):
    guard = held(stage, 1, 1.2 * BOUND * SIDE)
    other = Goal(HERE + 0.1, np.stack([turned(0.1)] * 2))
    goal = guard.goal(other)
    np.testing.assert_array_equal(goal.positions[0], other.positions[0])
    np.testing.assert_array_equal(goal.rotations[0], other.rotations[0])
    np.testing.assert_array_equal(goal.positions[1], guard.goal().positions[1])
    np.testing.assert_array_equal(goal.rotations[1], np.eye(3))
    guard.restart()
    assert not guard.held and guard.goal() is None and guard.goal(other) is other and guard.detail == ""


@pytest.mark.parametrize("index", [0, 1])
def test_a_held_arm_may_be_led_back_and_not_away(stage, index):
    guard = held(stage, index, 1.2 * BOUND * SIDE)           # the command lies along SIDE of the arm

    def allows(way, turn=0.0, other=0.0):
        positions = HERE.copy()
        positions[index] += way
        positions[1 - index] += other
        return guard.allows(Goal(positions, np.stack([turned(turn)] * 2)))
    assert allows(-0.01 * SIDE) and not allows(0.01 * SIDE) and not allows(np.zeros(3))
    assert not allows(0.01 * UP), "neither nearer nor further"
    assert allows(-0.01 * SIDE + 0.05 * UP, other=0.3), "the other arm is free to go"
    assert allows(-0.01 * SIDE, turn=2.0), "a turn is no question where the tool follows"


@pytest.mark.parametrize("index", [0, 1])
def test_a_tool_that_is_held_may_be_turned_back_and_not_on(stage, index):
    guard = held(stage, index, 1e-4 * SIDE, turned(-1.2 * TURN))
    back = HERE.copy()
    back[index] -= 0.01 * SIDE
    for turn, allowed in ((-0.3 * TURN, True), (0.0, False), (0.3 * TURN, False), (-1e-3 * TURN, True)):
        assert guard.allows(Goal(back, np.stack([turned(turn)] * 2))) is allowed


def sagging(stage, index, below, rested=RESTED_TICKS, aside=0.0):
    """Let the command rest for `rested` ticks before the arm is seen below it."""
    stage.motion.at_rest = True
    look(stage, rested - 1)
    stage.arms[index].position = HERE[index] + below * DOWN + aside * np.array([1.0, 0, 0])
    return look(stage)


@pytest.mark.parametrize("index", [0, 1])
def test_a_load_is_named_after_a_rest_and_only_where_the_arm_hangs_below(stage, index):
    name = DUAL.arms[index].name
    guard = sagging(stage, index, 1.2 * BOUND)
    assert guard.detail == (f"{name}: the arm hangs {1.2 * BOUND * 1e3:.0f} mm below its command: tell the robot its payload, or "
                            "take the load off; upward motion is allowed")
    assert guard.held and guard.goal() is None, "drawing back would only lower it further"
    np.testing.assert_array_equal(guard.goal(Goal(HERE + 0.1, np.stack([np.eye(3)] * 2))).positions[index], HERE[index])

    def allows(way):
        positions = HERE.copy()
        positions[index] += way
        return guard.allows(Goal(positions, np.stack([np.eye(3)] * 2)))
    assert allows(0.05 * UP) and allows(0.04 * UP + 0.02 * SIDE) and not allows(0.03 * UP + 0.05 * SIDE)
    assert allows(0.05 * DOWN), "down is towards the arm"
    assert not allows(0.05 * SIDE)
    assert allows(np.zeros(3)), "it may stay, for a turn or for what the other arm does"
    beyond = sagging(stage, index, 1.01 * SAG * BOUND)
    assert beyond.goal() is not None, "so much no load pulls it down"


@pytest.mark.parametrize("below, aside, rested, sags", [
    (1.2 * BOUND, 0.0, RESTED_TICKS, True), (1.2 * BOUND, 0.0, RESTED_TICKS - 1, False), (-1.2 * BOUND, 0.0, RESTED_TICKS, False),
    (1.0 * BOUND, 1.2 * BOUND, RESTED_TICKS, True), (1.0 * BOUND, 1.5 * BOUND, RESTED_TICKS, False)])
def test_what_counts_as_a_sag(stage, below, aside, rested, sags):
    assert ("hangs" in sagging(stage, 0, below, rested, aside).detail) is sags


@pytest.mark.parametrize("share, sags", [(0.55, False), (0.65, True)])
def test_an_arm_that_follows_downwards_when_drawn_back_hangs(stage, share, sags):
    held(stage, 0, 1.2 * BOUND * UP)
    assert "hangs" not in stage.guard.detail
    begun = stage.arms[0].position.copy()
    for back, seen in ((0.9 * FOLLOWS_M, False), (1.1 * FOLLOWS_M, sags)):
        stage.motion.positions[0] = HERE[0] + back * DOWN
        stage.arms[0].position = begun + share * back * DOWN
        assert ("hangs" in look(stage).detail) is seen


@pytest.mark.parametrize("way", [SIDE, UP, np.array([0.8, 0.0, -0.6 * 0.9])])
def test_an_arm_that_follows_sideways_or_upwards_is_held_though_it_is_below(stage, way):
    held(stage, 0, 1.2 * BOUND * UP)
    stage.motion.positions[0] = HERE[0] + 1.5 * FOLLOWS_M * way
    stage.arms[0].position = stage.arms[0].position + 1.5 * FOLLOWS_M * way
    assert stage.guard.held and "hangs" not in look(stage).detail


def test_a_command_that_moved_lately_is_no_load_that_sank(stage):
    stage.motion.at_rest = False
    look(stage, RESTED_TICKS + 5)
    stage.motion.at_rest = True
    look(stage, RESTED_TICKS - 2)
    stage.arms[0].position = HERE[0] + 1.2 * BOUND * DOWN
    assert "hangs" not in look(stage).detail and stage.guard.held


def test_one_arm_whose_place_nobody_knows_is_not_judged(stage):
    held(stage, 0, 2 * BOUND * SIDE)
    stage.arms.deaf = {0}
    assert not look(stage).held and stage.guard.goal() is None
    held(stage, 1, 2 * BOUND * SIDE)
    assert stage.guard.held and stage.guard.detail.startswith(f"{DUAL.arms[1].name}: ")


def test_the_push_is_stiffness_times_distance_and_joints_are_drawn_back_by_the_same_share(stage):
    guard = held(stage, 1, 1.5 * BOUND * SIDE)
    assert guard.push(1) == pytest.approx(1.5 * BOUND * DUAL.arms[1].leash.stiffness_n_m) and guard.push(0) == 0.0
    stage.motion.joints = np.full((2, 7), 0.3)
    stage.arms.joints = np.full((2, 7), 0.1)
    joints = guard.joints()
    np.testing.assert_allclose(joints[1], 0.1 + 0.2 * DRAWN_BACK / 1.5)
    np.testing.assert_array_equal(joints[0], 0.3)
    held(stage, 1, 1.5 * BOUND * SIDE, turned(4.5 * TURN))
    np.testing.assert_allclose(guard.joints()[1], 0.1 + 0.2 * DRAWN_BACK / 4.5)
    held(stage, 1, 0.7 * BOUND * SIDE, np.eye(3))
    np.testing.assert_allclose(guard.joints()[1], 0.3, err_msg="never further than the command")
    joint = ForceGuard(dataclasses.replace(DUAL, door="joint"), stage.motion, stage.arms)
    assert np.isnan(joint.push(1))
