"""The filter as its users meet it: proposals in, commands out, states and reasons."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.contracts import Pose
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer


def at_target(output):
    return output.status.at_target


def moving(rig):
    return float(np.linalg.norm(np.diff(rig.commanded()[-2:], axis=0)))


def assert_holds(rig, reason, state=State.HOLDING):
    """Assert that the arm rests within the braking time and stays at the last commanded pose."""
    rig.tick(80)
    assert rig.filter.state == state
    assert rig.output.status.reasons & reason
    rest = rig.pose().position
    rig.tick(100)
    np.testing.assert_array_equal(rig.pose().position, rest)


def test_is_inactive_and_publishes_nothing_at_start():
    rig = Rig()
    rig.tick(20)
    rig.beat()
    assert rig.propose([0.5, 0.1, 0.3]).accepted
    rig.tick(100)
    assert rig.filter.state == State.INACTIVE
    assert not any(command.publish for output in rig.sent for command in output.arms)
    assert np.ptp(rig.commanded(), axis=0).max() == 0.0


def test_free_motion_arrives_smoothly_and_in_time():
    rig = Rig().start()
    rig.tick()
    start = rig.pose().position
    goal = start + np.array([0.1, 0.2, -0.2])
    assert rig.propose(goal).accepted
    seconds = rig.run_until(at_target)
    assert np.linalg.norm(rig.pose().position - goal) < 1e-3
    assert 1.0 < seconds < 1.8
    way = rig.commanded()
    line = (goal - start) / np.linalg.norm(goal - start)
    offset = (way - start) - np.outer((way - start) @ line, line)
    assert np.linalg.norm(offset, axis=1).max() < 1e-3


def test_keyframe_gripper_runs_after_arrival_and_status_names_the_sequence():
    rig = Rig().start()
    rig.tick()
    rig.propose(rig.pose().position + [0.05, 0.0, 0.0], opening=0.0)
    rig.run_until(at_target)
    commanded = [i for i, output in enumerate(rig.sent) if output.arms[0].gripper is not None]
    assert len(commanded) == 1
    assert rig.sent[commanded[0]].arms[0].gripper == 0.0
    assert np.linalg.norm(rig.sent[commanded[0]].arms[0].pose.position - rig.pose().position) < 1e-3
    assert rig.output.status.sequence == rig.sequence


def test_silence_of_the_heartbeat_holds_at_the_last_command():
    rig = Rig().start()
    rig.propose([0.5, 0.3, 0.2])
    rig.tick(60)
    assert moving(rig) > 1e-4
    rig.beating = False
    rig.tick(60)
    assert_holds(rig, Reason.HEARTBEAT_LOST)


def test_expired_proposal_holds():
    rig = Rig().start()
    rig.propose([0.5, 0.3, 0.2], valid_for=0.2)
    rig.tick(60)
    assert_holds(rig, Reason.PROPOSAL_STALE)


@pytest.mark.long
def test_joint_state_silence_holds_and_stop_latches():
    rig = Rig().start()
    rig.propose([0.5, 0.3, 0.2])
    rig.tick(60)
    rig.silent = {"arm"}
    rig.tick(45)
    assert_holds(rig, Reason.JOINT_STATE)
    rig.silent = set()
    rig.tick(5)
    rig.propose([0.5, 0.3, 0.2])
    rig.tick(40)
    assert rig.filter.state == State.ACTIVE
    rig.filter.stop(rig.now)
    assert_holds(rig, Reason.OPERATOR, State.STOPPED)
    assert rig.propose([0.5, 0.3, 0.2]).accepted
    assert_holds(rig, Reason.OPERATOR, State.STOPPED)
    assert not rig.filter.activate(True, rig.now)[0]
    assert rig.filter.resume(rig.now)[0]
    assert_holds(rig, Reason.PROPOSAL_STALE)
    rig.propose([0.5, 0.3, 0.2])
    rig.run_until(at_target)


def test_hold_and_newer_instruction_drop_the_target():
    rig = Rig().start()
    rig.propose([0.5, 0.3, 0.2])
    rig.tick(60)
    assert rig.hold().accepted
    assert_holds(rig, Reason.PROPOSAL_STALE)
    rig.propose([0.5, 0.3, 0.2])
    rig.tick(40)
    rig.instruction = 2
    rig.beat()
    assert_holds(rig, Reason.PROPOSAL_STALE)


def test_robot_error_stops_publishes_nothing_and_reseeds_on_resume():
    rig = Rig().start()
    rig.propose([0.5, 0.3, 0.2])
    rig.tick(60)
    rig.changes = dict(ready=False, message="reflex")
    rig.tick(2)
    assert rig.filter.state == State.STOPPED and not rig.output.arms[0].publish
    rig.tick(80)
    assert not rig.filter.resume(rig.now)[0]
    rig.changes = {}
    rig.joints["arm"] = rig.joints["arm"] + 0.02
    rig.tick(5)
    assert "moving" in rig.filter.resume(rig.now)[1]
    rig.tick(25)
    assert rig.filter.resume(rig.now)[0]
    rig.tick()
    np.testing.assert_allclose(rig.pose().position, rig.measured_pose("arm").position, atol=1e-6)
    assert rig.output.status.counters["reseeds"] == 2


def test_stop_after_a_robot_error_publishes_nothing_until_resume_has_read_the_pose():
    rig = Rig().start()
    rig.propose([0.5, 0.3, 0.2])
    rig.tick(60)
    rig.changes = dict(ready=False, message="reflex")
    rig.tick(20)
    rig.changes = {}
    rig.filter.stop(rig.now)
    for _ in range(100):
        assert not rig.tick().arms[0].publish
    assert rig.output.status.reasons & Reason.OPERATOR and rig.output.status.reasons & Reason.ROBOT_MODE
    assert rig.filter.resume(rig.now)[0]
    rig.tick()
    np.testing.assert_allclose(rig.pose().position, rig.measured_pose("arm").position, atol=1e-6)


def test_clock_gap_and_backward_clock_never_catch_up():
    rig = Rig().start()
    rig.propose([0.5, 0.3, 0.2])
    rig.tick(60)
    for jump in (0.5, -0.3):
        before = rig.pose().position
        step = moving(rig)
        rig.now += jump
        rig.tick()
        assert np.linalg.norm(rig.pose().position - before) <= step + 1e-9
        assert rig.output.status.reasons & Reason.CLOCK_JUMP
        rig.tick(100)
        rig.beat()
        rig.propose([0.5, 0.3, 0.2], stamp=rig.now + 1.0)
        rig.tick(30)


@pytest.mark.long
def test_deadman_released_or_silent_holds():
    rig = Rig(change=lambda config: dataclasses.replace(config, deadman_required=True)).start()

    def hold_pressed(ticks):
        for _ in range(ticks):
            rig.filter.on_deadman(True, rig.now)
            rig.tick()

    hold_pressed(3)
    rig.propose([0.5, 0.3, 0.2])
    hold_pressed(60)
    assert rig.filter.state == State.ACTIVE
    rig.filter.on_deadman(False, rig.now)
    assert_holds(rig, Reason.DEADMAN)
    hold_pressed(3)
    rig.propose([0.5, 0.3, 0.2])
    hold_pressed(60)
    rig.tick(50)
    assert_holds(rig, Reason.DEADMAN)


@pytest.mark.long
def test_blocked_arm_is_not_wound_up():
    rig = Rig().start()
    rig.tick()
    rig.follows = False
    rig.propose([0.5, 0.4, 0.2])
    rig.tick(400)
    distance = np.linalg.norm(rig.pose().position - rig.measured_pose("arm").position)
    assert distance <= rig.config.arms[0].leash.distance_m
    assert rig.output.status.reasons & Reason.LEASH


def test_target_outside_the_box_ends_at_the_wall_on_the_same_line():
    rig = Rig().start()
    rig.tick()
    start = rig.pose().position
    goal = np.array([0.5, 1.5, 0.3])
    rig.propose(goal)
    rig.run_until(lambda output: output.status.state == State.HOLDING and output.status.reasons == Reason.WORKSPACE)
    assert abs(rig.pose().position[1] - 0.45) < 2e-3 and not rig.output.status.at_target
    assert "arm: the target lies 1050.5 mm outside the workspace" in rig.output.status.message
    arm = rig.output.status.arms[0]
    assert arm.mended and np.array_equal(arm.asked.position, goal)
    line = (goal - start) / np.linalg.norm(goal - start)
    offset = rig.commanded() - start
    assert np.linalg.norm(offset - np.outer(offset @ line, line), axis=1).max() < 2e-3


def test_dry_run_computes_and_publishes_nothing():
    rig = Rig(dry_run=True).start()
    rig.tick()
    goal = rig.pose().position + [0.1, 0.1, 0.0]
    rig.propose(goal)
    rig.run_until(at_target)
    assert np.linalg.norm(rig.pose().position - goal) < 1e-3
    assert not any(command.publish or command.gripper is not None for output in rig.sent for command in output.arms)


@pytest.mark.parametrize("dry_run", [False, True])
def test_arms_that_others_move_can_be_followed_in_a_dry_run_only(dry_run):
    rig = Rig(dry_run=dry_run)
    for _ in range(40):
        rig.joints["arm"] = rig.joints["arm"] + 0.005
        rig.tick()
    done, answer = rig.filter.activate(True, rig.now)
    assert done == dry_run and ("still moving" in answer) != dry_run


@pytest.mark.long
def test_dense_stream_is_smooth_between_proposals():
    rig = Rig().start()
    rig.tick()
    start = rig.pose().position
    for index in range(20):
        target = start + np.array([0.0, 0.01, -0.005]) * (index + 1)
        assert rig.propose(target, action_period=0.1, valid_for=0.2).accepted
        rig.tick(20)
    speeds = np.linalg.norm(np.diff(rig.commanded()[-300:], axis=0), axis=1) / rig.config.dt
    assert speeds.min() > 0.3 * speeds.max()
    assert np.linalg.norm(rig.pose().position - target) < 0.01


def test_speed_scale_is_checked_and_slows():
    rig = Rig().start()
    with pytest.raises(ConfigurationError, match="speed_scale"):
        rig.filter.set_speed_scale(1.5)
    rig.filter.set_speed_scale(0.2)
    rig.propose([0.5, 0.3, 0.2])
    rig.tick(200)
    speeds = np.linalg.norm(np.diff(rig.commanded(), axis=0), axis=1) / rig.config.dt
    assert speeds.max() < 0.2 * 0.35


def test_tool_pose_of_the_driver_must_agree():
    rig = Rig()
    pose = rig.measured_pose("arm")
    rig.changes = dict(pose=Pose(pose.position + [0.0, 0.0, 0.004], pose.quaternion))
    rig.tick(3)
    ok, message = rig.filter.activate(True, rig.now)
    assert not ok and "4.0 mm" in message
