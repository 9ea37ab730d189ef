"""The vendor's Piper driver (start_ms_piper.launch) for one arm, as seen from ROS.

It publishes state at 200 Hz, reads `position[0..6]` of a joint command whatever the names, rounds to 0.001 degrees, checks
nothing, drops commands silently unless enabled, closes the gripper when it enables, and switches the motors off, so that
the arm falls, when `/enable_flag` is false. Facts: docs/rig_agilex.md. Not simulated: its log line for every command, and the
services that go to zero.
"""
from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import ContextManager, List, Optional, Tuple

import numpy as np
import rospy
from geometry_msgs.msg import Pose, PoseStamped
from piper_msgs.msg import PiperStatusMsg, PosCmd
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_ros.runtime.node_support import node_ending
from hybridvla_sim.piper.arm import MOVE_J, MOVE_P
from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.piper.scene import MAX_WIDTH

READ, WRITE = 0.017444, 57324.840764        # rad per degree, 0.001 degrees per radian: the driver's own constants
MOTOR_CLOSED, MOTOR_OPEN = -0.339, 3.5578   # gripper readings of the ARX layer under the same topics
UNITS, GRIPPERS = ("new", "old"), ("m", "motor")
#: Joints and end pose (None where nobody listens) in the SDK's units, speeds, gripper, status.
ArmReading = Tuple[np.ndarray, np.ndarray, int, Optional[np.ndarray], PiperStatusMsg]


@dataclass(frozen=True)
class DriverConfig:
    """How the driver was started.

    Attributes:
        control: Mode 1, which takes commands; otherwise mode 0, in which the driver itself publishes on the command topic.
        auto_enable: Whether the motors are on at the start.
        units: `new` (m, rad) or `old` (a 2024 driver: mm and degrees in PosCmd, a Pose with a wrong quaternion).
        gripper: Unit of its gripper readings: `m` or `motor`.
    """

    control: bool = True
    auto_enable: bool = True
    units: str = "new"
    gripper: str = "m"


