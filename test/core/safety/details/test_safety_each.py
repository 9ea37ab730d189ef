"""Each of two arms and each of several times: what holds for one must not be applied to the other."""
import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from safety_rig import DOWN, ROBOTS, Rig

from hybridvla_core.contracts import ArmTarget, DeltaBase, GripperState, Pose, Proposal
from hybridvla_core.geometry import rotations
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.execution.execution import Execution
from hybridvla_core.safety.execution.gripper import GripperSequencer
from hybridvla_core.safety.execution.plan import Plan
from hybridvla_core.safety.limits.joint_motion import velocity_bounds
from hybridvla_core.safety.motion.motion import LOOK_TICKS, Motion
from hybridvla_core.safety.motion.pursuit import Goal
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer
FR3, DUAL, SLIDING = (load_robot(ROBOTS / f"{name}.yaml") for name in ("sim_fr3", "sim_dual", "agilex"))
START = np.array(FR3.arms[0].start_joints_rad)


def free(config):
    return dataclasses.replace(config, deadman_required=False, ramp_s=0.0, speed_scale=1.0)


def proposal(config, positions, quaternions, chunk=1, **changes):
    """Return a proposal. positions, quaternions: (chunk * A, ..)."""
    arms = list(config.arms) * chunk
    targets = tuple(ArmTarget(arm.name, arm.base_frame, Pose(np.array(p), q), 0.0, Pose(np.array(p), q), DeltaBase.COMMANDED, 1.0)
                    for arm, p, q in zip(arms, positions, quaternions))
    return dataclasses.replace(Proposal(0.0, 7, 1, 1, "move", 10.0, targets), chunk=chunk, **changes)


@pytest.mark.parametrize("part", ["position", "rotation"])
@pytest.mark.parametrize("shares, there", [((0.9, 0.9), True), ((0.9, 1.2), False), ((1.2, 0.9), False), ((0.0, 0.99), True)])
def test_each_arm_has_the_whole_tolerance_of_a_target(part, shares, there):
    motion, rules = Motion(DUAL), DUAL.at_target
    arms = [SimpleNamespace(position=p, matrix=m, state=None) for p, m in zip(motion.positions, motion.rotations)]
    execution, along = Execution(DUAL, motion, arms), np.array([0.6, 0.0, -0.8])
    positions, turned = motion.positions.copy(), motion.rotations.copy()
    for index, share in enumerate(shares):
        if part == "position":
            positions[index] += share * rules.position_m * along
        else:
            turned[index] = rotations.exp(share * rules.rotation_rad * along) @ turned[index]
    execution.take(proposal(DUAL, positions, [rotations.to_quaternion(matrix) for matrix in turned]), 5.0)
    execution._settle(execution.plan, execution.goal(5.0), 5.0, True, 1.0)
    assert execution.plan.arrived_at == (5.0 if there else None)


def test_dense_rows_begin_at_their_times_and_the_last_one_stays():
    plan = Plan(proposal(DUAL, np.arange(24).reshape(8, 3) * 0.01, [DOWN] * 8, 4, action_period=0.5), DUAL, 2.0)
    seen = [(at, plan.advance(2.0 + at), plan.row, plan.last_row) for at in (0.0, 0.49, 0.51, 0.9, 1.6, 1.7, 2.5, 9.0)]
    assert [begun for _, begun, _, _ in seen] == [False, False, True, False, True, False, False, False]
    assert [row for _, _, row, _ in seen] == [0, 0, 1, 1, 3, 3, 3, 3]
    assert [last for _, _, _, last in seen] == [False] * 4 + [True] * 4
    np.testing.assert_allclose(plan.asked.positions, [[0.18, 0.19, 0.20], [0.21, 0.22, 0.23]])
    assert plan.next_row() is False and plan.row == 3


