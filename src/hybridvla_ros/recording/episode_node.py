"""Labels while a policy runs: `/hybridvla/episode/{start,success,failure,discard}` and a latched topic of the events."""
from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple, TypeVar

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import String
from std_srvs.srv import Trigger, TriggerRequest, TriggerResponse

from hybridvla.msg import EpisodeEvent as EpisodeMessage
from hybridvla_core.configuration import load_file
from hybridvla_core.robots.graph_names import EPISODE_EVENT, INSTRUCTION
from hybridvla_core.waiting import Condition
from hybridvla_ros.messages.conversions import duration, stamp
from hybridvla_ros.messages.services import EPISODE_S
from hybridvla_ros.recording.config import RecordingConfig
from hybridvla_ros.recording.episodes import DISCARD, EVENTS, LABELS, EpisodeError, EpisodeEvent, EpisodeLog
from hybridvla_ros.runtime.node_support import Diagnostics, node_ending, own_path, package_path, require_parameter

AnswerT = TypeVar("AnswerT")
#: Here a recorder that follows the episodes says, as JSON, whether it records one: id, and problem, which is empty when it does.
STARTED_TOPIC = "/hybridvla/recording/started"
#: Here a recorder says, as JSON, what became of a recording: its sidecar.
FINISHED_TOPIC = "/hybridvla/recording/finished"
LABEL_FILE = "episodes.jsonl"
#: How long a recorder may take to answer, and to close a bag, s.
ANSWER_S, CLOSED_S = EPISODE_S["start"], EPISODE_S["success"]
#: Time between two checks that the recorder is still there, and how long its last words may take, s.
LOOK_S = 0.5
#: Answers that nobody waits for are kept for this many episodes.
KEPT = 16


def event_message(event: EpisodeEvent) -> EpisodeMessage:
    message = EpisodeMessage(number=event.number, id=event.id, event=EVENTS.index(event.event), note=event.note,
                             instructions=list(event.instructions), elapsed=duration(event.elapsed_s))
    message.header.stamp = stamp(event.stamp)
    return message


