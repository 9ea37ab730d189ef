"""The FR3's parts without a graph: readings, start-up, gripper worker, way to the start."""
from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from franka_msgs.msg import FrankaState

from hybridvla_core.contracts import GripperState
from hybridvla_core.errors import ConfigurationError, HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_ros.adapters.franka import reading, start_up
from hybridvla_ros.adapters.franka.gripper import GripperWorker
from hybridvla_ros.adapters.franka.start_path import StartPath


@pytest.fixture(scope="module")
def robot():
    return load_robot(ROOT / "config" / "robots" / "fr3.yaml")


def columns(matrix):
    return np.asarray(matrix).T.ravel().tolist()


# Readings ----------------------------------------------------------------------------------------------------------


def test_a_column_major_pose_is_read_as_one(robot):
    # Golden value: franka's own pose of the start joints with the hand, column-major.
    golden = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0, 0.306891, 0, 0.486882, 1]
    pose = reading.pose(golden)
    position, matrix = ArmKinematics(robot.arms[0]).pose(np.array(robot.arms[0].start_joints_rad))
    np.testing.assert_allclose(pose.position, position, atol=1e-5)
    np.testing.assert_allclose(reading.matrix(golden)[:3, :3], matrix, atol=1e-5)


@pytest.mark.parametrize("mode, commanded, words", [
    (2, True, ""), (1, False, ""), (1, True, "no effect"), (3, True, "GUIDING"), (5, False, "USER_STOPPED"),
    (6, True, "RECOVERY")])
def test_the_mode_decides(mode, commanded, words):
    said = reading.mode_problem(FrankaState(robot_mode=mode), commanded)
    assert words in said and bool(said) == bool(words)


def test_a_reflex_names_its_cause_even_when_the_present_errors_have_cleared():
    state = FrankaState(robot_mode=4)
    state.last_motion_errors.cartesian_reflex = True
    said = reading.mode_problem(state, True)
    assert "REFLEX (cartesian_reflex)" in said and "/hybridvla/robot/recover" in said


def test_the_end_effector_frame_is_compared_with_the_tool(robot):
    arm, frame = robot.arms[0], np.eye(4)
    half = np.sqrt(0.5)
    frame[:2, :2], frame[2, 3] = [[half, half], [-half, half]], 0.1034
    assert reading.tool_problem(FrankaState(F_T_EE=columns(frame)), arm, 1e-3, 1.7e-3) == ""
    frame[2, 3] += 0.0015
    assert "1.5 mm" in reading.tool_problem(FrankaState(F_T_EE=columns(frame)), arm, 1e-3, 1.7e-3)


def test_the_rate_counts_what_was_lost_and_starts_anew_with_the_driver():
    meter = reading.RateMeter(20)
    for number in range(40):
        meter.add(10.0 + 0.005 * number)
    assert meter.hz == pytest.approx(200.0)
    for number in range(20):
        meter.add(20.0 + 0.010 * number)
    assert meter.hz == pytest.approx(100.0)
    meter.add(0.001)
    assert np.isnan(meter.hz)


def test_stiffness_leash_and_collision_thresholds_must_fit(robot):
    soft = replace(robot.franka, translational_stiffness_n_m=200.0)
    with pytest.raises(ConfigurationError, match="same spring"):
        replace(robot, franka=soft)
    with pytest.raises(ConfigurationError, match="up to the reflex"):
        replace(robot, franka=replace(robot.franka, collision_force_n=(20.0,) * 6))
    with pytest.raises(ConfigurationError, match="stopped at 0.25 m/s is pushed with 66 N"):
        replace(robot, franka=replace(robot.franka, collision_force_n=(65.0,) * 6))
    replace(robot, franka=replace(robot.franka, collision_force_n=(66.0,) * 6))
    with pytest.raises(ConfigurationError, match="stiffness"):
        replace(robot.franka, translational_stiffness_n_m=2000.0)


def test_limits_are_those_of_system_images_below_5_9(robot):
    # franka_description robots/fr3/joint_limits.yaml ("rectangular") and libfranka 0.13 rate_limiting.h.
    limits = robot.arms[0].joint_limits
    assert limits.upper_rad == (2.3093, 1.5133, 2.4937, -0.4461, 2.4800, 4.2094, 2.6895)
    assert limits.lower_rad == (-2.3093, -1.5133, -2.4937, -2.7478, -2.4800, 0.8521, -2.6895)
    assert all(speed <= most for speed, most in zip(limits.velocity_rad_s, (2.0, 1.0, 1.5, 1.25, 3.0, 1.5, 3.0)))
    assert limits.position_dependent.upper_rad == (2.75010, 1.79180, 2.90650, -0.1458, 2.81010, 4.52050, 3.01960)
    assert robot.arms[0].cartesian_limits.speed_m_s <= 0.25


# Start-up ----------------------------------------------------------------------------------------------------------