def test_the_time_that_is_left_of_a_row_grows_less_and_never_ends():
    plan = Plan(proposal(DUAL, np.full((4, 3), 0.3), [DOWN] * 4, 2, action_period=0.5), DUAL, 2.0)
    at = np.full((2, 3), 0.3), np.stack([np.eye(3)] * 2)
    assert plan.goal(2.1, *at).seconds == pytest.approx(0.4) and plan.goal(2.6, *at).seconds == 1e-3
    plan.advance(2.6)
    assert plan.goal(2.6, *at).seconds == pytest.approx(0.4)
    assert plan.expired(12.0) is False and plan.expired(12.001) is True


def sequencer(config, wanted=1.0, began=0.0):
    gripper = GripperSequencer(dataclasses.replace(config.arms[0].gripper, minimum_wait_s=0.2, deadline_s=1.0), config.dt)
    gripper.restart(math.nan)
    gripper.want(wanted)
    assert gripper.tick(began, GripperState.DONE) == wanted
    return gripper


@pytest.mark.parametrize("state, after, busy, failed", [
    (GripperState.DONE, 0.19, True, False), (GripperState.FAILED, 0.19, True, False), (GripperState.DONE, 0.2, False, False),
    (GripperState.FAILED, 0.2, False, True), (GripperState.MOVING, 0.3, True, False), (GripperState.UNKNOWN, 0.99, True, False),
    (GripperState.MOVING, 0.99, True, False), (GripperState.MOVING, 1.0, False, True), (GripperState.UNKNOWN, 1.0, False, False),
    (GripperState.FAILED, 1.0, False, True), (GripperState.DONE, 1.0, False, False)])
def test_a_gripper_is_busy_until_it_has_had_its_time_and_says_that_it_is_done(state, after, busy, failed):
    gripper = sequencer(FR3, began=50.0)
    assert gripper.busy is True and gripper.failed is False
    assert gripper.tick(50.0 + after, state) is None
    assert (gripper.busy, gripper.failed) == (busy, failed)
    gripper.want(0.0)
    assert gripper.tick(50.0 + after, state) == (None if busy else 0.0), "one command at a time"
    assert gripper.failed is False


@pytest.mark.parametrize("measured", [math.nan, 0.3])
@pytest.mark.parametrize("config", [FR3, SLIDING], ids=["binary", "streamed"])
def test_a_gripper_that_begins_anew_is_free_at_once(config, measured):
    gripper = sequencer(config)
    for _ in range(2):
        gripper.restart(measured)
        assert not gripper.busy and gripper.failed is False and not gripper.moving
        assert gripper.tick(0.01, GripperState.MOVING) is None, "nothing is wanted"
    gripper.want(0.0)
    assert gripper.tick(0.02, GripperState.MOVING) is not None, "what was under way before is no reason to wait"


def test_hysteresis_at_its_bounds():
    rules = FR3.arms[0].gripper
    for opening, begun, expected in ((rules.close_below, 1.0, 0.0), (rules.close_below + 1e-6, 1.0, None),
                                     (rules.open_above, 0.0, 1.0), (rules.open_above - 1e-6, 0.0, None)):
        gripper = sequencer(FR3, begun)
        gripper.want(opening)
        assert gripper.tick(10.0, GripperState.DONE) == expected
        gripper.sent(0.5)
        gripper.restart(0.5)
        gripper.want(0.5)
        assert gripper.tick(20.0, GripperState.DONE) == (begun if expected is None else expected), "it remembers what it was told"
    fresh = GripperSequencer(rules, FR3.dt)
    fresh.want(0.5)
    assert fresh.tick(0.0, GripperState.DONE) == 1.0
    other = GripperSequencer(rules, FR3.dt)
    other.want(0.499)
    assert other.tick(0.0, GripperState.DONE) == 0.0