class PiperDriver:
    """All topics of one driver process. `die` takes them away, `freeze` cuts its bus, `start` brings both back."""

    def __init__(self, rig: PiperRig, lock: ContextManager[bool], arm: ArmConfig, enable_topic: str,
                 config: DriverConfig) -> None:
        self._rig, self._arm, self._lock, self._config = rig, rig.arms[arm.name], lock, config
        self._name, self._topics, self._enable_topic = arm.name, arm.topics, enable_topic
        self._subscriptions: List[rospy.Subscriber] = []
        self._mouths: List[rospy.Publisher] = []
        self._enabled = False
        self._frozen: Optional[ArmReading] = None      # what it heard last, while its bus is gone
        self._turn = threading.Lock()      # its topics stay while a turn of its loop publishes on them
        self.alive = False
        self.start()

    # Life ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._frozen = None
        if self.alive:
            return
        topics, options = self._topics, {"queue_size": 1, "tcp_nodelay": True}
        self._joints = rospy.Publisher(topics["joint_states"], JointState, **options)
        self._poses = rospy.Publisher(topics["pose"], PoseStamped if self._config.units == "new" else Pose, **options)
        self._states = rospy.Publisher(topics["robot_state"], PiperStatusMsg, **options)
        self._mouths = [self._joints, self._poses, self._states]
        if self._config.units == "new":
            self._eulers = rospy.Publisher(topics["pose_euler"], PosCmd, **options)
            self._mouths.append(self._eulers)
        if self._config.control:
            self._subscriptions = [rospy.Subscriber(topics["command"], JointState, self._on_joints, **options),
                          rospy.Subscriber(topics["pose_command"], PosCmd, self._on_pose, **options),
                          rospy.Subscriber(self._enable_topic, Bool, self._on_enable, **options)]
        else:
            self._leader = rospy.Publisher(topics["command"], JointState, **options)
            self._mouths.append(self._leader)
        self.alive = True
        if self._config.control and self._config.auto_enable:
            self._on_enable(Bool(True))

    def die(self) -> None:
        """Ends the process; the arm holds its last target, as the firmware does."""
        with self._turn:
            self.alive = False
        for end in self._mouths + self._subscriptions:
            end.unregister()
        self._mouths, self._subscriptions = [], []

    def freeze(self) -> None:
        """Cuts the CAN bus: commands reach nobody, and the last state heard is published for ever."""
        self._frozen = self._read()

    # Commands --------------------------------------------------------------------------------------------------------

    def _on_enable(self, message: Bool) -> None:
        with self._lock:
            if self._frozen is not None:
                return
            self._arm.enable(message.data)
            self._enabled = message.data
            if message.data:
                self._arm.gripper_ctrl(0)

    def _on_joints(self, message: JointState) -> None:
        stamp, joints = message.header.stamp.to_sec(), np.array(message.position[:6])
        counts = [round(message.position[joint] * WRITE) for joint in range(6)]
        width = self._micrometres(message.position[6])
        with self._lock:
            self._rig.judge(self._name, stamp, joints)
            if self._enabled and self._frozen is None:
                self._arm.motion_ctrl(MOVE_J, 100.0)
                self._arm.joint_ctrl(counts)
                self._arm.gripper_ctrl(min(max(width, 0), 80000))

    def _on_pose(self, message: PosCmd) -> None:
        if self._config.units == "new":
            counts = [round(value * 1000) * 1000 for value in (message.x, message.y, message.z)]      # whole millimetres
            angles = [round(math.degrees(value) * 1000) for value in (message.roll, message.pitch, message.yaw)]
        else:
            counts = [round(value * 1000) for value in (message.x, message.y, message.z)]
            angles = [round(value * 1000) for value in (message.roll, message.pitch, message.yaw)]
        with self._lock:
            if self._enabled and self._frozen is None:
                self._arm.motion_ctrl(MOVE_P, 50.0)
                self._arm.end_pose_ctrl(counts, angles)
                self._arm.gripper_ctrl(max(self._micrometres(message.gripper), 0))

    def _micrometres(self, value: float) -> int:
        if self._config.gripper == "motor":
            value = (value - MOTOR_CLOSED) / (MOTOR_OPEN - MOTOR_CLOSED) * MAX_WIDTH
        return round(value * 1000 * 1000)

    # State -----------------------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Runs one turn of the driver's 200 Hz loop."""
        with self._turn:
            if not self.alive:
                return
            try:
                self._publish()
            except rospy.ROSException:
                if not node_ending():
                    raise

    def _publish(self) -> None:
        joints, speeds, gripper, pose, state = self._frozen or self._read()
        width = gripper / 1000000
        if self._config.gripper == "motor":
            width = MOTOR_CLOSED + width / MAX_WIDTH * (MOTOR_OPEN - MOTOR_CLOSED)
        message = JointState(name=[f"joint{joint}" for joint in range(7)])
        message.header.stamp = rospy.Time.now()
        message.position = [*(joints / 1000 * READ).tolist(), width]
        message.velocity = [*speeds.tolist(), 0.0]
        message.effort = [0.0] * 7
        self._joints.publish(message)
        self._states.publish(state)
        if not self._config.control:
            self._leader.publish(message)
        if pose is not None:
            self._publish_pose(pose, width, message.header.stamp)

    def _read(self) -> ArmReading:
        with self._lock:
            pose = self._arm.end_pose if self._poses.get_num_connections() or self._heard("_eulers") else None
            state = PiperStatusMsg(ctrl_mode=self._arm.ctrl_mode, arm_status=self._arm.fault or self._arm.status,
                                   mode_feedback=self._arm.move)
            return self._arm.joints, self._arm.speeds, self._arm.gripper, pose, state

    def _heard(self, name: str) -> bool:
        return hasattr(self, name) and getattr(self, name).get_num_connections() > 0

    def _publish_pose(self, pose: np.ndarray, width: float, stamp: rospy.Time) -> None:
        metres, degrees = pose[:3] / 1000000, pose[3:] / 1000
        message = Pose()
        message.position.x, message.position.y, message.position.z = metres.tolist()
        radians = np.radians(degrees) if self._config.units == "new" else degrees     # the old driver's mistake
        turn = message.orientation
        turn.x, turn.y, turn.z, turn.w = Rotation.from_euler("xyz", radians).as_quat()
        if self._config.units == "old":
            self._poses.publish(message)
            return
        stamped = PoseStamped(pose=message)
        stamped.header.stamp = stamp
        self._poses.publish(stamped)
        self._eulers.publish(PosCmd(*metres.tolist(), *radians.tolist(), width, 0, 0))
