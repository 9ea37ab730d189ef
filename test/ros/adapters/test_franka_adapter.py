"""An FR3's adapter and its start-up without a graph: what goes out at the joint door, and which steps of start-up fail."""
from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import rospy
from franka_bench import Arm, Topic
from scipy.spatial.transform import Rotation

from hybridvla_core.contracts import Pose
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.status import ArmCommand
from hybridvla_ros.adapters.franka import reading, start_up
from hybridvla_ros.adapters.franka.adapter import FrankaAdapter

FR3 = load_robot(ROOT / "config" / "robots" / "fr3.yaml")
START = np.array(FR3.arms[0].start_joints_rad)
SMALL = 0.002 * np.ones(7)      # rad per tick, slower than every joint's limit


def columns(position, rotation):
    """Return a pose as franka_ros sends it."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, position
    return matrix.T.ravel().tolist()


# The joint door ----------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter():
    """Return an adapter at the joint door whose topics keep what is sent."""
    made = FrankaAdapter.__new__(FrankaAdapter)
    made.config = replace(FR3, door="joint")
    made.arm = Arm(made.config, time.monotonic)
    made._echo, made._joint_echo, made._joints_before = Topic(), Topic(), None
    made._watch, made._safety = SimpleNamespace(fault="", announced=""), SimpleNamespace(dry_run=False)
    return made


def send(adapter, joints, publish=True):
    """Send a tick's command; return the trajectories that went out for it."""
    count = len(adapter.arm.trajectories.sent)
    adapter.send([ArmCommand("arm", Pose(np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])), joints, None, publish)], 5.0)
    return adapter.arm.trajectories.sent[count:]


def speed(adapter, joints):
    """Send a tick's command; return the velocities of its point."""
    (message,) = send(adapter, joints)
    (point,) = message.points
    np.testing.assert_array_equal(point.positions, joints)
    return np.array(point.velocities)


def test_the_joint_door_sends_one_point_a_tick_with_the_speed_since_the_one_before(adapter):
    assert speed(adapter, START).tolist() == [0.0] * 7
    np.testing.assert_allclose(speed(adapter, START + SMALL), SMALL / FR3.dt)
    message = adapter.arm.trajectories.sent[-1]
    assert message.joint_names == list(FR3.arms[0].joint_names) and adapter.arm.poses.sent == []
    assert message.points[0].time_from_start == rospy.Duration(FR3.franka.trajectory_ahead_s)
    assert message.header.stamp == rospy.Time(), "a stamp would delay the point"
    echo = adapter._joint_echo.sent[-1]
    assert echo.position == (START + SMALL).tolist() and echo.header.stamp == rospy.Time(5)


def test_a_jump_is_sent_without_a_speed_and_the_next_tick_has_its_own(adapter):
    speed(adapter, START)
    jump = START + SMALL
    jump[5] += 0.1
    assert speed(adapter, jump).tolist() == [0.0] * 7, "of no joint"
    np.testing.assert_allclose(speed(adapter, jump - SMALL), -SMALL / FR3.dt)


@pytest.mark.parametrize("share, sent", [(1.04, True), (1.06, False)])
def test_a_speed_a_little_above_a_joints_limit_is_rounding_and_a_larger_one_is_a_jump(adapter, share, sent):
    step = np.zeros(7)
    step[1] = -share * FR3.arms[0].joint_limits.velocity_rad_s[1] * FR3.dt
    speed(adapter, START)
    np.testing.assert_allclose(speed(adapter, START + step), step / FR3.dt * sent)


@pytest.mark.parametrize("silence", ["nothing to publish", "another node commands the arm"])
def test_nothing_is_sent_in_a_silence_and_the_first_point_after_it_has_no_speed(adapter, silence):
    speed(adapter, START)
    if silence != "nothing to publish":
        adapter._watch.fault = silence
    assert send(adapter, START + SMALL, publish=silence != "nothing to publish") == [] and len(adapter._joint_echo.sent) == 1
    adapter._watch.fault = ""
    assert speed(adapter, START + 2 * SMALL).tolist() == [0.0] * 7
    np.testing.assert_allclose(speed(adapter, START + 3 * SMALL), SMALL / FR3.dt)


