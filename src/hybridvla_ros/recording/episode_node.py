"""Labels while a policy runs: `/hybridvla/episode/{start,success,failure,discard}` and a latched topic of the events."""
from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Callable, Dict, Tuple

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import String
from std_srvs.srv import Trigger, TriggerRequest, TriggerResponse

from hybridvla.msg import EpisodeEvent as EpisodeMessage
from hybridvla_core.configuration import load_file
from hybridvla_core.waiting import Condition
from hybridvla_ros.messages.conversions import duration, stamp
from hybridvla_ros.recording.config import RecordingConfig
from hybridvla_ros.recording.episodes import EVENTS, LABELS, EpisodeError, EpisodeEvent, EpisodeLog
from hybridvla_ros.runtime.node_support import Diagnostics, package_path, require_parameter

EVENT_TOPIC = "/hybridvla/episode/event"
#: A recorder that follows the episodes says here, as JSON, whether it records one: id, and problem, empty when it does.
STARTED_TOPIC = "/hybridvla/recording/started"
LABEL_FILE = "episodes.jsonl"
#: How long a recorder may take to answer, s: it waits for silent topics first.
ANSWER_S = 70.0


def event_message(event: EpisodeEvent) -> EpisodeMessage:
    message = EpisodeMessage(number=event.number, id=event.id, event=EVENTS.index(event.event), note=event.note,
                             instructions=list(event.instructions), elapsed=duration(event.elapsed_s))
    message.header.stamp = stamp(event.stamp)
    return message


class EpisodeNode:
    """Parameters ~file: the JSON lines; ~config: of the recording, in whose folder they are where ~file is empty."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._answers: Dict[str, str] = {}       # of the recorder, by episode: why it does not record it, or nothing
        self._answered = Condition()
        self._log = EpisodeLog(path, self._now())
        self._events = rospy.Publisher(EVENT_TOPIC, EpisodeMessage, queue_size=10, latch=True)
        if self._log.recovered is not None:
            rospy.logwarn("episode %d was left open and is kept as aborted", self._log.recovered.number)
            self._events.publish(event_message(self._log.recovered))
        rospy.Subscriber("/hybridvla/policy/instruction", String, self._on_instruction, queue_size=10)
        self._recorder = rospy.Subscriber(STARTED_TOPIC, String, self._on_started, queue_size=10)
        rospy.Service("/hybridvla/episode/start", Trigger, self._start)
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

    def _on_started(self, message: String) -> None:
        answer = json.loads(message.data)
        with self._answered:
            self._answers[answer["id"]] = answer["problem"]
            self._answered.notify_all()

    def _start(self, request: TriggerRequest) -> TriggerResponse:
        """Begins an episode; where a recorder follows, one that it does not record is discarded at once."""
        began = self._call(self._log.start)(request)
        event = self._log.current
        if not began.success or event is None or not self._recorder.get_num_connections():
            return began
        with self._answered:
            self._answered.wait_for(lambda: event.id in self._answers or not self._recorder.get_num_connections(), ANSWER_S)
            problem = self._answers.pop(event.id, "the recorder does not answer")
        if not problem:
            return began
        self._call(lambda now: self._log.label("discard", now, f"not recorded: {problem}"))(request)
        return TriggerResponse(False, f"episode {event.number} is not recorded and was discarded: {problem}")

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
    given = str(rospy.get_param("~file", "")).strip()
    if given:
        path = Path(given).expanduser()
    else:
        config = load_file(RecordingConfig, package_path(require_parameter("config")))
        path = package_path(config.folder) / LABEL_FILE
    EpisodeNode(path)
    rospy.spin()