class EpisodeNode:
    """Parameters ~file: the JSON lines; ~config: configuration of the recording, whose folder holds them where ~file is empty;
    ~recorder: true where episodes are to be recorded, and none begins without a recorder."""

    def __init__(self, path: Path, recorded: bool = False) -> None:
        self._to_be_recorded = recorded
        self._lock = threading.Lock()
        # From the recorder, by episode: why it does not record it, or an empty string; and the sidecar of its bag.
        self._answers: Dict[str, str] = {}
        self._bags: Dict[str, Dict[str, Any]] = {}
        self._recorded = ""                      # the last episode that a recorder agreed to record
        self._answered = Condition()
        self._log = EpisodeLog(path, self._now())
        self._events = rospy.Publisher(EPISODE_EVENT, EpisodeMessage, queue_size=10, latch=True)
        if self._log.recovered is not None:
            rospy.logwarn("episode %d was left open and is kept as aborted", self._log.recovered.number)
            self._events.publish(event_message(self._log.recovered))
        rospy.Subscriber(INSTRUCTION, String, self._on_instruction, queue_size=10)
        self._recorder = rospy.Subscriber(STARTED_TOPIC, String, self._on_started, queue_size=10)
        rospy.Subscriber(FINISHED_TOPIC, String, self._on_finished, queue_size=10)
        rospy.Service("/hybridvla/episode/start", Trigger, self._start)
        for label in LABELS:
            rospy.Service(f"/hybridvla/episode/{label}", Trigger, lambda _request, label=label: self._end(label))
        self._diagnostics = Diagnostics("episodes", self._report)
        rospy.on_shutdown(self._log.close)
        rospy.loginfo("labels go to %s", path)

    @staticmethod
    def _now() -> float:
        return rospy.Time.now().to_sec()

    def _on_instruction(self, message: String) -> None:
        with self._lock:
            self._log.set_instruction(message.data)

    def _on_started(self, message: String) -> None:
        answer = json.loads(message.data)
        self._keep(self._answers, answer["id"], answer["problem"])

    def _on_finished(self, message: String) -> None:
        sidecar = json.loads(message.data)
        self._keep(self._bags, str(sidecar["bag"]).partition(".")[0], sidecar)      # a bag is named after the episode's id

    def _keep(self, answers: Dict[str, AnswerT], episode: str, answer: AnswerT) -> None:
        with self._answered:
            answers[episode] = answer
            while len(answers) > KEPT:
                del answers[next(iter(answers))]
            self._answered.notify_all()

    def _await(self, answers: Dict[str, AnswerT], episode: str, seconds: float) -> Optional[AnswerT]:
        """Waits for what the recorder says of an episode; None where the recorder is gone, or says nothing for `seconds`."""
        end = time.monotonic() + seconds
        with self._answered:
            there = True
            while there and episode not in answers and time.monotonic() < end and not node_ending():
                there = self._recorder.get_num_connections() > 0        # if not, its last words may be on their way
                self._answered.wait_for(lambda: episode in answers, min(LOOK_S, seconds))
            return answers.pop(episode, None)

    def _start(self, _request: TriggerRequest) -> TriggerResponse:
        """Begins an episode; where a recorder follows, an episode that it does not record is discarded at once."""
        if self._to_be_recorded and not self._recorder.get_num_connections():
            return TriggerResponse(False, "no recorder listens, so nothing would be recorded: recorder_node is still "
                                          "starting, or has ended; the launch's output says why")
        event, began = self._take(self._log.start)
        if event is None or not self._recorder.get_num_connections():
            return began
        problem = self._await(self._answers, event.id, ANSWER_S)
        if problem == "":
            with self._lock:
                if self._runs(event):
                    self._recorded = event.id
            return began
        problem = problem or "the recorder does not answer"
        discarded, refused = self._take(lambda now: self._discard(event, now, f"not recorded: {problem}"))
        became = " and was discarded" if discarded is not None else f" ({refused.message})"
        return TriggerResponse(False, f"episode {event.number} is not recorded{became}: {problem}")

    def _runs(self, event: EpisodeEvent) -> bool:
        """Tells, under the lock, whether the episode still runs: while its start waited, another may have begun."""
        return self._log.current is not None and self._log.current.id == event.id

    def _discard(self, event: EpisodeEvent, now: float, note: str) -> EpisodeEvent:
        if not self._runs(event):
            raise EpisodeError("it had ended already")
        return self._log.label(DISCARD, now, note)

    def _end(self, label: str) -> TriggerResponse:
        """Labels the episode; if a recorder recorded it, the answer is a success only when the bag is complete."""
        event, kept = self._take(lambda now: self._log.label(label, now))
        if event is None or label == DISCARD or event.id != self._recorded:
            return kept
        sidecar = self._await(self._bags, event.id, CLOSED_S)
        if sidecar is not None and sidecar["complete"]:
            return TriggerResponse(True, f"{kept.message}; {sidecar['bag']} is complete")
        if sidecar is not None:
            problem = f"the bag is broken: {'; '.join(sidecar['problems'])}"
        elif self._recorder.get_num_connections():
            problem = f"the recorder has not closed the bag within {CLOSED_S:.0f} s; look at its log and at the disk"
        else:
            problem = "the recorder is gone, and marks the bag as broken when it is started again"
        rospy.logerr("episode %d: %s", event.number, problem)
        return TriggerResponse(False, f"{kept.message}. The label is kept, but {problem}")

    def _take(self, act: Callable[[float], EpisodeEvent]) -> Tuple[Optional[EpisodeEvent], TriggerResponse]:
        """Keeps an event and publishes it; returns the event, or None where it was refused, and the answer to give."""
        with self._lock:
            try:
                event = act(self._now())
            except EpisodeError as error:
                return None, TriggerResponse(False, str(error))
            self._events.publish(event_message(event))
        rospy.loginfo("episode %d: %s", event.number, event.event)
        return event, TriggerResponse(True, f"episode {event.number}: {event.event}"
                                            + (f" after {event.elapsed_s:.1f} s" if event.event != "start" else ""))

    def _report(self) -> Tuple[int, str, Dict[str, object]]:
        with self._lock:
            running = self._log.current
            values: Dict[str, object] = dict(self._log.counts)
        return DiagnosticStatus.OK, f"episode {running.number} is running" if running else "no episode is running", values


def main() -> None:
    given = str(rospy.get_param("~file", "")).strip()
    if given:
        path = own_path("labels", given)
    else:
        config = load_file(RecordingConfig, package_path(require_parameter("config")))
        path = package_path(config.folder) / LABEL_FILE
    EpisodeNode(path, rospy.get_param("~recorder", False) is not False)
    rospy.spin()
