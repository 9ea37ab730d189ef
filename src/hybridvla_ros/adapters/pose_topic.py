"""Robots driven by a pose topic: the Cartesian impedance controller of an FR3, or the simulated rig in its place."""
from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Callable, Dict, List, Sequence

import rospy
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from hybridvla_core.contracts import ArmState
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.status import ArmCommand
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.arm_reader import ArmReader
from hybridvla_ros.policy_arms import fingers_of


class PoseTopicAdapter:
    """JointState in; PoseStamped and gripper openings out. Nothing is published that the filter did not release."""

    def __init__(self, config: RobotConfig, on_state: Callable[[ArmState], None]) -> None:
        self._on_state = on_state
        self._readers = {arm.name: ArmReader(arm.name, arm.joint_names, fingers_of(arm)) for arm in config.arms}
        self._frames = {arm.name: arm.base_frame for arm in config.arms}
        self._poses: Dict[str, Any] = {}
        self._echoes: Dict[str, Any] = {}
        self._grippers: Dict[str, Any] = {}
        for arm in config.arms:
            self._poses[arm.name] = rospy.Publisher(arm.topics["command"], PoseStamped, queue_size=1, tcp_nodelay=True)
            self._echoes[arm.name] = rospy.Publisher(f"/hybridvla/safety/{arm.name}/target", PoseStamped, queue_size=1)
            if arm.topics.get("gripper_command"):
                self._grippers[arm.name] = rospy.Publisher(arm.topics["gripper_command"], Float64, queue_size=4)
        self._command_topics = [arm.topics["command"] for arm in config.arms]
        for topic in sorted({arm.topics["joint_states"] for arm in config.arms}):
            rospy.Subscriber(topic, JointState, self._on_joints, queue_size=10, tcp_nodelay=True)

    def _on_joints(self, message: JointState) -> None:
        for reader in self._readers.values():
            state = reader.joints(message.name, message.position, message.velocity, time.monotonic())
            if state is not None:
                self._on_state(replace(state, stamp=message.header.stamp.to_sec()))

    def send(self, commands: Sequence[ArmCommand], stamp: float) -> None:
        """Publish what the filter released this tick. stamp: when the tick began, s; not when the message got out."""
        for command in commands:
            if command.publish:
                message = conversions.pose_message(command.pose, self._frames[command.name], stamp)
                self._poses[command.name].publish(message)
                self._echoes[command.name].publish(message)
            if command.gripper is not None and command.name in self._grippers:
                self._grippers[command.name].publish(Float64(command.gripper))

    def other_publishers(self, system_state: List[Any]) -> str:
        """Who else publishes on our command topics, from the master's list; an empty string when nobody does."""
        mine = rospy.get_name()
        for topic, nodes in system_state[0]:
            others = [node for node in nodes if node != mine]
            if topic in self._command_topics and others:
                return f"{topic} is also published by {', '.join(others)}; stop it"
        return ""
