"""Demonstrations into bags: `/hybridvla/record/{start,stop,success,failure,discard}`, or driven by the episode labels.

A bag holds the configured topics, the latched messages from before the start, and `/hybridvla/recording/snapshot`: the text
of the configurations and of the calibration. See recording.py for what makes a bag complete.
"""
from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import String
from std_srvs.srv import Trigger, TriggerRequest, TriggerResponse

from hybridvla.msg import EpisodeEvent
from hybridvla_core.configuration import load_file, one_of
from hybridvla_core.errors import ConfigurationError, HybridVLAError
from hybridvla_core.robots.graph_names import EPISODE_EVENT, INSTRUCTION, SNAPSHOT
from hybridvla_ros.recording.config import RecordingConfig
from hybridvla_ros.recording.episode_node import FINISHED_TOPIC, STARTED_TOPIC
from hybridvla_ros.recording.recording import BROKEN, Recording, RecordingError, free_bytes, recover
from hybridvla_ros.recording.topics import TopicSubscriptions
from hybridvla_ros.runtime.node_support import Diagnostics, package_path, require_parameter
from hybridvla_ros.runtime.workers import Rate, described

#: While no time runs, an event older than this is the latched event of an episode that began before this node, s.
FRESH_S = 2.0
WATCH_S = 0.5
#: What may be an episode's id, which becomes the name of its files: neither a path nor a suffix.
EPISODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
TELEOPERATIONS = ("spacemouse", "keyboard", "puppet", "none")


