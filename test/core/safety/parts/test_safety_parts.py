"""Small parts of the filter, each by itself: bounds, signs, units, and the words that carry numbers."""
import dataclasses
import math

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.contracts import GripperState
from hybridvla_core.geometry import rotations
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety.execution.gripper import GripperSequencer
from hybridvla_core.safety.execution.leash import Leash
from hybridvla_core.safety.execution.plan import TOUCH_M, WALL_M, Plan
from hybridvla_core.safety.execution.way_to_start import WayToStart, worsening
from hybridvla_core.safety.inputs.bases import Bases
from hybridvla_core.safety.inputs.clock_watch import ClockWatch
from hybridvla_core.safety.inputs.measured_arm import MeasuredArm
from hybridvla_core.safety.motion.judge import MotionJudge
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import Goal
from hybridvla_core.safety.status import Reason

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"
FR3 = load_robot(ROBOTS / "fr3.yaml")
START = np.array(FR3.arms[0].start_joints_rad)


@pytest.mark.parametrize("simulated, times, words", [
    (False, [(5.0, 1.0), (5.1, 1.1)], ""),
    (False, [(5.0, 1.0), (5.29, 1.1)], ""),
    (False, [(5.0, 1.0), (6.4, 1.1)], "the clock was set ahead by 1.3 s"),
    (False, [(5.0, 1.0), (3.6, 1.1)], "the clock was set back by 1.5 s"),
    (True, [(0.0, 1.0)], "/clock has not begun"),
    (True, [(0.0, 1.0), (0.0, 1.4)], "/clock has not begun"),
    (True, [(5.0, 1.0), (5.0, 1.4)], ""),
    (True, [(5.0, 1.0), (5.0, 1.6)], "/clock has stood still for 0.6 s"),
    (True, [(5.0, 1.0), (5.0, 1.3), (5.1, 1.4), (5.1, 1.8)], ""),
    (True, [(5.0, 1.0), (3.5, 1.1)], "/clock went back by 1.5 s"),
    (True, [(5.0, 1.0), (8.5, 1.1)], "/clock went ahead by 3.5 s"),
    (True, [(5.0, 1.0), (7.0, 1.1)], ""),
])
def test_what_is_wrong_with_a_clock_is_said_with_its_amount(simulated, times, words):
    watch = ClockWatch(simulated)
    assert [watch.look(clock, now) for clock, now in times][-1] == words


@pytest.mark.parametrize("openings, commands", [
    ([0.6, 0.45, 0.55], [1.0]),                # between the two bounds: the earlier decision stays
    ([0.1, 0.45, 0.55], [0.0]),
    ([0.1, 0.9, 0.5, 0.1], [0.0, 1.0, 0.0]),
    ([0.5], [1.0]),                            # nothing decided yet: the nearer end
    ([0.45], [0.0]),
    ([7.0, -3.0], [1.0, 0.0]),
])
def test_a_binary_gripper_decides_with_hysteresis(openings, commands):
    config = dataclasses.replace(FR3.arms[0].gripper, binary=True, close_below=0.4, open_above=0.6)
    gripper, sent, now = GripperSequencer(config, 0.005), [], 0.0
    gripper.restart(math.nan)
    for opening in openings:
        gripper.want(opening)
        for _ in range(3):
            now += 100.0
            sent.append(gripper.tick(now, GripperState.DONE))
    assert [command for command in sent if command is not None] == commands


def test_the_bounds_of_the_hysteresis_themselves_open_and_close():
    config = dataclasses.replace(FR3.arms[0].gripper, binary=True, close_below=0.4, open_above=0.45)
    for opening, command in ((0.4, 0.0), (0.45, 1.0), (0.44, 0.0)):
        gripper = GripperSequencer(config, 0.005)
        gripper.restart(math.nan)
        gripper.want(opening)
        assert gripper.tick(1.0, GripperState.DONE) == command


