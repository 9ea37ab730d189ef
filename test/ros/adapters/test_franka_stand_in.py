"""The habits of the FR3's stand-in, without a graph."""
from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import rospy
from scipy.spatial.transform import Rotation
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_ros.stand_ins.franka.faults import Faults
from hybridvla_ros.stand_ins.franka.joint_door import tool_at
from hybridvla_ros.stand_ins.franka.node import FrankaStandIn
from hybridvla_ros.stand_ins.franka.robot import IDLE, MOVE, FrankaRobot, TriggerRate
from hybridvla_sim.fr3.drive import Drive, FrankaDrive
from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.tasks import load

FR3 = load_robot(ROOT / "config" / "robots" / "fr3.yaml")
IMPEDANCE, TRAJECTORY = "cartesian_impedance_example_controller", "position_joint_trajectory_controller"


@pytest.mark.parametrize("asked, given", [(30.0, 29.4), (200.0, 167.0), (300.0, 250.0)])
def test_states_come_slower_than_asked_for(asked, given):
    trigger = TriggerRate(asked)
    count = sum(trigger.due(number * 1e-3, (number + 1) * 1e-3) for number in range(10_000))
    assert count / 10.0 == pytest.approx(given, rel=0.02)


@pytest.fixture
def drive():
    made = []

    def make(model, data, index, _config):
        made.append(made[0] if made else FrankaDrive(model, data, index))
        made[0].start()
        return made[0]
    rig = Rig(load("blocks"), make_controller=make)
    made[0].switch(Drive.IMPEDANCE)
    return rig, made[0]


def test_the_target_is_followed_with_the_controllers_lag(drive):
    rig, arm = drive
    begin = arm.target_position.copy()
    arm.set_target(begin + [0.0, 0.05, 0.0], arm.target_rotation.as_quat())
    rig.step(0.2)
    assert (arm._position - begin)[1] / 0.05 == pytest.approx(1.0 - 0.995 ** 200, abs=0.01)


def test_a_target_that_is_no_number_breaks_the_driver(drive):
    _, arm = drive
    arm.set_target([float("nan"), 0.0, 0.5], [1.0, 0.0, 0.0, 0.0])
    assert arm.broken


def test_torques_rise_by_one_newton_metre_a_millisecond_at_most(drive):
    rig, arm = drive
    arm.stiffness = np.array([400.0, 30.0, 0.5])
    arm.set_target(arm.target_position + [0.0, 0.0, 3.0], arm.target_rotation.as_quat())
    before = arm._torque.copy()
    rig.step(float(rig.model.opt.timestep))
    assert np.abs(arm._torque - before).max() <= rig.model.opt.timestep * 1e3 + 1e-9


def test_between_two_controllers_the_robot_is_idle_and_forgets_a_trajectory_that_came_too_early():
    robot = FrankaRobot(load("blocks"), FR3, seed=1)
    for name in (IMPEDANCE, TRAJECTORY):
        assert robot.load(name, typed=True)
    assert robot.switch([IMPEDANCE], [], strict=True)
    robot.step(0.05)
    assert robot.mode == MOVE
    assert robot.switch([TRAJECTORY], [IMPEDANCE], strict=True) and robot.mode == IDLE
    begin = robot.drive.joints
    way = (np.array([0.2]), (begin + 0.1)[None], None)
    robot.drive.set_trajectory(*way)
    robot.step(0.005)
    assert robot.mode == IDLE
    robot.step(0.4)
    assert robot.mode == MOVE and np.abs(robot.drive.joints - begin).max() < 0.02, "it was taken before the restart"
    robot.drive.set_trajectory(*way)
    robot.step(0.4)
    assert np.abs(robot.drive.joints - begin - 0.1).max() < 0.02


# The count of targets that break a limit -----------------------------------------------------------------------------


