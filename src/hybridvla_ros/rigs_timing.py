"""From a camera's stamp to the target that came of it, less the model's own time, as an observer of the graph sees it."""
from __future__ import annotations

from typing import Any, Dict, List, Tuple

import rospy
from sensor_msgs.msg import Image

from hybridvla.msg import ActionProposal, SafetyStatus
from hybridvla_core.evaluation.statistics import percentiles


class StampToTarget:
    """For each proposal that was executed: stamp of the filter's first status with its sequence (sent in the tick whose
    target was sent just before) minus the stamp of its observation minus the model's stages. One clock: one computer."""

    def __init__(self, image_topic: str = "") -> None:
        """image_topic: whose frames' way from stamp to an observer is reported beside it (`camera_ms`)."""
        self.camera_ms: List[float] = []
        if image_topic:
            rospy.Subscriber(image_topic, Image, self._on_image, queue_size=1, buff_size=2 ** 24, tcp_nodelay=True)
        self.whole_ms: List[float] = []
        self.beyond_ms: List[float] = []
        self.model_ms: List[float] = []
        self._waiting: Dict[Tuple[int, int], Tuple[float, float]] = {}
        self._done: Tuple[int, int] = (0, 0)
        self._early: Dict[Tuple[int, int], float] = {}
        rospy.Subscriber("/hybridvla/policy/proposal", ActionProposal, self._on_proposal, queue_size=50)
        rospy.Subscriber("/hybridvla/safety/status", SafetyStatus, self._on_status, queue_size=200)

    def _on_image(self, message: Any) -> None:
        self.camera_ms.append((rospy.Time.now() - message.header.stamp).to_sec() * 1e3)

    def _on_proposal(self, message: Any) -> None:
        key, entry = (message.epoch, message.sequence), (message.header.stamp.to_sec(), float(sum(message.stage_ms)))
        if key in self._early:
            self._add(entry, self._early.pop(key))
        else:
            self._waiting[key] = entry

    def _on_status(self, message: Any) -> None:
        key = (message.epoch, message.sequence)
        if not message.epoch or key == self._done:
            return
        self._done, at = key, message.header.stamp.to_sec()
        if key in self._waiting:
            self._add(self._waiting.pop(key), at)
        else:
            self._early[key] = at

    def _add(self, entry: Tuple[float, float], at: float) -> None:
        whole = (at - entry[0]) * 1e3
        self.whole_ms.append(whole)
        self.model_ms.append(entry[1])
        self.beyond_ms.append(whole - entry[1])

    def result(self) -> Dict[str, Any]:
        """`stamp_to_target_ms` (beyond the model), with the model's own time and the whole beside it."""
        return {"stamp_to_target_ms": percentiles(self.beyond_ms), "model_ms": percentiles(self.model_ms),
                "camera_ms": percentiles(self.camera_ms), "whole_ms": percentiles(self.whole_ms), "executed": len(self.beyond_ms)}