def test_a_reading_that_is_told_again_changes_what_is_said_of_the_arm_and_not_where_it_is():
    rig = Rig("fr3")
    arm = MeasuredArm(rig.config.arms[0])
    state = dataclasses.replace(rig.arm_state("arm"), stamp=50.0)
    assert arm.update(state, 1.0) == ""
    told = dict(ready=False, message="reflex", robot_mode=4, gripper=0.25, gripper_state=GripperState.MOVING, controller="other",
                controller_ready=False)
    elsewhere = dataclasses.replace(state, joint_positions=state.joint_positions + 0.01, **told)
    assert arm.update(elsewhere, 1.1) == ""
    for name, value in told.items():
        assert getattr(arm.state, name) == value, name
    np.testing.assert_array_equal(arm.joints, state.joint_positions)
    assert arm.age(1.1) == pytest.approx(0.1)


def test_a_base_is_compared_with_what_was_commanded_within_the_age_of_an_observation():
    rig = Rig("sim_dual")
    here = [[0.5, 0.0, 0.3], [0.4, 0.1, 0.3]]
    far = Bases(rig.config).far
    assert far(rig.proposal(here), None) == (Reason.NONE, ""), "nothing was commanded yet"
    bases = Bases(rig.config)
    bases.see(np.array(here), 10.0)
    bases.see(np.array(here) + 9.0, 10.05)                  # within the spacing, so it is not kept
    name = rig.config.arms[1].name
    for away, reason in ((0.199, Reason.NONE), (0.201, Reason.PROPOSAL_STALE)):
        proposal = rig.proposal([here[0], [0.4, 0.1 - away, 0.3]])
        assert bases.far(proposal, None)[0] == reason
    reason, text = bases.far(proposal, None)
    assert text == f"{name}: its base lies 201 mm from where the arm has been commanded; it was made for another place"
    asked = Goal(np.array([here[0], [0.4, -0.1, 0.3]]), np.tile(np.eye(3), (2, 1, 1)))
    assert bases.far(proposal, asked)[0] == Reason.NONE, "the next step may build on what was asked for"
    bases.see(np.array(here) - 0.5, 10.0 + rig.config.proposals.max_observation_age_s + 1.01)
    assert bases.far(rig.proposal(here), None)[0] == Reason.PROPOSAL_STALE, "too long ago"
    bases.forget()
    assert bases.far(proposal, None)[0] == Reason.NONE


def planned(wanted, here, turn=0.0, planes=(), on_limit="scale"):
    """Return the goal of a keyframe for an FR3 commanded at `here`, turned by `turn` rad about z, and the plan."""
    arm = dataclasses.replace(FR3.arms[0], workspace=dataclasses.replace(FR3.arms[0].workspace, planes=planes))
    config = dataclasses.replace(FR3, arms=(arm,), on_limit=on_limit)
    rig = Rig("fr3")
    plan = Plan(rig.proposal(wanted, [0.0, 0.0, math.sin(turn / 2), math.cos(turn / 2)]), config, 0.0)
    return plan.goal(0.0, np.array([here], dtype=float), np.eye(3)[None]), plan


BOX = FR3.arms[0].workspace


@pytest.mark.parametrize("axis, sign", [(axis, sign) for axis in range(3) for sign in (-1.0, 1.0)])
def test_a_target_beyond_a_wall_ends_on_the_straight_way_there_with_as_much_of_the_turn(axis, sign):
    here = np.array([0.5, 0.1, 0.3])
    wall = (BOX.upper_m if sign > 0 else BOX.lower_m)[axis] - sign * WALL_M
    wanted = here + 0.05
    wanted[axis] = wall + sign * 0.2
    share = (wall - here[axis]) / (wanted[axis] - here[axis])
    goal, plan = planned(wanted, here, turn=0.8)
    np.testing.assert_allclose(goal.positions[0], here + share * (wanted - here), atol=1e-9)
    assert rotations.log(goal.rotations[0])[2] == pytest.approx(0.8 * share)
    assert plan.outside[0] == pytest.approx(0.2)
    slid, _ = planned(wanted, here, turn=0.8, on_limit="slide")
    expected = wanted.copy()
    expected[axis] = wall
    np.testing.assert_allclose(slid.positions[0], expected, atol=1e-9)
    assert rotations.log(slid.rotations[0])[2] == pytest.approx(0.8)