class RecorderNode:
    """files: the files whose text goes into the snapshot. All state changes under one lock."""

    def __init__(self, config: RecordingConfig, files: List[Path], teleoperation: str, follow: bool) -> None:
        self._config, self._folder = config, package_path(config.folder)
        self._snapshot = snapshot(files, teleoperation)
        self._instruction = ""
        self._recording: Optional[Recording] = None
        self._trouble = ""
        self._said = ""           # the last recording whose end was published
        self._began = rospy.Time.now().to_sec()
        self._heard: Dict[str, Tuple[str, int]] = {}       # the last event, id and kind, by its publisher
        self._done: Dict[str, int] = dict.fromkeys(("complete", "broken", "discarded"), 0)
        self._lock = threading.RLock()
        for name in recover(self._folder, lambda text: rospy.logwarn("%s", text)):
            rospy.logwarn("recording %s was left unfinished and is marked as broken", name)
        self._subscriptions = TopicSubscriptions(config)
        self._snapshots = rospy.Publisher(SNAPSHOT, String, queue_size=1, latch=True)
        self._finished = rospy.Publisher(FINISHED_TOPIC, String, queue_size=5, latch=True)
        self._snapshots.publish(String(self._snapshot))
        # All subscribers of a topic in one process get what the first asked for, so these take raw bytes too.
        rospy.Subscriber(INSTRUCTION, rospy.AnyMsg, self._on_instruction, queue_size=10)
        if follow:
            self._started = rospy.Publisher(STARTED_TOPIC, String, queue_size=5)
            rospy.Subscriber(EPISODE_EVENT, rospy.AnyMsg, self._on_event, queue_size=10)
        for name, act in (("start", lambda: self.start()), ("stop", lambda: self.finish(None)),
                          ("success", lambda: self.finish("success")), ("failure", lambda: self.finish("failure")),
                          ("discard", lambda: self.discard())):
            rospy.Service(f"/hybridvla/record/{name}", Trigger, self._service(act))
        self._diagnostics = Diagnostics("recording", self._report)
        self._looks = Rate(WATCH_S, self._watch, "watching the recording")
        rospy.on_shutdown(self._shut_down)
        rospy.loginfo("recordings go to %s, %.1f GB are free", self._folder, free_bytes_or_zero(self._folder) / 1e9)

    # What can be asked -----------------------------------------------------------------------------------------------

    def start(self, name: str = "") -> str:
        """Begins a recording; returns what to say about it. Raises RecordingError."""
        with self._lock:
            if self._recording is not None:
                raise RecordingError(f"{self._recording.name} is being recorded; stop or discard it first")
            fought = self._subscriptions.fought_over()
            if fought:
                raise RecordingError(fought)
            silent = self._subscriptions.wait(self._config.start_timeout_s)
            if silent:
                raise RecordingError(f"nothing arrives on {', '.join(silent)}; start its node, or take it out of the "
                                     "recording's topics")
            now = rospy.Time.now().to_nsec()
            name = name or time.strftime("%Y%m%dT%H%M%S", time.gmtime())      # UTC, as in the names of episodes
            recording = Recording(self._folder, name, self._config, now)
            if not recording.locked:
                rospy.logwarn_once("%s is on a file system without locks: do not let a second recorder write there", self._folder)
            recording.instructions = [self._instruction] if self._instruction else []
            recording.writer.put_message(SNAPSHOT, String(self._snapshot), now)
            self._subscriptions.attach(recording.put, now)
            self._recording, self._trouble = recording, ""
            return f"recording {recording.name}"

    def finish(self, label: Optional[str], cut_short: str = "") -> str:
        """Ends the recording; returns what to say about it. Raises RecordingError when there is none, or when it is broken."""
        with self._lock:
            recording, self._recording = self._running(), None
            self._subscriptions.detach()
            sidecar = recording.finish(label, rospy.Time.now().to_nsec(), cut_short)
            self._done["complete" if sidecar["complete"] else "broken"] += 1
            self._say(recording.name, sidecar)
            if not sidecar["complete"]:
                self._trouble = f"recording {recording.name} is broken: {'; '.join(sidecar['problems'])}"
                raise RecordingError(self._trouble)
            return f"{sidecar['bag']} is complete: {sidecar['duration_s']:.1f} s, {label or 'no label'}"

    def discard(self) -> str:
        """Ends and deletes the recording."""
        with self._lock:
            recording, self._recording = self._running(), None
            self._subscriptions.detach()
            recording.discard()
            self._done["discarded"] += 1
            return f"recording {recording.name} was discarded"

    def _running(self) -> Recording:
        if self._recording is None:
            raise RecordingError("nothing is being recorded; call start first")
        return self._recording

    # Wiring ----------------------------------------------------------------------------------------------------------

    def _service(self, act: Callable[[], str]) -> Callable[[TriggerRequest], TriggerResponse]:
        def answer(_request: TriggerRequest) -> TriggerResponse:
            return TriggerResponse(*self._try(act))
        return answer

    def _try(self, act: Callable[[], str]) -> Tuple[bool, str]:
        try:
            message = act()
        except Exception as error:  # noqa: BLE001  # foreseen or not, whoever asked is told
            text = str(error) if isinstance(error, (HybridVLAError, OSError)) else f"it failed unexpectedly ({described(error)})"
            rospy.logerr("%s", text)
            return False, text
        rospy.loginfo("%s", message)
        return True, message

    def _on_instruction(self, raw: rospy.AnyMsg) -> None:
        message = String().deserialize(raw._buff)
        with self._lock:
            self._instruction = message.data
            if self._recording is not None and message.data and self._recording.instructions[-1:] != [message.data]:
                self._recording.instructions.append(message.data)

    def _on_event(self, raw: rospy.AnyMsg) -> None:
        message = EpisodeEvent().deserialize(raw._buff)
        publisher = str(raw._connection_header.get("callerid", ""))
        before, self._heard[publisher] = self._heard.get(publisher), (message.id, message.event)
        if before == (message.id, message.event):
            return              # the latched event again, from a publisher that was out of reach
        # Only a publisher's first event can be from before this node. A later event may well be old: it has waited here while the
        # previous bag was closed, which takes minutes when that bag is large.
        old = before is None and message.header.stamp.to_sec() < (self._began or rospy.Time.now().to_sec() - FRESH_S)
        if message.event == EpisodeEvent.START:
            done, problem = self._try(lambda: self._follow(message.id, old))
            if not done:
                self._trouble = f"episode {message.number} is not recorded: {problem}"
            self._started.publish(String(json.dumps({"id": message.id, "problem": "" if done else problem})))
            return
        if not EPISODE_ID.fullmatch(message.id):
            return              # its start was refused, and no file of another name is read here
        label = {EpisodeEvent.SUCCESS: "success", EpisodeEvent.FAILURE: "failure"}.get(message.event)
        with self._lock:
            running = self._recording is not None and self._recording.name == message.id
        problem = "this recorder has no recording of it"
        if not running:
            pass                # a recording started by hand is not ended by an episode that was refused because of it
        elif message.event == EpisodeEvent.DISCARD:
            self._try(self.discard)
        elif label:
            _, problem = self._try(lambda: self.finish(label))
        else:
            self._try(lambda: self.finish(None, "the episode was aborted"))
        if label and self._said != message.id:
            self._say_end(message.id, problem)

    def _say_end(self, episode: str, problem: str) -> None:
        """Says what became of a bag that was not closed here: whoever labelled the episode waits for it."""
        try:
            sidecar = json.loads((self._folder / f"{episode}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            sidecar = {"bag": episode + BROKEN, "complete": False, "problems": [problem]}
        self._say(episode, sidecar)

    def _say(self, name: str, sidecar: Dict[str, Any]) -> None:
        self._said = name
        self._finished.publish(String(json.dumps(sidecar)))

    def _follow(self, episode: str, old: bool) -> str:
        """Begins the recording of an episode."""
        if not EPISODE_ID.fullmatch(episode):
            raise RecordingError(f"its id is {episode[:80]!r} and becomes the name of the bag; use letters, digits, _ and -, and "
                                 "begin with a letter or digit")
        if old:
            raise RecordingError("it began before this recorder, by the time of its event; discard it and start again, and "
                                 "synchronise the clocks if it did not")
        return self.start(episode)

    def _watch(self) -> None:
        with self._lock:
            reason = self._recording.must_end(rospy.Time.now().to_nsec()) if self._recording is not None else ""
            if reason and not rospy.is_shutdown():
                self._try(lambda: self.finish(None, reason))

    def _shut_down(self) -> None:
        with self._lock:
            if self._recording is not None:
                self._try(lambda: self.finish(None, "the recorder was shut down"))

    def _report(self) -> Tuple[int, str, Dict[str, object]]:
        recording, free = self._recording, free_bytes_or_zero(self._folder)
        silent = self._subscriptions.silent(self._config.start_timeout_s)
        values: Dict[str, object] = {"free_gb": round(free / 1e9, 1), **self._done, "silent": ", ".join(silent)}
        if recording is not None:
            counts = list(recording.writer.counts.values())
            values.update(messages=sum(count.written for count in counts), dropped=sum(count.dropped for count in counts),
                          missed=sum(count.missed for count in counts))
        unwritable = next((f"{name}: {count.problem}" for name, count in sorted(recording.writer.counts.items())
                           if count.problem), "") if recording is not None else ""
        if self._trouble or unwritable:
            return DiagnosticStatus.ERROR, self._trouble or unwritable, values
        if free < self._config.start_free_gb * 1e9:
            return DiagnosticStatus.WARN, f"only {free / 1e9:.1f} GB are free: no recording can start", values
        return DiagnosticStatus.OK, f"recording {recording.name}" if recording is not None else "ready", values


def snapshot(files: List[Path], teleoperation: str) -> str:
    """Returns JSON: the text and hash of every file. Raises ConfigurationError naming a file that cannot be read."""
    entries = {}
    for path in files:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); a recording without it could not be "
                                     "explained later") from error
        entries[path.name] = {"sha256": hashlib.sha256(data).hexdigest(), "text": data.decode("utf-8", errors="replace")}
    return json.dumps({"format": 1, "teleoperation": teleoperation, "files": entries})


def free_bytes_or_zero(folder: Path) -> int:
    """Returns the free space on the folder's disk, or on the disk where a missing folder is made at the first start."""
    try:
        return free_bytes(next((place for place in (folder, *folder.parents) if place.exists()), folder))
    except OSError:
        return 0


def main() -> None:
    path = package_path(require_parameter("config"))
    config = load_file(RecordingConfig, path)
    named = [str(rospy.get_param(f"~{key}", "")).strip() for key in ("robot_config", "policy_config", "cameras",
                                                                     "teleop_config", "calibration")]
    files = [path, *(package_path(name) for name in (*named, *config.snapshot_files) if name)]
    teleoperation = str(rospy.get_param("~teleoperation", "none")).strip()
    one_of("teleop", teleoperation, TELEOPERATIONS)
    RecorderNode(config, files, teleoperation, bool(rospy.get_param("~follow_episodes", True)))
    rospy.spin()
