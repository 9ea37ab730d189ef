"""Parts of the ways on which the filter leads arms, each by itself; and arms whose tool does not turn."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.geometry import poses, rotations
from hybridvla_core.geometry.rotations import to_quaternion
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety.execution import reentry, walk_out, way_out
from hybridvla_core.safety.execution.reentry import INSIDE_M, Reentry, worst_violation
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"
FR3, DUAL = (load_robot(ROBOTS / f"{name}.yaml") for name in ("sim_fr3", "sim_dual"))
START = np.array([FR3.arms[0].start_joints_rad])
BEYOND = np.array([0.0, 0, 0, 0, 0, 0, 2.22])          # of the last joint's limit


def with_planes(config, *planes):
    arm = config.arms[0]
    return dataclasses.replace(config, arms=(dataclasses.replace(arm, workspace=dataclasses.replace(
        arm.workspace, planes=planes)), *config.arms[1:]))


def test_a_tree_knows_its_nearest_place_and_the_way_back_to_its_root():
    tree = way_out.Tree(np.zeros(2))
    one = tree.add(np.array([1.0, 0.0]), 0)
    two = tree.add(np.array([1.0, 2.0]), one)
    three = tree.add(np.array([-0.5, 0.0]), 0)
    assert [tree.nearest(np.array(place)) for place in ([0.2, 0.1], [1.1, 0.9], [1.0, 1.1], [-0.3, 0.0])] == [0, one, two, three]
    assert tree.nearest(np.array([0.9, -0.8])) == one, "by the joint that is furthest away"
    np.testing.assert_array_equal(tree.back(two), [[1.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(tree.back(0), [[0.0, 0.0]])


class Free:
    """A search in which the test says whether pieces between joints (A, dof) are free."""

    def __init__(self, config, free):
        self.out = way_out.WayOut(config, Motion(config))
        self.out._free = lambda begin, end: free(begin, end)


def test_places_that_a_straight_piece_replaces_are_left_out_of_a_way():
    blocked = {(0.0, 3.0), (0.0, 2.0)}
    out = Free(DUAL, lambda begin, end: (begin[1, 0], end[1, 0]) not in blocked).out
    here = np.array([arm.start_joints_rad for arm in DUAL.arms])
    way = [np.full(7, value) for value in (0.0, 1.0, 2.0, 3.0)]
    legs = out._short(here, 1, way)
    assert [leg[1, 0] for leg in legs] == [1.0, 3.0]
    assert all(np.array_equal(leg[0], here[0]) for leg in legs), "the other arm stays"
    assert out._short(here, 1, way[:1]) == []
    assert [leg[1, 0] for leg in out._short(here, 1, way[:2])] == [1.0], "a way of one piece is that piece"


def test_a_piece_that_is_not_free_is_tried_shorter_and_never_longer_than_allowed():
    tried = []

    def free(begin, end):
        tried.append(float(np.abs(end - begin).max()))
        return tried[-1] < 0.2
    out, tree = Free(FR3, free).out, way_out.Tree(START[0])
    new = out._grow(tree, START, 0, START[0] + np.array([2.0, -1.0, 0, 0, 0, 0, 0]))
    assert tried == pytest.approx(list(way_out.LENGTHS_RAD))
    np.testing.assert_allclose(tree.places[new] - START[0], [0.1, -0.05, 0, 0, 0, 0, 0])
    near = START[0] + np.array([0.05, 0, 0, 0, 0, 0, 0])
    assert tree.places[out._grow(tree, START, 0, near, 0)] is near, "to its end where that is near"
    assert Free(FR3, lambda begin, end: False).out._grow(tree, START, 0, near) is None


@pytest.mark.parametrize("arm", [0, 1])
def test_on_a_piece_of_one_arm_the_other_stays_where_it_is(arm):
    seen = []
    out = Free(DUAL, lambda begin, end: seen.append((begin, end)) or True).out
    here = np.array([each.start_joints_rad for each in DUAL.arms]) + 0.1 * np.arange(14).reshape(2, 7)
    tree = way_out.Tree(here[arm] + 0.02)
    assert out._grow(tree, here, arm, here[arm] + 0.3) == 1
    (begin, end), = seen
    np.testing.assert_array_equal(begin[1 - arm], here[1 - arm])
    np.testing.assert_array_equal(end[1 - arm], here[1 - arm])
    np.testing.assert_allclose(begin[arm], here[arm] + 0.02)
    np.testing.assert_allclose(end[arm], here[arm] + 0.3)


def test_what_is_broken_is_counted_in_all_and_what_is_inside_not_at_all():
    limits, position = FR3.arms[0].joint_limits, Motion(FR3).positions[0]
    config = with_planes(FR3, Plane("behind", (1.0, 0.0, 0.0), float(position[0]) - 0.1),
                         Plane("before", (1.0, 0.0, 0.0), float(position[0]) + 0.02))
    motion, outside = Motion(config), START.copy()
    outside[0, 6] = limits.upper_rad[6] - limits.margin_rad + 0.03
    assert worst_violation(motion, outside) == "arm/joint_7/position is outside by 0.0300 rad"
    assert way_out.WayOut(config, motion)._broken(outside) == pytest.approx(0.05, abs=1e-6)
    assert way_out.WayOut(FR3, motion)._broken(START) == pytest.approx(0.02, abs=1e-6)
    assert way_out.WayOut(FR3, Motion(FR3))._broken(START) == 0.0 and worst_violation(Motion(FR3), START) == ""


def test_no_limit_is_broken_further_on_a_way_that_was_found_and_the_whole_piece_is_looked_at():
    wall = Plane("wall", (0.0, -1.0, 0.0), -0.1)
    out = way_out.WayOut(with_planes(FR3, wall), Motion(with_planes(FR3, wall)))
    here = START + np.array([[-0.6, 0, 0, 0, 0, 0, 0]])
    looking = out.find(here)
    with pytest.raises(StopIteration):
        next(looking)                                  # straight to the start, which is free
    there = START + np.array([[0.1, 0, 0, 0, 0, 0, 0]])
    assert out._free(here, there) and not out._free(here, START + np.array([[0.6, 0, 0, 0, 0, 0, 0]]))
    assert not out._free(here, START + np.array([[0.8 - 2 * np.pi, 0, 0, 0, 0, 0, 0]])), "a whole turn begins and ends inside"


def test_the_tool_is_led_to_just_inside_box_and_planes_and_one_inside_them_stays():
    tilted = Plane("tilted", (0.6, 0.0, 0.8), 0.5)
    config = with_planes(FR3, tilted)
    inside = Reentry(config, Motion(config))._inside
    box = FR3.arms[0].workspace
    lower, upper = np.array([box.lower_m]), np.array([box.upper_m])
    middle = 0.5 * (lower + upper)
    middle[0, 2] = upper[0, 2] - 0.05
    assert middle[0] @ tilted.normal > tilted.offset_m + INSIDE_M
    np.testing.assert_array_equal(inside(middle), middle)
    high = middle.copy()
    high[0, 1] = upper[0, 1] + 0.2
    np.testing.assert_allclose(inside(high), np.where([[0, 1, 0]], upper - INSIDE_M, middle))
    high[0, 1] = lower[0, 1] - 0.2
    np.testing.assert_allclose(inside(high), np.where([[0, 1, 0]], lower + INSIDE_M, middle))
    below = np.array([[0.4, 0.0, 0.1]])
    depth = tilted.offset_m + INSIDE_M - float(below[0] @ tilted.normal)
    np.testing.assert_allclose(inside(below), below + depth * np.array([tilted.normal]))


def test_after_so_many_looks_without_a_way_the_way_back_is_given_up(monkeypatch):
    monkeypatch.setattr(way_out, "PIECES", 2)
    monkeypatch.setattr(walk_out, "MOST_STEPS", 3)
    config = dataclasses.replace(with_planes(FR3, Plane("far", (1.0, 0.0, 0.0), 2.0)), tick_hz=50.0, status_hz=20.0)
    motion = Motion(config)
    back = Reentry(config, motion)
    looked = []
    for _ in range(1500):
        assert back.step(0.5)
        looked.append(back._looked)
        if back.stuck:
            break
    assert back.stuck and not back.finished and looked[-1] in (3, 4, 5, 6, 7) and looked[-1] > 2
    assert motion.at_rest and sorted(looked) == looked


def test_while_led_back_the_flags_say_why_and_what_it_waits_for():
    rig = Rig(change=lambda config: dataclasses.replace(config, deadman_required=True))
    rig.joints["arm"] = rig.joints["arm"] + BEYOND
    for _ in range(5):
        rig.filter.on_deadman(True, rig.now + rig.config.dt)
        rig.tick()
    done, answer = rig.filter.reenter(rig.now)
    assert done and answer.startswith("re-entering: arm/joint_7/position is outside by ")
    assert rig.filter.reenter(rig.now) == (False, "only while inactive")
    status = rig.tick().status
    assert status.reasons == Reason.OUTSIDE_AT_START and "leading the arms back" in status.message and "joint_7" in status.message
    rig.filter.on_deadman(False, rig.now)
    status = rig.tick(3).status
    assert status.state == State.RECOVERING and status.reasons == Reason.OUTSIDE_AT_START | Reason.DEADMAN
    rig.tick(100)
    rest = rig.pose().position
    np.testing.assert_array_equal(rig.tick(20).arms[0].pose.position, rest)


def test_a_way_back_that_is_not_found_ends_with_what_is_left_and_what_to_do(monkeypatch):
    monkeypatch.setattr(way_out, "PIECES", 1)
    monkeypatch.setattr(walk_out, "MOST_STEPS", 3)
    monkeypatch.setattr(reentry, "LOOKS", 0)
    rig = Rig(change=lambda config: dataclasses.replace(with_planes(config, Plane("far", (1.0, 0.0, 0.0), 2.0)), tick_hz=50.0,
                                                        status_hz=20.0, reenter_scale=0.5))
    rig.tick(10)
    assert rig.filter.reenter(rig.now)[0]
    rig.run_until(lambda output: rig.filter.state == State.INACTIVE, 20.0)
    status = rig.output.status
    assert status.reasons == Reason.OUTSIDE_AT_START and "workspace/far is outside by" in status.message
    assert "no way back inside was found" in status.message and status.message.endswith("; move the arm by hand")


def test_an_arm_whose_tool_does_not_turn_is_drawn_back_and_may_be_turned_back_only():
    rig = Rig(change=lambda config: dataclasses.replace(config, deadman_required=False, speed_scale=1.0, ramp_s=0.0)).start()
    rig.tick(20)
    bound = rig.config.arms[0].leash.rotation_rad
    position, turned = rig.pose().position, rotations.to_matrix(rig.pose().quaternion)
    rig.follows = False
    rig.propose(position, to_quaternion(rotations.exp(np.array([0.0, 0.0, 4.0 * bound])) @ turned))

    def away():
        return poses.turn(rotations.to_matrix(rig.pose().quaternion), turned)
    rig.run_until(lambda output: output.status.reasons & Reason.LEASH, 8.0)
    assert "arm: the tool does not turn with its command; free it" in rig.output.status.message
    rig.tick(400)
    assert away() == pytest.approx(0.9 * bound, abs=0.02 * bound)
    held = away()
    rig.propose(position, to_quaternion(rotations.exp(np.array([0.0, 0.0, 2.0 * bound])) @ turned))
    rig.tick(100)
    assert away() <= held + 1e-6, "no further away"
    rig.propose(position, to_quaternion(rotations.exp(np.array([0.0, 0.0, 0.3 * bound])) @ turned))
    rig.tick(300)
    assert away() == pytest.approx(0.3 * bound, abs=0.01) and not rig.output.status.reasons & Reason.LEASH


@pytest.mark.parametrize("robot, joints", [
    ("fr3", [[-1.039, -0.838, -0.838, -1.975, -0.772, 1.394, 1.336]]),        # behind the box
    ("fr3", [[1.2, 0.3, 0.4, -1.2, 0.5, 2.2, -0.6]]),
    ("agilex", [[0.9, 1.2, -1.1, 0.4, 0.6, -0.5], [-0.7, 1.0, -1.3, -0.3, 0.5, 0.8]]),
])
def test_a_way_along_joints_does_not_creep_where_the_tools_acceleration_binds(robot, joints):
    config = dataclasses.replace(load_robot(ROBOTS / f"{robot}.yaml"), tick_hz=50.0, status_hz=20.0)
    motion, joints = Motion(config), np.array(joints)
    goal = np.array([arm.start_joints_rad for arm in config.arms])
    motion.relaxed = True
    motion.lead(True)
    motion.seed(joints)
    motion.forgive(joints)
    seconds = 0.0
    while np.abs(motion.joints - goal).max() > 1e-3:
        assert motion.step_joints(goal, 0.5)
        seconds += config.dt
        assert seconds < 8.0, f"{np.abs(motion.joints - goal).max():.3f} rad left; {motion.limited}"