def test_from_beyond_a_wall_there_is_no_way_further_out_and_the_whole_way_in():
    outside = np.array([BOX.upper_m[0] + 0.1, 0.1, 0.3])
    np.testing.assert_allclose(planned(outside + [0.1, 0.1, 0.0], outside)[0].positions[0], outside)
    np.testing.assert_allclose(planned([0.5, 0.2, 0.3], outside)[0].positions[0], [0.5, 0.2, 0.3])


def test_a_target_beyond_a_plane_ends_before_it_and_one_that_only_touches_is_moved_onto_it():
    plane = Plane("glass", (0.0, -0.6, 0.8), 0.0)
    here = np.array([0.5, 0.0, 0.3])
    height = 0.8 * here[2] - WALL_M
    wanted = here + np.array([0.0, 0.0, -0.3]) + np.array([0.1, 0.18, 0.06])
    inward = float(np.dot(plane.normal, wanted - here))
    share = height / -inward
    assert 0.0 < share < 1.0
    goal, plan = planned(wanted, here, planes=(plane,))
    np.testing.assert_allclose(goal.positions[0], here + share * (wanted - here), atol=1e-9)
    assert plan.outside[0] == pytest.approx(-(height + inward))
    touched = np.array([0.5, 0.2, 0.15]) - 0.8 * TOUCH_M * np.array(plane.normal)
    goal, plan = planned(touched, here, turn=0.5, planes=(plane,))
    np.testing.assert_allclose(goal.positions[0], touched + (0.8 * TOUCH_M + WALL_M) * np.array(plane.normal), atol=1e-9)
    assert rotations.log(goal.rotations[0])[2] == pytest.approx(0.5), "whatever on_limit says"


@pytest.mark.parametrize("moved, near", [((0, 0, 0, 0, 0, 0, 0), True), ((0, 0.3, 0, 0, 0, 0, 0), False),
                                         ((0, 0, 0, 0, 0, 0, 0.6), False)])
