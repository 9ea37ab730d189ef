"""Robots driven by a pose topic: the Cartesian impedance controller of an FR3, or the simulated rig in its place."""
from __future__ import annotations

import time
from dataclasses import replace
from typing import Dict, List, Sequence

import rospy
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.status import ArmCommand
from hybridvla_ros.adapters.adapter import OnState, RobotAdapter, pose_echo
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.arm_reader import ArmReader, fingers_of
from hybridvla_ros.messages.sources import source_of


class PoseTopicAdapter(RobotAdapter):
    """Reads JointState; sends PoseStamped and gripper openings. Publishes nothing that the filter did not release."""

    def __init__(self, config: RobotConfig, on_state: OnState) -> None:
        super().__init__(config, on_state)
        self._readers = {arm.name: ArmReader(arm.name, arm.joint_names, fingers_of(arm)) for arm in config.arms}
        self._frames = {arm.name: arm.base_frame for arm in config.arms}
        self._poses: Dict[str, rospy.Publisher] = {}
        self._echoes: Dict[str, rospy.Publisher] = {}
        self._grippers: Dict[str, rospy.Publisher] = {}
        for arm in config.arms:
            self._poses[arm.name] = rospy.Publisher(arm.topics["command"], PoseStamped, queue_size=1, tcp_nodelay=True)
            self._echoes[arm.name] = pose_echo(arm.name)
            if arm.topics.get("gripper_command"):
                self._grippers[arm.name] = rospy.Publisher(arm.topics["gripper_command"], Float64, queue_size=4)
        for topic in sorted({arm.topics["joint_states"] for arm in config.arms}):
            rospy.Subscriber(topic, JointState, self._on_joints, queue_size=10, tcp_nodelay=True)

    @property
    def command_topics(self) -> List[str]:
        """Returns the pose topic of each arm."""
        return [arm.topics["command"] for arm in self.config.arms]

    def _on_joints(self, message: JointState) -> None:
        now = time.monotonic()
        for reader in self._readers.values():
            state = reader.joints(message.name, message.position, message.velocity, now, source_of(message))
            if state is not None:
                problem = reader.doubt(now)
                self.on_state(replace(state, ready=not problem, message=problem, stamp=message.header.stamp.to_sec()))

    def send(self, commands: Sequence[ArmCommand], stamp: float) -> None:
        """Publishes what the filter released this tick. stamp: when the tick began, s; not when the message was sent."""
        for command in commands:
            if command.publish:
                message = conversions.pose_message(command.pose, self._frames[command.name], stamp)
                self._poses[command.name].publish(message)
                self._echoes[command.name].publish(message)
            if command.gripper is not None and command.name in self._grippers:
                self._grippers[command.name].publish(Float64(command.gripper))
