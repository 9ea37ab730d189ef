"""How hard the command pushes an arm that something holds: at rest, in motion, stopped, and outside a limit."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.safety.status import Reason, State


def quick(config):
    return dataclasses.replace(config, deadman_required=False, speed_scale=1.0)


def blocked_on_the_way(robot="sim_fr3", **keys):
    rig = Rig(robot, change=quick, **keys).start()
    rig.tick(200)
    goal = rig.pose().position + np.array([0.05, -0.3, -0.05])
    rig.propose(goal)
    rig.tick(120)
    rig.follows = False
    return rig


def push(rig):
    away = rig.pose().position - rig.measured_pose("arm").position
    return float(np.linalg.norm(away)) * rig.config.arms[0].leash.stiffness_n_m


@pytest.mark.long
@pytest.mark.parametrize("robot", ["sim_fr3", "fr3"])
def test_an_arm_that_is_held_is_pushed_with_no_more_than_the_bound_once_it_rests(robot):
    rig = blocked_on_the_way(robot, lag_s=0.2)
    rig.tick(700)
    status = rig.output.status
    assert push(rig) <= rig.config.arms[0].leash.max_force_n
    assert status.state == State.HOLDING and status.reasons & Reason.LEASH and "free it" in status.message
    assert status.arms[0].push_n == pytest.approx(push(rig), abs=0.1)
    rig.tick(3000)                                     # long after the proposal ended, the push has not grown
    assert push(rig) <= rig.config.arms[0].leash.max_force_n


@pytest.mark.long
@pytest.mark.parametrize("robot, scale", [("fr3", 0.5), ("fr3", 1.0), ("sim_fr3", 1.0)])
def test_an_arm_that_is_stopped_at_speed_is_pushed_for_a_moment_with_what_thresholds_are_checked_against(robot, scale):
    """The arm is stopped in the middle of the longest motion, with a controller that lags as the leash assumes."""
    rig = Rig(robot, change=lambda config: dataclasses.replace(config, deadman_required=False, speed_scale=scale), lag_s=0.3)
    leash, limits = rig.config.arms[0].leash, rig.config.arms[0].cartesian_limits
    rig.lag_s = leash.lag_s
    rig.start().tick(250)
    rig.propose([0.45, -0.35, 0.45])
    rig.run_until(lambda output: rig.measured_pose("arm").position[1] < -0.3, 12.0)
    rig.propose([0.45, 0.38, 0.45])
    rig.run_until(lambda output: rig.measured_pose("arm").position[1] > 0.0, 12.0)
    rig.follows = False
    most = 0.0
    for _ in range(300):
        rig.tick()
        most = max(most, push(rig))
    reached = leash.reached_n(scale * limits.speed_m_s, limits.acceleration_m_s2)
    assert 0.85 * reached < most <= reached


def test_on_the_joint_door_an_arm_that_follows_at_full_speed_is_not_called_held_and_a_blocked_one_is():
    """The leash expects the lag of the controller behind the door, not that of the impedance controller."""
    rig = Rig("fr3", change=lambda config: dataclasses.replace(quick(config), door="joint"))
    rig.lag_s = rig.config.franka.trajectory_ahead_s
    rig.start().tick(250)
    for y in (-0.35, 0.35):
        rig.propose([0.45, y, 0.45])
        rig.run_until(lambda output: output.status.at_target, 12.0)
    assert not any(output.status.reasons & Reason.LEASH for output in rig.sent)
    rig.propose([0.45, -0.35, 0.45])
    rig.run_until(lambda output: rig.measured_pose("arm").position[1] < 0.0, 12.0)
    rig.follows = False
    ahead = [push(rig) for _ in range(300) if rig.tick()]
    assert rig.output.status.state == State.HOLDING and rig.output.status.reasons & Reason.LEASH
    leash, limits = rig.config.arms[0].leash, rig.config.arms[0].cartesian_limits
    behind = dataclasses.replace(leash, lag_s=rig.lag_s).reached_n(limits.speed_m_s, limits.acceleration_m_s2)
    assert leash.max_force_n < max(ahead) <= behind and ahead[-1] <= leash.max_force_n


def test_an_arm_that_is_held_on_its_way_back_inside_is_pushed_with_no_more_than_the_bound():
    rig = Rig("fr3", change=lambda config: dataclasses.replace(config, deadman_required=False))
    rig.joints["arm"] = np.array([1.25, 0.40, 0.0, -1.40, 0.0, 1.75, 0.785])
    rig.tick(60)
    assert rig.filter.reenter(rig.now)[0]
    rig.follows = False
    rig.tick(1500)
    assert rig.filter.state == State.RECOVERING and rig.output.status.reasons & Reason.LEASH
    assert 5.0 < push(rig) <= 20.0


@pytest.mark.parametrize("waits", [Reason.DEADMAN, Reason.OPERATOR])
def test_an_arm_that_is_pushed_while_its_way_back_waits_pushes_with_no_more_than_the_bound(waits):
    rig = Rig("fr3")
    rig.joints["arm"] = np.array([1.25, 0.40, 0.0, -1.40, 0.0, 1.75, 0.785])
    pressed = True

    def held(ticks):
        for _ in range(ticks):
            rig.filter.on_deadman(pressed, rig.now)
            rig.tick()

    held(60)
    assert rig.filter.reenter(rig.now)[0]
    held(20)
    if waits == Reason.DEADMAN:
        pressed = False
    else:
        rig.filter.hold_for(waits, "the master is gone")
    held(60)
    rig.follows = False
    rig.joints["arm"] = rig.joints["arm"] + np.array([0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    held(1500)
    status = rig.output.status
    assert status.state == State.RECOVERING and status.reasons & waits and status.reasons & Reason.LEASH
    assert 5.0 < push(rig) <= 20.0


def narrow(config):
    """Set a joint limit just beyond where the arm is when it is stopped in motion, for a measured breach."""
    arm = config.arms[0]
    limits = dataclasses.replace(arm.joint_limits, upper_rad=(*arm.joint_limits.upper_rad[:6], 0.79))
    return dataclasses.replace(config, deadman_required=False, speed_scale=1.0, arms=(dataclasses.replace(
        arm, joint_limits=limits, start_joints_rad=(*arm.start_joints_rad[:6], 0.7)),))


def test_an_arm_that_is_held_outside_a_limit_is_pushed_with_no_more_than_the_bound():
    rig = Rig("fr3", change=narrow, lag_s=0.2).start()
    rig.tick(250)
    rig.propose(rig.pose().position + [0.05, -0.3, -0.05])
    rig.tick(120)
    rig.follows = False
    rig.joints["arm"] = rig.joints["arm"] + np.array([0, 0, 0, 0, 0, 0, 0.83 - rig.joints["arm"][6]])
    rig.tick(700)
    status = rig.output.status
    assert status.reasons & Reason.MEASURED_LIMIT and status.reasons & Reason.LEASH and status.state == State.HOLDING
    assert push(rig) <= rig.config.arms[0].leash.max_force_n


@pytest.mark.parametrize("held_at", [0, 60, 120, 400])
def test_a_stopped_arm_is_pushed_with_no_more_than_the_bound_whenever_it_is_held(held_at):
    """It is held at once, while it comes to rest behind its command, or led away by hand long after."""
    rig = Rig("fr3", change=quick, lag_s=0.3).start()
    rig.tick(250)
    rig.propose(rig.pose().position + [0.05, -0.3, -0.05])
    rig.tick(140)
    rig.filter.stop(rig.now)
    rig.tick(held_at)
    rig.follows = False
    if held_at:
        for _ in range(100):
            rig.joints["arm"] = rig.joints["arm"] + np.array([0.003, 0, 0, 0, 0, 0, 0])
            rig.tick()
    rig.tick(700)
    assert rig.filter.state == State.STOPPED
    assert push(rig) <= rig.config.arms[0].leash.max_force_n


class OneInError(Rig):
    """Two arms; the right arm's robot reports an error once `error` is set."""

    error = False

    def arm_state(self, name):
        state = super().arm_state(name)
        return dataclasses.replace(state, ready=False, message="reflex") if self.error and name == "right" else state