def test_speed_by_position_ends_at_the_ends_and_rest_is_always_allowed():
    table = load_robot(ROBOTS / "fr3.yaml").arms[0].joint_limits.position_dependent
    high, low, top = np.array(table.upper_rad), np.array(table.lower_rad), np.array(table.velocity_rad_s)
    for beyond in (0.0, 0.1):
        lower, upper = velocity_bounds(table, high + beyond)
        assert (upper == 0.0).all() and (lower < -0.1).all()
        lower, upper = velocity_bounds(table, -low - beyond)
        assert (lower == 0.0).all() and (upper > 0.1).all()
    lower, upper = velocity_bounds(table, 0.5 * (high - low))
    assert (upper <= top - 1e-3 + 1e-12).all() and (lower >= -top + 1e-3 - 1e-12).all() and (upper > 0.1).all()


@pytest.mark.parametrize("index", [0, 1])
def test_a_singularity_near_one_arm_is_looked_at_also_while_the_other_is_far(index):
    here = float(np.linalg.svd(ArmKinematics(DUAL.arms[index]).jacobian(np.array(DUAL.arms[index].start_joints_rad)),
                               compute_uv=False)[-1])
    arms = [dataclasses.replace(arm, singularity=dataclasses.replace(
        arm.singularity, slow_below=(1.25 if arm_index == index else 0.1) * here,
        stop_below=(0.2 if arm_index == index else 0.05) * here)) for arm_index, arm in enumerate(DUAL.arms)]
    motion = Motion(dataclasses.replace(DUAL, arms=tuple(arms)))
    said = {}
    for way in (0.2, -0.2):                                # one of the two directions leads into the singularity
        motion.seed(np.array([arm.start_joints_rad for arm in DUAL.arms]))
        goal = Goal(motion.positions + [0.0, 0.0, way], motion.rotations.copy())
        flags = [motion.step(goal) and "singularity" in motion.limited for _ in range(LOOK_TICKS)]
        said[way] = sum(flags[1:])
    assert max(said.values()) == LOOK_TICKS - 1 and min(said.values()) < LOOK_TICKS - 1


def sunk(rig, by=0.004):
    """Let the arm rest a little beside its last command, and deactivate."""
    rig.tick(3)
    rig.follows = False
    rig.joints["arm"] = rig.joints["arm"] + by * np.eye(7)[1]
    rig.tick(60)
    assert rig.filter.activate(False, rig.now)[0] and rig.filter.state == State.INACTIVE
    rig.tick(40)
    return rig


@pytest.mark.parametrize("disturb", [None, dict(ready=False, message="reflex"), dict(controller="other"),
                                     dict(controller_ready=False), "silent"])
def test_what_was_disturbed_while_inactive_begins_where_it_is_measured(disturb):
    rig = sunk(Rig(change=free).start())
    commanded, measured = rig.filter._motion.joints.copy(), rig.joints["arm"].copy()
    if disturb == "silent":
        rig.silent.add("arm")
    elif disturb:
        rig.changes = disturb
    rig.tick(round((rig.config.watchdogs.joint_state_s + 0.1) / rig.config.dt))
    rig.silent.clear()
    rig.changes = {}
    rig.tick(60)
    rig.beat()
    assert rig.filter.activate(True, rig.now) == (True, "active")
    np.testing.assert_allclose(rig.filter._motion.joints[0], measured if disturb else commanded[0], atol=1e-12)
    assert np.abs(measured - commanded[0]).max() > 1e-3


def test_what_is_wrong_beside_a_stop_is_said_with_its_own_words():
    rig = Rig(change=free).start()
    rig.tick(3)
    rig.filter.stop(rig.now)
    assert rig.tick().status.reasons == Reason.OPERATOR and rig.filter.detail == ""
    rig.changes = dict(ready=False, message="reflex at joint 3")
    assert rig.tick().status.reasons == Reason.OPERATOR | Reason.ROBOT_MODE
    assert rig.filter.detail == "arm: reflex at joint 3" and "reflex at joint 3" in rig.output.status.message
    rig.changes = {}
    rig.tick(3)
    assert rig.output.status.reasons == Reason.OPERATOR | Reason.ROBOT_MODE and rig.filter.detail == "arm: reflex at joint 3"


