"""The habits of the FR3's stand-in, without a graph."""
from __future__ import annotations

import numpy as np
import pytest

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_ros.stand_ins.franka.robot import IDLE, MOVE, FrankaRobot, TriggerRate
from hybridvla_sim.fr3.drive import Drive, FrankaDrive
from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.monitor import MonitorLimits
from hybridvla_sim.tasks import load


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
    impedance, trajectory = "cartesian_impedance_example_controller", "position_joint_trajectory_controller"
    robot = FrankaRobot(load("blocks"), MonitorLimits.of(load_robot(ROOT / "config/robots/fr3.yaml").arms[0]), seed=1)
    for name in (impedance, trajectory):
        assert robot.load(name, typed=True)
    assert robot.switch([impedance], [], strict=True)
    robot.step(0.05)
    assert robot.mode == MOVE
    assert robot.switch([trajectory], [impedance], strict=True) and robot.mode == IDLE
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