@pytest.fixture
def door(monkeypatch):
    """Return the joint door of a stand-in: `send` is the filter's next message, `report` what the stand-in then counts."""
    services = {}
    monkeypatch.setattr(rospy, "Service", lambda name, _kind, serve: services.__setitem__(name, serve))
    node = FrankaStandIn.__new__(FrankaStandIn)
    node.robot, node.names = FrankaRobot(load("blocks"), FR3, seed=1), list(FR3.arms[0].joint_names)
    Faults(node.robot)
    assert node.robot.load(TRAJECTORY, typed=True) and node.robot.switch([TRAJECTORY], [], strict=True)
    node.robot.step(0.05)

    def send(number, *joints, seconds=FR3.franka.trajectory_ahead_s):
        points = [JointTrajectoryPoint(positions=list(point), velocities=[0.0] * 7, time_from_start=rospy.Duration(seconds * n))
                  for n, point in enumerate(joints, 1)]
        message = JointTrajectory(joint_names=node.names, points=points)
        message.header.seq = number
        node._on_trajectory(message, TRAJECTORY)

    def report():
        answer = services["/stand_in/report"](SimpleNamespace(instruction=""))
        return answer.targets, answer.limit_violations, json.loads(answer.report)
    return SimpleNamespace(send=send, report=report, step=node.robot.step, joints=node.robot.drive.joints)


def shifted(joints, *ways):
    """Return joints, rad, of which the first ones are moved by `ways`."""
    return joints + np.array([*ways, *[0.0] * (7 - len(ways))])


def test_a_jump_of_the_joints_is_counted_and_motion_within_the_limits_is_not(door):
    for tick in range(40):          # 0.18 m/s at the tool
        door.send(tick, shifted(door.joints, 0.003 * tick))
        door.step(0.005)
    assert door.report()[:2] == (40, 0)
    door.send(40, shifted(door.joints, 0.003 * 40, 0.1))
    targets, count, report = door.report()
    assert targets == 41 and count > 0
    assert {"joint_2_speed_step", "speed_step"} <= set(report["violations_by_name"])
    assert "rad" in report["last_violation"]


def test_a_joint_beyond_its_limits_is_counted(door):
    beyond = door.joints.copy()
    beyond[3] = FR3.arms[0].joint_limits.lower_rad[3] + 0.5 * FR3.arms[0].joint_limits.margin_rad
    door.send(1, beyond)
    assert "joint_4_position" in door.report()[2]["violations_by_name"]


def test_a_tool_outside_its_workspace_is_counted(door):
    door.send(1, shifted(door.joints, 0.0, -0.3))
    assert door.report()[2]["violations_by_name"] == {"workspace_x": 1}


def test_the_count_knows_the_tools_pose_as_the_simulated_arm_does(drive):
    rig, arm = drive
    rng = np.random.default_rng(3)
    for _ in range(5):
        rig.data.qpos[rig.index.arm_qpos] += rng.uniform(-0.3, 0.3, 7)
        rig.copy_state(rig)      # works out where the links are
        position, quaternion = tool_at(FR3.arms[0], arm.joints)
        np.testing.assert_allclose(position, arm.o_t_ee[:3, 3], atol=1e-5)
        np.testing.assert_allclose(Rotation.from_quat(quaternion).as_matrix(), arm.o_t_ee[:3, :3], atol=1e-5)


def test_joints_that_are_no_numbers_are_counted(door):
    door.send(1, shifted(door.joints, float("nan")))
    assert door.report()[2]["violations_by_name"] == {"not_finite": 1}


def test_targets_that_come_at_once_or_are_lost_on_the_way_break_no_limit(door):
    for number in [*range(20), 30, 31, 45]:        # no time passes for the robot meanwhile
        door.send(number, shifted(door.joints, 0.003 * number))
    assert door.report()[:2] == (23, 0)
    door.send(46, shifted(door.joints, 0.003 * 60))
    assert door.report()[1] > 0, "fifteen steps at once"


def test_a_planned_way_is_not_judged_and_neither_is_where_the_filter_begins_after_it(door):
    door.send(1, door.joints)
    door.send(2, shifted(door.joints, 0.2), seconds=0.5)
    door.send(3, shifted(door.joints, 0.3), shifted(door.joints, 0.4))
    door.send(4, shifted(door.joints, 0.2))
    assert door.report()[:2] == (2, 0)
    door.send(5, shifted(door.joints, 0.3))
    assert door.report()[1] > 0