def test_arms_that_begin_anew_elsewhere_are_no_jump_of_a_command():
    rig = Rig(change=free).start()
    rig.tick(3)
    assert rig.filter.activate(False, rig.now)[0]
    for _ in range(40):
        rig.joints["arm"] = rig.joints["arm"] + 0.004 * np.sign(-START)
        rig.tick()
    rig.tick(60)
    assert rig.filter.activate(True, rig.now)[0] and rig.tick(3).arms[0].publish is True
    assert rig.filter.counters["reseeds"] == 2 and rig.filter.counters["target_violations"] == 0


def test_an_arm_that_goes_on_being_sent_where_it_is_after_the_others_fault_does_not_jump_by_the_counts():
    """The left arm sags beside its command; the right arm's fault makes both begin anew where they are measured."""
    rig = Rig("sim_dual", change=free).start()
    report, wrong = rig.arm_state, set()
    rig.arm_state = lambda name: dataclasses.replace(report(name), ready=name not in wrong, message="reflex")
    rig.tick(3)
    rig.follows = False
    for _ in range(10):
        rig.joints["left"] = rig.joints["left"] + [0.0, 0, 0, 0, 0, 0.005, 0]
        rig.tick()
    rig.tick(40)
    commanded = rig.output.arms[1].joint_positions.copy()
    wrong.add("right")
    rig.tick(5)
    wrong.clear()
    rig.tick(40)
    assert [arm.publish for arm in rig.output.arms] == [False, True]
    assert rig.filter.resume(rig.now)[0] and rig.tick().arms[1].publish is True
    moved = np.abs(rig.output.arms[1].joint_positions - commanded).max()
    assert moved > DUAL.dt * max(DUAL.arms[1].joint_limits.velocity_rad_s), "more than a tick may move it"
    assert rig.filter.counters["reseeds"] == 2 and rig.filter.counters["target_violations"] == 0


def test_stopped_and_then_inactive_an_arm_begins_where_it_is_measured():
    rig = Rig(change=free).start()
    rig.tick(3)
    rig.filter.stop(rig.now)
    rig.follows = False
    rig.joints["arm"] = rig.joints["arm"] + 0.004 * np.eye(7)[1]
    rig.tick(40)
    assert rig.filter.activate(False, rig.now)[0] and rig.filter.resume(rig.now) == (True, "inactive")
    rig.tick(40)
    rig.beat()
    assert rig.filter.activate(True, rig.now) == (True, "active")
    np.testing.assert_array_equal(rig.filter._motion.joints[0], rig.joints["arm"])


def test_a_gripper_that_failed_is_said_beside_what_else_is_wrong():
    rig = Rig(change=free).start()
    rig.tick(2)
    rig.changes = dict(gripper_state=GripperState.FAILED)
    rig.propose(rig.pose().position, rig.pose().quaternion, opening=0.0, valid_for=1.0)
    rig.run_until(lambda output: output.status.reasons & Reason.GRIPPER, 2.0)
    assert rig.output.status.reasons == Reason.GRIPPER
    rig.run_until(lambda output: output.status.reasons & Reason.PROPOSAL_STALE, 3.0)
    assert rig.output.status.reasons == Reason.GRIPPER | Reason.PROPOSAL_STALE


def test_a_clock_that_is_heard_no_more_is_no_fault():
    rig = Rig(change=free).start()
    rig.clock = 1e9
    assert rig.tick(3).status.reasons == Reason.PROPOSAL_STALE
    rig.clock = None
    assert rig.tick(3).status.reasons == Reason.PROPOSAL_STALE
    rig.clock = 5.0
    assert rig.tick().status.reasons & Reason.CLOCK_JUMP, "it is not forgotten what it said last"
