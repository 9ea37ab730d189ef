"""A released command in the form that an AgileX driver reads. Nothing here decides whether an arm moves."""
from __future__ import annotations

import math
from typing import Callable, Optional, Protocol

import numpy as np
import rospy
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import JointState

from hybridvla_core.contracts import Pose
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.gripper import KEPT
from hybridvla_core.safety.status import ArmCommand
from hybridvla_ros.adapters.agilex.probe import SCALES


class PosCmd(Protocol):
    """The fields of a `piper_msgs/PosCmd`: the flange's pose and the gripper, in the driver's units."""

    x: float
    y: float
    z: float
    roll: float
    pitch: float
    yaw: float
    gripper: float


class ArmStream:
    """One arm's commands: joints and gripper in one message, the gripper held at its last command in between.

    Attributes:
        joint_hz: How often joints really go out: the tick rate divided by a whole number, at most `command_hz`.
        joints: (dof,) joint positions sent last, rad.
    """

    def __init__(self, arm: ArmConfig, config: RobotConfig) -> None:
        self._arm, self._config = arm, config.agilex
        # Never faster than asked; a quotient that exceeds a whole number by a rounding error counts as that number.
        self._every = max(1, math.ceil(config.tick_hz / config.agilex.command_hz - 1e-9))
        self.joint_hz = config.tick_hz / self._every
        self._closed, self._open = arm.gripper.readings or (0.0, arm.gripper.max_width_m)
        self._count = 0
        self._measured = self._command = self._ended_at = math.nan
        self._pos_sent_at = -math.inf
        self.joints = np.full(arm.dof, np.nan)

    def measured(self, opening: float) -> None:
        """Takes the gripper's measured opening, 0 closed to 1 open."""
        self._measured = opening

    def begin(self) -> None:
        """Begins a stream. A gripper that nobody moved since the last stream keeps its command, so that it keeps what it holds;
        any other starts from where it is."""
        self._count = 0
        if not abs(self._measured - self._ended_at) <= KEPT:
            self._command = self._measured

    def joint_message(self, command: ArmCommand, stamp: float) -> Optional[JointState]:
        """Makes the driver's message of a command, every `tick_hz / command_hz` ticks, rounded up.

        The driver reads position[0..6] whatever the names; velocity[6] is a speed in percent and effort[6] the gripper's torque
        for drivers that read them.

        Args:
            command: Joint positions, rad, and gripper.
            stamp: ROS time, s.

        Returns:
            Seven positions in the driver's order, six in rad and then the gripper's reading; None on the ticks between.
        """
        self._take(command)
        self._count += 1
        if (self._count - 1) % self._every:
            return None
        self.joints = command.joint_positions
        message = JointState(name=[*self._arm.joint_names, self._arm.topics["finger_joints"]])
        message.header.stamp = rospy.Time.from_sec(stamp)
        message.position = [*(float(q) for q in command.joint_positions), self.reading]
        message.velocity = [0.0] * 6 + [float(self._config.speed_percent)]
        message.effort = [0.0] * 6 + [self._config.gripper_effort_nm]
        return message

    def pos_cmd(self, command: ArmCommand, units: str, now: float, kind: Callable[..., PosCmd]) -> Optional[PosCmd]:
        """Returns the flange's pose in the units found for the driver, at `pos_cmd_hz`; None in between."""
        self._take(command)
        if now - self._pos_sent_at < 1.0 / self._config.pos_cmd_hz:
            return None
        self._pos_sent_at = now
        self.joints = command.joint_positions
        metre, radian = SCALES[units]
        turn = Rotation.from_quat(command.pose.quaternion) * Rotation.from_quat(self._arm.tool.quaternion_xyzw).inv()
        flange = np.asarray(command.pose.position) - turn.apply(self._arm.tool.position_m)
        x, y, z = (float(value) / metre for value in flange)
        roll, pitch, yaw = (float(value) / radian for value in turn.as_euler("xyz"))
        return kind(x=x, y=y, z=z, roll=roll, pitch=pitch, yaw=yaw, gripper=self.reading)

    @property
    def reading(self) -> float:
        """Returns the gripper's command in the driver's units. Clamped here: the driver compares metres with micrometres."""
        opening = self._command if not math.isnan(self._command) else self._measured
        opening = 0.0 if math.isnan(opening) else min(max(opening, 0.0), 1.0)
        return self._closed + opening * (self._open - self._closed)

    def _take(self, command: ArmCommand) -> None:
        if command.gripper is not None:
            self._command = command.gripper
        self._ended_at = self._measured


def tool_pose(message: PosCmd, arm: ArmConfig, units: str) -> Pose:
    """Returns the tool centre point that a PosCmd asks for, in the arm's base frame."""
    metre, radian = SCALES[units]
    turn = Rotation.from_euler("xyz", radian * np.array([message.roll, message.pitch, message.yaw]))
    position = metre * np.array([message.x, message.y, message.z]) + turn.apply(arm.tool.position_m)
    return Pose(position, (turn * Rotation.from_quat(arm.tool.quaternion_xyzw)).as_quat())