@pytest.mark.parametrize("both", [False, True])
def test_where_one_arm_reports_an_error_the_other_is_pushed_with_no_more_than_the_bound(both):
    """The arm in error receives no commands, whether it is moved by hand or not, and its command stays."""
    rig = OneInError("sim_dual", change=quick).start()
    rig.tick(250)
    rig.error = True
    rig.tick(20)
    rig.follows = False
    stays = rig.pose(0).position
    for _ in range(100):
        rig.joints["left"] = rig.joints["left"] + np.array([0.006, 0, 0, 0, 0, 0, 0])
        rig.joints["right"] = rig.joints["right"] - np.array([0.006 if both else 0.0, 0, 0, 0, 0, 0, 0])
        rig.tick()
    rig.tick(700)
    assert rig.filter.state == State.STOPPED
    assert [(command.name, command.publish) for command in rig.output.arms] == [("right", False), ("left", True)]
    away = rig.pose(1).position - rig.measured_pose("left").position
    leash = rig.config.arms[1].leash
    assert 5.0 < float(np.linalg.norm(away)) * leash.stiffness_n_m <= leash.max_force_n
    np.testing.assert_allclose(rig.pose(0).position, stays, atol=1e-4)
    rig.error = False
    rig.tick(60)
    assert rig.filter.resume(rig.now)[0], "and begins anew where both are"
    for index, name in enumerate(("right", "left")):
        np.testing.assert_allclose(rig.tick().arms[index].joint_positions, rig.joints[name], atol=0.01)


def test_push_is_not_a_number_on_a_joint_door():
    rig = Rig("agilex", change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
    assert all(np.isnan(arm.push_n) for arm in rig.tick().status.arms)


@pytest.mark.parametrize("leave", ["resume", "deactivate"])
def test_an_arm_moved_away_while_stopped_is_no_reason_to_stay_stopped(leave):
    rig = blocked_on_the_way()
    rig.filter.stop(rig.now)
    rig.tick(200)
    rig.joints["arm"] = rig.joints["arm"] + np.array([0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])         # by hand
    rig.tick(60)
    done, message = rig.filter.resume(rig.now) if leave == "resume" else rig.filter.activate(False, rig.now)
    assert done, message
    output = rig.tick(20)
    if leave == "deactivate":
        assert not output.arms[0].publish and output.status.state == State.STOPPED
    else:
        assert np.abs(output.arms[0].joint_positions - rig.joints["arm"]).max() < 0.01           # begun at the arm's own pose
