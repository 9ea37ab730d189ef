"""Time from a camera's stamp to the resulting target, less the model's own time, as an observer of the graph sees it."""
from __future__ import annotations

import threading
from typing import Any, Dict, List, NamedTuple, Tuple

import rospy

from hybridvla.msg import ActionProposal, SafetyStatus
from hybridvla_core.report.statistics import percentiles
from hybridvla_core.robots.graph_names import PROPOSAL, STATUS
from hybridvla_ros.messages import conversions


class _Proposal(NamedTuple):
    stamp: float            # of its observation, s
    model_ms: float         # its stages
    age_ms: float           # of its observation when it was made


class StampToTarget:
    """For each executed proposal: stamp of the filter's first status with its sequence (sent in the tick whose
    target was sent just before) minus the stamp of its observation minus the model's stages. One clock: one computer.

    Listens while used as a context manager.
    """

    def __init__(self) -> None:
        self._executed: List[Tuple[_Proposal, float]] = []
        self._waiting: Dict[Tuple[int, int], _Proposal] = {}
        self._early: Dict[Tuple[int, int], float] = {}
        self._done: Tuple[int, int] = (0, 0)
        self._lock = threading.Lock()       # proposals and statuses come in separate threads
        self._subscribers: List[rospy.Subscriber] = []

    def __enter__(self) -> StampToTarget:
        self._subscribers = [
            rospy.Subscriber(PROPOSAL, ActionProposal, self.on_proposal, queue_size=50),
            rospy.Subscriber(STATUS, SafetyStatus, self.on_status, queue_size=200)]
        return self

    def __exit__(self, *_exception: object) -> None:
        for subscriber in self._subscribers:
            subscriber.unregister()

    def on_proposal(self, message: ActionProposal) -> None:
        key = (message.epoch, message.sequence)
        made = _Proposal(message.header.stamp.to_sec(), float(sum(message.stage_ms)), message.observation_age.to_sec() * 1e3)
        with self._lock:
            if key in self._early:
                self._executed.append((made, self._early.pop(key)))
            else:
                self._waiting[key] = made

    def on_status(self, message: SafetyStatus) -> None:
        status = conversions.status_contract(message)
        key = (status.epoch, status.sequence)
        with self._lock:
            if not status.epoch or key == self._done:
                return
            self._done, at = key, status.stamp
            if key in self._waiting:
                self._executed.append((self._waiting.pop(key), at))
            else:
                self._early[key] = at

    def result(self) -> Dict[str, Any]:
        """Sums up the times so far, in ms.

        Returns:
            `stamp_to_target_ms` and, as part of it, `stamp_to_proposal_ms`, both beyond the model; also the model's own time and
            the total; and how many proposals were executed.
        """
        with self._lock:
            executed = list(self._executed)
        whole = [(at - made.stamp) * 1e3 for made, at in executed]
        return {"stamp_to_target_ms": percentiles([ms - made.model_ms for ms, (made, _) in zip(whole, executed)]),
                "stamp_to_proposal_ms": percentiles([made.age_ms - made.model_ms for made, _ in executed]),
                "model_ms": percentiles([made.model_ms for made, _ in executed]), "whole_ms": percentiles(whole),
                "executed": len(executed)}