def test_whether_an_arm_is_near_its_command_is_asked_of_all_or_of_one(moved, near):
    rig = Rig("sim_dual", change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
    rig.tick(20)
    execution = rig.filter._execution
    assert execution.near_command() and execution.near_command(0) and execution.near_command(1)
    first, second = (arm.name for arm in rig.config.arms)
    for name, index in ((second, 1), (first, 0)):
        before = rig.joints[name].copy()
        rig.joints[name] = before + np.array(moved)
        rig.filter.update_arm_state(rig.arm_state(name), rig.now + 0.001)
        assert execution.near_command(index) == execution.near_command() == near and execution.near_command(1 - index)
        rig.joints[name] = before
        rig.filter.update_arm_state(rig.arm_state(name), rig.now + 0.002)


def test_an_early_tick_hands_out_the_same_poses_and_no_gripper_command_a_second_time():
    rig = Rig().start()
    output = rig.tick(20)
    arm = dataclasses.replace(output.arms[0], gripper=0.5)
    again = dataclasses.replace(output, arms=(arm,), status_changed=True).again()
    assert again.arms == (dataclasses.replace(arm, gripper=None),) and again.status is output.status and not again.status_changed


def test_another_joint_solution_is_the_one_next_to_its_seed():
    motion = Motion(FR3)
    pose = motion.positions.copy(), motion.rotations.copy()
    seed = motion.joints + np.array([[0.10, 0.05, -0.08, 0.05, 0.02, 0.05, 0.05]])
    assert motion.repose(seed)
    assert np.abs(motion.joints - START).max() > 0.02 and np.abs(motion.joints - seed).max() < 0.15
    found = motion.pose_of(motion.joints)[0]
    np.testing.assert_allclose(found[0], pose[0][0], atol=1e-9)
    np.testing.assert_allclose(found[1], pose[1][0], atol=1e-9)
    kept = motion.joints
    assert not motion.repose(START[None] + np.array([[0, 0, 0, 0, 0, 0, 9.0]])) and motion.joints is kept, "outside a limit"


def test_a_way_may_begin_outside_a_limit_and_is_refused_where_it_would_break_it_further():
    judge = MotionJudge(FR3, Motion(FR3)._arms)
    outside = START[None].copy()
    outside[0, 6] = FR3.arms[0].joint_limits.upper_rad[6] - FR3.arms[0].joint_limits.margin_rad + 0.05
    assert worsening(judge, outside, [START[None]]) == ""
    assert worsening(judge, START[None], [outside]).startswith("arm/joint_7/position would be broken by 0.0")
    further = outside.copy()
    further[0, 6] += 0.02
    assert worsening(judge, outside, [further]) == "arm/joint_7/position would be broken by 0.070"
    assert "joint_7" in worsening(judge, outside, [further, START[None]]) and "joint_7" in worsening(
        judge, outside, [START[None], further]), "every point of the way"


def test_what_is_in_the_way_to_the_start_is_named_with_its_amount():
    config = dataclasses.replace(FR3, arms=(dataclasses.replace(FR3.arms[0], workspace=dataclasses.replace(
        BOX, planes=(Plane("post", (0.0, -1.0, 0.0), -0.06),))),))
    ways = WayToStart(config, Motion(config))
    legs, hindrance = ways.choose(START[None] + np.array([[0.1, 0, 0, 0, 0, 0, 0]]))
    assert hindrance == "" and np.array_equal(legs, [ways.start])
    beyond = START[None] + np.array([[0.9, 0, 0, 0, 0, 0, 0]])
    legs, hindrance = ways.choose(beyond)
    depth = Motion(config).pose_of(beyond)[0][0][1] - 0.06
    assert legs == [] and hindrance == f"workspace/post would be broken by {depth:.3f} m"
    first = next(iter(ways.ways(beyond)))
    np.testing.assert_array_equal(first, [ways.start])
    turned_last = list(ways.ways(beyond))[1][0]
    assert turned_last[0, 0] == beyond[0, 0] and np.array_equal(turned_last[0, 1:], START[1:])


def test_the_leash_is_the_command_behind_a_first_order_lag():
    rules = FR3.arms[0].leash
    leash = Leash(FR3)
    still, turned = np.zeros((1, 3)), np.eye(3)[None]
    leash.restart(still, turned)
    to, turn = np.array([[0.03, 0.0, 0.04]]), rotations.exp(np.array([0.0, 0.2, 0.0]))[None]
    for _ in range(20):
        leash.advance(to, turn)
    share = 1.0 - math.exp(-20 * FR3.dt / rules.lag_s)
    room, angle = leash.margins(still, turned)
    assert room[0] == pytest.approx(rules.distance_m - 0.05 * share)
    assert angle[0] == pytest.approx(rules.rotation_rad - 0.2 * share)
    assert leash.pulls_away(0, to[0], still[0], to[0]) and not leash.pulls_away(0, to[0], still[0], -to[0])
    assert leash.pulls_away(0, to[0], still[0], np.array([0.0, 1.0, 0.0])), "neither nearer nor further counts as away"
    quick = Leash(dataclasses.replace(FR3, arms=(dataclasses.replace(FR3.arms[0], leash=dataclasses.replace(rules, lag_s=0.0)),)))
    quick.restart(still, turned)
    quick.advance(to, turn)
    assert quick.margins(to, turn)[0][0] == pytest.approx(rules.distance_m)