def test_start_up_names_the_step_that_fails_and_the_one_that_hangs(monkeypatch):
    trouble, gate, order = ["the wrong tool"], threading.Event(), []

    class Steps(start_up.StartUp):
        def steps(self):
            return [("good", lambda: order.append("good") or ""), ("bad", lambda: order.append("bad") or trouble[0]),
                    ("slow", lambda: gate.wait(30.0) and "")]

    monkeypatch.setattr(start_up, "RETRY_S", 0.02)
    monkeypatch.setattr(start_up, "HUNG_S", 0.2)
    steps = Steps(SimpleNamespace(hands_off=threading.Lock()), foreign=lambda: "", dry_run=False)
    steps.begin()
    until(lambda: steps.says == "start-up, step 2 of 3, bad: the wrong tool")
    trouble[0] = ""
    until(lambda: "step 3 of 3, slow: no answer for" in steps.says)
    assert not steps.done and order[:2] == ["good", "bad"]
    gate.set()
    until(lambda: steps.done)
    assert steps.says == ""
    steps.restart("the driver came back")
    until(lambda: steps.done)


# Gripper -----------------------------------------------------------------------------------------------------------


class Hand:
    """A gripper that finishes when the test says so."""

    def __init__(self):
        self.sent, self.over, self.stops, self.trouble = [], False, 0, ""
        self.prompt = False        # whether its goals end at once

    def send(self, opening):
        self.over = self.prompt    # first, because whoever sees the command may already report its end
        self.sent.append(opening)
        return ""

    def finished(self):
        return self.over

    def problem(self):
        return self.trouble

    def stop(self, seconds):
        self.stops += 1


@pytest.fixture
def worker(request):
    """Return a worker and its hand. param: the deadline of a goal, s; short only where a test waits for its end."""
    hand = Hand()
    worker = GripperWorker(hand, getattr(request, "param", 30.0), slip_m=0.008)
    yield worker, hand
    worker.close()


def until(condition):
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_goal_at_a_time_and_only_the_latest_wish_follows(worker):
    worker, hand = worker
    worker.command(0.0)
    assert worker.state == GripperState.MOVING
    until(lambda: hand.sent == [0.0])
    worker.command(1.0)
    worker.command(0.5)
    hand.over = True
    until(lambda: hand.sent == [0.0, 0.5])
    hand.over = True
    until(lambda: worker.state == GripperState.DONE)


@pytest.mark.parametrize("worker", [0.3], indirect=True)
def test_a_goal_that_never_returns_fails_in_time_and_blocks_the_next_until_it_does(worker):
    worker, hand = worker
    worker.command(0.0)
    until(lambda: worker.state == GripperState.FAILED)
    assert "did not finish" in worker.message and hand.stops == 1
    worker.command(1.0)
    time.sleep(0.5)
    assert hand.sent == [0.0] and worker.state == GripperState.FAILED and "did not finish" in worker.message
    hand.prompt = hand.over = True
    until(lambda: hand.sent == [0.0, 1.0])
    until(lambda: worker.state == GripperState.DONE)


@pytest.mark.parametrize("worker", [0.3], indirect=True)
def test_a_command_while_a_goal_runs_out_of_time_does_not_hide_that_it_has(worker):
    worker, hand = worker
    worker.command(0.0)
    until(lambda: hand.sent == [0.0])
    worker.command(0.0)
    until(lambda: worker.state == GripperState.FAILED)
    assert "did not finish" in worker.message


def test_a_refusal_of_the_gripper_is_passed_on(worker):
    worker, hand = worker
    hand.trouble = "grasp failed: not homed"
    worker.command(0.0)
    until(lambda: hand.sent)
    hand.over = True
    until(lambda: worker.state == GripperState.FAILED)
    assert worker.message == "grasp failed: not homed"


def test_an_object_that_slips_is_noticed_and_an_opening_is_none():
    now, hand = [0.0], Hand()
    worker = GripperWorker(hand, 3.0, 0.008, clock=lambda: now[0])
    worker.command(0.0)
    until(lambda: hand.sent)
    hand.over = True
    until(lambda: worker.state == GripperState.DONE)
    now[0] = 1.0
    worker.measured(0.045)
    worker.measured(0.040)
    assert worker.state == GripperState.DONE
    worker.measured(0.010)
    assert worker.state == GripperState.FAILED and "slipped" in worker.message and worker.slips == 1
    worker.close()


# The way to the start ----------------------------------------------------------------------------------------------


def test_the_way_to_the_start_is_slow_and_ends_there(robot):
    path = StartPath(robot)
    joints = np.array(robot.arms[0].start_joints_rad) + [0.3, 0.2, -0.1, 0.2, 0.1, -0.1, 0.4]
    times, points = path.plan(joints, 0.3)
    np.testing.assert_allclose(points[-1], robot.arms[0].start_joints_rad)
    ways = np.abs(np.diff(np.vstack([joints, points]), axis=0)).max(axis=1)
    assert (1.5 * ways / np.diff(np.concatenate([[0.0], times])) <= 0.3 + 1e-9).all()


def test_a_way_through_the_table_is_refused_by_name(robot):
    arm = replace(robot.arms[0], collision=replace(robot.arms[0].collision, table_z_m=0.52))
    path = StartPath(replace(robot, arms=(arm,)))
    raised = np.array(arm.start_joints_rad) + [0.0, -0.2, 0.0, 0.5, 0.0, 0.3, 0.0]
    with pytest.raises(HybridVLAError, match="table"):
        path.plan(raised, 0.3)
