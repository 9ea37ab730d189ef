"""What the recorder hears: every configured topic as raw bytes, who was heard when, and who else publishes."""
from __future__ import annotations

import threading
import time
from typing import Callable, Dict, List, Optional, Set, Tuple

import rosgraph
import rospy

from hybridvla_ros.recording.bag_writer import RawMessage
from hybridvla_ros.recording.config import RecordingConfig, TopicConfig
from hybridvla_ros.runtime.already_running import reached

BUFFER_BYTES = 2 ** 24


class TopicSubscriptions:
    """`sink` gets every message while it is set. The last message of a latched topic is kept for the next recording."""

    def __init__(self, config: RecordingConfig) -> None:
        self._topics = config.topics
        self._heard: Dict[str, float] = {}
        self._latched: Dict[Tuple[str, str], RawMessage] = {}       # by topic and publisher
        self._sink: Optional[Callable[[RawMessage], None]] = None
        self._lock = threading.Lock()
        for topic in config.topics:
            # No queue: what rospy reads is handed over in order; a publisher that drops messages leaves a gap in its numbers.
            rospy.Subscriber(topic.name, rospy.AnyMsg, self._on_message, callback_args=topic.name, buff_size=BUFFER_BYTES,
                             tcp_nodelay=True)

    def _on_message(self, message: rospy.AnyMsg, topic: str) -> None:
        header = {str(key): str(value) for key, value in message._connection_header.items()}
        raw = RawMessage(topic, message._buff, header, rospy.Time.now().to_nsec())
        with self._lock:
            self._heard[topic] = time.monotonic()
            if header.get("latching") == "1":
                key = topic, header.get("callerid", "")
                self._latched.pop(key, None)         # the newest comes last, as readers of a bag expect
                self._latched[key] = raw
            if self._sink is not None:
                self._sink(raw)

    def attach(self, sink: Callable[[RawMessage], None], now_ns: int) -> None:
        """Sends every message to `sink` from now on; first the latched ones of publishers that still run, stamped as of now."""
        self._forget_gone()
        with self._lock:
            for raw in self._latched.values():
                sink(raw._replace(stamp_ns=now_ns))
            self._sink = sink

    def _gone(self) -> Set[Tuple[str, str]]:
        """Returns latched messages whose publisher left the master's list or was killed; none if the master does not answer."""
        with self._lock:
            kept = set(self._latched)
        master = rosgraph.Master(rospy.get_name())
        try:
            publishers = dict(master.getSystemState()[0])
        except (rosgraph.MasterException, OSError):
            return set()
        kept_by = {(topic, node): node in publishers.get(rospy.resolve_name(topic), ()) for topic, node in kept}
        living = {node: answers(master, node) for (_, node), listed in kept_by.items() if listed}
        return {(topic, node) for (topic, node), listed in kept_by.items() if not listed or not living[node]}

    def _forget_gone(self) -> None:
        """Forgets latched messages of publishers that are gone; a topic left without one counts as not heard, however recent."""
        gone = self._gone()
        with self._lock:
            for key in gone:
                self._latched.pop(key, None)
            for topic in {topic for topic, _ in gone} - {topic for topic, _ in self._latched}:
                self._heard.pop(topic, None)

    def detach(self) -> None:
        with self._lock:
            self._sink = None

    def silent(self, seconds: float) -> List[str]:
        """Returns required topics silent for `seconds`; a latched one counts as heard if its publisher was there last time."""
        now = time.monotonic()
        with self._lock:
            latched = {topic for topic, _ in self._latched}
            return [topic.name for topic in self._topics if topic.required and topic.name not in latched
                    and now - self._heard.get(topic.name, -1e9) > seconds]

    def wait(self, seconds: float) -> List[str]:
        """Waits at most `seconds` until all required topics speak; returns those silent, or whose latching publisher has gone."""
        self._forget_gone()
        deadline = time.monotonic() + seconds
        while self.silent(seconds) and time.monotonic() < deadline and not rospy.is_shutdown():
            time.sleep(0.05)
        return self.silent(seconds)

    def fought_over(self) -> str:
        """Returns a sentence on a topic that only one node may publish and several do; empty when there is none."""
        watched: List[TopicConfig] = [topic for topic in self._topics if topic.only_publisher]
        if not watched:
            return ""
        master = rosgraph.Master(rospy.get_name())
        publishers = dict(master.getSystemState()[0])
        for topic in watched:
            nodes = sorted(set(publishers.get(rospy.resolve_name(topic.name), ())))
            if len(nodes) > 1:
                nodes = [node for node in nodes if answers(master, node)]
            if len(nodes) > 1:
                return f"{topic.name} is published by {' and '.join(nodes)}; stop all but one"
        return ""


def answers(master: rosgraph.Master, node: str) -> bool:
    """Tells whether a node lives, or may live.

    A killed node stays in the master's list, and a node whose computer cannot be reached from here may still be running.

    Args:
        master: Master of the graph.
        node: Name of the node.

    Returns:
        False where the master does not know the node, or nothing listens at its address.
    """
    try:
        uri = master.lookupNode(node)
    except (OSError, rosgraph.MasterException):
        return False
    return reached(uri) != "gone"