# Start-up ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ready():
    """Return an arm that passes every step of start-up. `controllers`: those of its driver, by state."""
    arm, now = Arm(FR3, time.monotonic), time.monotonic()
    arm.controllers = {"franka_state_controller": "running", FR3.franka.impedance_controller: "running"}
    arm.driver.controllers = lambda: dict(arm.controllers)
    arm.joints_heard, arm.joint_names, arm.rate = now + 1e6, arm.arm.joint_names, SimpleNamespace(hz=250.0)
    arm.hand = SimpleNamespace(reachable=lambda _seconds: "")
    tool = arm.arm.tool
    arm.state.F_T_EE = columns(tool.position_m, Rotation.from_quat(tool.quaternion_xyzw).as_matrix())
    arm.state.O_T_EE = columns(*ArmKinematics(arm.arm).pose(START))
    arm.state.m_ee = tool.mass_kg
    return arm


def steps(arm, dry_run=False, foreign=""):
    return dict(start_up.StartUp(arm, lambda: foreign, dry_run).steps())


def test_an_arm_that_is_ready_passes_every_step_and_its_controllers_are_stopped_before_it_is_configured(ready):
    assert [check() for check in steps(ready).values()] == [""] * 14
    ours = (FR3.franka.impedance_controller, FR3.franka.trajectory_controller)
    assert ready.driver.calls == [("switch", {"stop": ours}), "set_load", "set_collision", "load", "stiff",
                                  ("switch", {"start": [FR3.franka.impedance_controller]})]


def test_a_dry_runs_start_up_changes_nothing_at_the_robot(ready):
    assert [check() for check in steps(ready, dry_run=True).values()] == [""] * 8
    assert ready.driver.calls == []


def shift_tool(arm):
    position, rotation = ArmKinematics(arm.arm).pose(START)
    arm.state.O_T_EE = columns(position + [0.0, 0.0, 0.002], rotation)


@pytest.mark.parametrize("step, trouble, said", [
    ("driver", lambda arm: setattr(arm, "speaks", False), "start franka_control"),
    ("driver", lambda arm: setattr(arm, "joints_heard", float("-inf")), "is franka_state_controller running?"),
    ("arm_id", lambda arm: setattr(arm, "joint_names", ("panda_joint1",)), "joint states name panda_joint1"),
    ("state rate", lambda arm: setattr(arm.rate, "hz", 30.0), "states come at 30 Hz, 200 are needed"),
    ("robot mode", lambda arm: setattr(arm.state, "robot_mode", reading.REFLEX), "robot mode REFLEX"),
    ("controllers stopped", lambda arm: arm.controllers.update(theirs="running"), "controller theirs is running and not ours"),
    ("controllers stopped", lambda arm: arm.controllers.pop("franka_state_controller"), "franka_state_controller is not loaded"),
    ("tool frame", lambda arm: setattr(arm.state, "F_T_EE", columns([0.0, 0.0, 0.2], np.eye(3))), "96.6 mm and 45.00 degrees"),
    ("load", lambda arm: setattr(arm.state, "m_ee", 0.8), "Desk has the end effector at 0.80 kg, tool.mass_kg is 0.73"),
    ("tool pose", shift_tool, "the driver's tool pose differs from ours by 2.0 mm"),
    ("gripper", lambda arm: setattr(arm.hand, "reachable", lambda _seconds: "move is not served"), "move is not served")])
def test_a_step_of_start_up_that_fails_names_its_cause_and_changes_nothing(ready, step, trouble, said):
    trouble(ready)
    assert said in steps(ready)[step]() and ready.driver.calls == []


def test_a_controller_of_somebody_else_that_does_not_run_is_let_be(ready):
    ready.controllers["theirs"] = "initialized"
    assert steps(ready)["controllers stopped"]() == ""


def test_another_publisher_fails_its_step(ready):
    assert steps(ready, foreign="/marker publishes")["publishers"]() == "/marker publishes"


def test_start_up_begins_again_when_the_dry_run_is_switched(ready):
    begun = start_up.StartUp(ready, lambda: "", dry_run=True)
    begun.done, begun.problem = True, ""
    begun.follow(True)
    assert begun.done and begun.says == "" and "controller started" not in dict(begun.steps())
    begun.follow(False)
    assert begun.done is False and "the dry run was switched" in begun.says and "controller started" in dict(begun.steps())


def test_after_a_dry_run_the_arm_takes_no_commands_until_start_up_has_passed_again(adapter, ready):
    adapter.arm, adapter._safety.dry_run = ready, True
    adapter.start_up = start_up.StartUp(ready, lambda: "", dry_run=True)
    adapter.start_up.done, adapter.start_up.problem = True, ""
    assert adapter._problem() == ""
    adapter._safety.dry_run = False
    assert "the dry run was switched" in adapter._problem() and not adapter.start_up.done
