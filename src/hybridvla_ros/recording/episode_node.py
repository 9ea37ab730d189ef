"""Labels while a policy runs: `/hybridvla/episode/{start,success,failure,discard}` and a latched topic of the events."""
from __future__ import annotations

import threading
from pathlib import Path
from typing import Callable, Dict, Tuple

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import String
from std_srvs.srv import Trigger, TriggerRequest, TriggerResponse

from hybridvla.msg import EpisodeEvent as EpisodeMessage
from hybridvla_ros.messages.conversions import duration, stamp
from hybridvla_ros.recording.episodes import EVENTS, LABELS, EpisodeError, EpisodeEvent, EpisodeLog
from hybridvla_ros.runtime.node_support import Diagnostics, require_parameter

EVENT_TOPIC = "/hybridvla/episode/event"


def event_message(event: EpisodeEvent) -> EpisodeMessage:
    message = EpisodeMessage(number=event.number, id=event.id, event=EVENTS.index(event.event), note=event.note,
                             instructions=list(event.instructions), elapsed=duration(event.elapsed_s))
    message.header.stamp = stamp(event.stamp)
    return message


class EpisodeNode:
    """Parameter ~file: the JSON lines."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._log = EpisodeLog(path, self._now())
        self._events = rospy.Publisher(EVENT_TOPIC, EpisodeMessage, queue_size=10, latch=True)
        if self._log.recovered is not None:
            rospy.logwarn("episode %d was left open and is kept as aborted", self._log.recovered.number)
            self._events.publish(event_message(self._log.recovered))
        rospy.Subscriber("/hybridvla/policy/instruction", String, self._on_instruction, queue_size=10)
        rospy.Service("/hybridvla/episode/start", Trigger, self._call(self._log.start))
        for label in LABELS:
            rospy.Service(f"/hybridvla/episode/{label}", Trigger,
                          self._call(lambda now, label=label: self._log.label(label, now)))
        self._diagnostics = Diagnostics("episodes", self._report)
        rospy.loginfo("labels go to %s", path)

    @staticmethod
    def _now() -> float:
        return rospy.Time.now().to_sec()

    def _on_instruction(self, message: String) -> None:
        with self._lock:
            self._log.set_instruction(message.data)

    def _call(self, act: Callable[[float], EpisodeEvent]) -> Callable[[TriggerRequest], TriggerResponse]:
        def answer(_request: TriggerRequest) -> TriggerResponse:
            with self._lock:
                try:
                    event = act(self._now())
                except EpisodeError as error:
                    return TriggerResponse(False, str(error))
                self._events.publish(event_message(event))
            rospy.loginfo("episode %d: %s", event.number, event.event)
            return TriggerResponse(True, f"episode {event.number}: {event.event}"
                                         + (f" after {event.elapsed_s:.1f} s" if event.event != "start" else ""))
        return answer

    def _report(self) -> Tuple[int, str, Dict[str, object]]:
        with self._lock:
            running = self._log.current
            values: Dict[str, object] = dict(self._log.counts)
        return DiagnosticStatus.OK, f"episode {running.number} is running" if running else "no episode is running", values


def main() -> None:
    EpisodeNode(Path(require_parameter("file")).expanduser())
    rospy.spin()
