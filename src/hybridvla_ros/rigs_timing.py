"""From a camera's stamp to the target that came of it, less the model's own time, as an observer of the graph sees it."""
from __future__ import annotations

from typing import Any, Dict, List, Tuple

import rospy

from hybridvla.msg import ActionProposal, SafetyStatus
from hybridvla_core.evaluation.statistics import percentiles


class StampToTarget:
    """For each proposal that was executed: stamp of the filter's first status with its sequence (sent in the tick whose
    target was sent just before) minus the stamp of its observation minus the model's stages. One clock: one computer."""

    def __init__(self) -> None:
        self.proposal_ms: List[float] = []
        self.whole_ms: List[float] = []
        self.beyond_ms: List[float] = []
        self.model_ms: List[float] = []
        self._waiting: Dict[Tuple[int, int], Tuple[float, float]] = {}
        self._done: Tuple[int, int] = (0, 0)
        self._early: Dict[Tuple[int, int], float] = {}
        self._subscribers = [
            rospy.Subscriber("/hybridvla/policy/proposal", ActionProposal, self._on_proposal, queue_size=50),
            rospy.Subscriber("/hybridvla/safety/status", SafetyStatus, self._on_status, queue_size=200)]

    def close(self) -> None:
        """Look no longer."""
        for subscriber in self._subscribers:
            subscriber.unregister()

    def _on_proposal(self, message: Any) -> None:
        self.proposal_ms.append(message.observation_age.to_sec() * 1e3 - float(sum(message.stage_ms)))
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
        """`stamp_to_target_ms` and, of that, `stamp_to_proposal_ms`, both beyond the model; with the model's own time and
        the whole beside them."""
        return {"stamp_to_target_ms": percentiles(self.beyond_ms), "stamp_to_proposal_ms": percentiles(self.proposal_ms),
                "model_ms": percentiles(self.model_ms), "whole_ms": percentiles(self.whole_ms),
                "executed": len(self.beyond_ms)}
