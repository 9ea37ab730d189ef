"""Turns joint states of all arms into measured poses, for the policy node and the replay of bags."""
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Dict, Sequence, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState, Pose
from hybridvla_core.geometry import rotations
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.robots.topics import joint_topics
from hybridvla_ros.messages.arm_reader import ArmReader, fingers_of
from hybridvla_ros.messages.sources import source_of

if TYPE_CHECKING:
    from sensor_msgs.msg import JointState


class ArmFeed:
    """`on_state(state, stamp)` receives every usable state, with the pose from our own kinematics; stamp: the driver's, s."""

    def __init__(self, robot: RobotConfig, on_state: Callable[[ArmState, float], None]) -> None:
        self._on_state = on_state
        self._readers = {arm.name: ArmReader(arm.name, arm.joint_names, fingers_of(arm)) for arm in robot.arms}
        self._kinematics = {arm.name: ArmKinematics(arm) for arm in robot.arms}
        #: Topic -> the arms that it covers; two arms may use the same joint names.
        self.topics: Dict[str, Tuple[str, ...]] = joint_topics(robot.arms)

    def problem(self, now: float) -> str:
        """Says why the joint states cannot be relied on, or an empty string. now: s, on the clock of `on_joints`."""
        problems = ((name, self.doubt(name, now)) for name in self._readers)
        return next((f"arm {name}: {problem}" for name, problem in problems if problem), "")

    def doubt(self, arm: str, now: float) -> str:
        """Says of one arm what `problem` says of all, without the arm's name."""
        return self._readers[arm].doubt(now)

    def foreign(self, arm: str) -> bool:
        """Tells whether the last message about an arm came from a second publisher."""
        return self._readers[arm].foreign

    def on_joints(self, message: JointState, arms: Sequence[str], now: float) -> None:
        """Takes a `sensor_msgs/JointState` about the named arms; now: s, on any clock that runs evenly."""
        stamp = message.header.stamp.to_sec()
        for name in arms:
            reader = self._readers[name]
            state = reader.joints(message.name, message.position, message.velocity, now, source_of(message))
            if state is None or tuple(state.joint_names) != reader.joint_names:
                continue
            if not np.isfinite(state.joint_positions).all():
                continue  # the filter names it and holds; here it is only not used as a base
            position, matrix = self._kinematics[name].pose(state.joint_positions)
            self._on_state(replace(state, pose=Pose(position, rotations.to_quaternion(matrix))), stamp)
