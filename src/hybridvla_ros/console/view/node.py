"""`markers_node`: publishes the scene for RViz and Foxglove, ten times a second; reads only."""
from __future__ import annotations

import threading
import time
from typing import Sequence

import numpy as np
import rospy
from sensor_msgs.msg import JointState
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from hybridvla.msg import ActionProposal, SafetyStatus
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.graph_names import PROPOSAL, STATUS
from hybridvla_core.robots.topics import joint_topics
from hybridvla_ros.console.operator.state import ConsoleState
from hybridvla_ros.console.view.scene import Scene
from hybridvla_ros.messages.arm_reader import ArmReader, fingers_of
from hybridvla_ros.messages.sources import source_of
from hybridvla_ros.runtime.node_support import package_path, publish_unless_ending, require_parameter

PERIOD_S = 0.1
MARKERS = "/hybridvla/view/markers"


class MarkersNode:
    """~robot_config: the robot whose arms are shown. ~tf: false where another node publishes transforms of the same frames."""

    def __init__(self) -> None:
        robot = load_robot(package_path(require_parameter("robot_config")))
        self._scene, self._lock = Scene(robot), threading.Lock()
        self._readers = {arm.name: ArmReader(arm.name, arm.joint_names, fingers_of(arm)) for arm in robot.arms}
        self._markers = rospy.Publisher(MARKERS, MarkerArray, queue_size=1)
        self._transforms = rospy.Publisher("/tf", TFMessage, queue_size=10) if rospy.get_param("~tf", True) else None
        self._interventions = ConsoleState(intervened=self._on_intervention)
        for topic, names in joint_topics(robot.arms).items():
            rospy.Subscriber(topic, JointState, self._on_joints, callback_args=names, queue_size=1)
        rospy.Subscriber(STATUS, SafetyStatus, self._on_status, queue_size=2)
        rospy.Subscriber(PROPOSAL, ActionProposal, self._on_proposal, queue_size=2)

    def _on_joints(self, message: JointState, arms: Sequence[str]) -> None:
        for name in arms:
            reader = self._readers[name]
            state = reader.joints(message.name, message.position, (), time.monotonic(), source_of(message))
            if state is None or state.joint_names != reader.joint_names:
                continue
            if np.isfinite(state.joint_positions).all():        # RViz drops a whole layer for one NaN
                with self._lock:
                    self._scene.on_joints(name, state.joint_positions)

    def _on_status(self, message: SafetyStatus) -> None:
        with self._lock:
            self._scene.on_status(message)
        self._interventions.on_status(message)

    def _on_proposal(self, message: ActionProposal) -> None:
        with self._lock:
            self._scene.on_proposal(message)

    def _on_intervention(self, text: str) -> None:
        with self._lock:
            self._scene.on_intervention(text)

    def spin(self) -> None:
        """Publishes until the node ends."""
        while not rospy.is_shutdown():
            stamp = rospy.Time.now()
            with self._lock:
                markers, transforms = self._scene.markers(stamp), self._scene.transforms(stamp)
            if not publish_unless_ending(self._markers, MarkerArray(markers=markers)):
                return
            if self._transforms is not None:
                publish_unless_ending(self._transforms, TFMessage(transforms=transforms))
            time.sleep(PERIOD_S)


def main() -> None:
    MarkersNode().spin()
