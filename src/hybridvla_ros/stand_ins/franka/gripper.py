"""The franka_gripper node's actions: each blocks until the fingers have finished, and none can be interrupted."""
from __future__ import annotations

import time
from typing import Callable, List, Type, TypeVar

import actionlib
import genpy
import rospy
from franka_gripper.msg import (
    GraspAction,
    GraspGoal,
    GraspResult,
    HomingAction,
    HomingGoal,
    HomingResult,
    MoveAction,
    MoveGoal,
    MoveResult,
    StopAction,
    StopGoal,
    StopResult,
)
from sensor_msgs.msg import JointState

from hybridvla_ros.runtime.node_support import publish_unless_ending
from hybridvla_ros.stand_ins.franka.robot import FrankaRobot
from hybridvla_sim.fr3.rig import MAX_WIDTH

PUBLISH_HZ, READ_EVERY = 30.0, 3     # published at 30 Hz, read from the gripper at 10 Hz
STILL_S, STILL_M = 0.15, 0.0005

GoalT = TypeVar("GoalT", bound=genpy.Message)
Execute = Callable[[actionlib.SimpleActionServer, GoalT], None]


class Gripper:
    def __init__(self, robot: FrankaRobot, fingers: List[str]) -> None:
        self._robot, self._fingers = robot, fingers
        self.width = robot.width
        self._joints = rospy.Publisher("/franka_gripper/joint_states", JointState, queue_size=1)
        self._servers = [self._serve("move", MoveAction, self._move), self._serve("grasp", GraspAction, self._grasp),
                         self._serve("homing", HomingAction, self._homing), self._serve("stop", StopAction, self._stop)]

    def _serve(self, name: str, kind: Type[genpy.Message], execute: Execute[GoalT]) -> actionlib.SimpleActionServer:
        """Makes an action server whose callback also gets the server, to answer through it."""
        server: actionlib.SimpleActionServer = actionlib.SimpleActionServer(f"/franka_gripper/{name}", kind, auto_start=False,
                                              execute_cb=lambda goal: execute(server, goal))
        server.start()
        return server

    def read_loop(self) -> None:
        """Publishes the gripper's own state, read as slowly as the real node reads it."""
        turn = 0
        while not rospy.is_shutdown():
            if turn % READ_EVERY == 0:
                self.width = self._robot.width
            turn += 1
            message = JointState(name=self._fingers, position=[self.width / 2] * 2, velocity=[0.0] * 2, effort=[0.0] * 2)
            message.header.stamp = rospy.Time.now()
            publish_unless_ending(self._joints, message)
            time.sleep(1.0 / PUBLISH_HZ)

    def _wait_still(self) -> bool:
        """Waits until the fingers have come to rest, on the robot's own clock; never returns while the gripper is stuck."""
        last, since = self._robot.width, self._robot.time
        while not rospy.is_shutdown():
            time.sleep(0.02)
            width, now = self._robot.width, self._robot.time
            if abs(width - last) > STILL_M or self._robot.gripper_stuck:
                last, since = width, now
            elif now - since > STILL_S:
                return True
        return False

    def _move(self, server: actionlib.SimpleActionServer, goal: MoveGoal) -> None:
        if not 0.0 <= goal.width <= MAX_WIDTH + 1e-6 or goal.speed <= 0.0:
            server.set_aborted(MoveResult(False, "libfranka gripper: Command failed!"))
            return
        self._robot.drive_gripper(goal.width, goal.speed)
        if not self._wait_still():
            return
        good = abs(self._robot.width - goal.width) < 0.004
        (server.set_succeeded if good else server.set_aborted)(MoveResult(good, "" if good else "Command failed!"))

    def _grasp(self, server: actionlib.SimpleActionServer, goal: GraspGoal) -> None:
        if goal.speed <= 0.0 or goal.force <= 0.0:
            server.set_aborted(GraspResult(False, "libfranka gripper: Command failed!"))
            return
        self._robot.drive_gripper(0.0, goal.speed)
        if not self._wait_still():
            return
        good = goal.width - goal.epsilon.inner < self._robot.width < goal.width + goal.epsilon.outer
        (server.set_succeeded if good else server.set_aborted)(GraspResult(good, "" if good else "Command failed!"))

    def _homing(self, server: actionlib.SimpleActionServer, _goal: HomingGoal) -> None:
        for width in (0.0, MAX_WIDTH):
            self._robot.drive_gripper(width, 0.1)
            if not self._wait_still():
                return
        server.set_succeeded(HomingResult(True, ""))

    def _stop(self, server: actionlib.SimpleActionServer, _goal: StopGoal) -> None:
        """Answers at once; whether the running action ends is another matter, as users report."""
        server.set_succeeded(StopResult(True, ""))
