"""Writes messages into a bag from its own thread and counts every loss. rosbag's API, no node."""
from __future__ import annotations

import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, NamedTuple, Optional, Tuple

import genpy
import rosbag

from hybridvla_core.waiting import wait_until
from hybridvla_ros.runtime.workers import described, start_worker

#: A larger jump of the sequence number is a restarted publisher, not loss.
MAX_SEQUENCE_JUMP = 1000
GIVE_UP_S = 120.0


class RawMessage(NamedTuple):
    """A message as it came over the wire.

    Attributes:
        topic: Topic it came on.
        data: Serialised bytes of the message.
        header: The connection's (type, md5sum, message_definition, callerid, ...).
        stamp_ns: When it arrived, ns.
    """

    topic: str
    data: bytes
    header: Dict[str, str]
    stamp_ns: int


@dataclass
class TopicCount:
    """What became of a topic's messages.

    Attributes:
        type: Type of the messages.
        seen: Messages taken from the network.
        written: Messages in the bag.
        dropped: Messages not written because the disk did not keep up.
        unwritable: Messages not written because of `problem`.
        missed: Messages lost before they reached us, by the sequence numbers of one publisher.
        first_ns: When the first message came, ns.
        last_ns: When the last message came, ns.
        longest_gap_s: Longest gap between two messages, s.
        longest_gap_at_s: Where that gap begins, after the recording's first message, s.
        problem: Why messages could not be written.
        _sequences: The last sequence number of each publisher.
    """

    type: str = ""
    seen: int = 0
    written: int = 0
    dropped: int = 0
    unwritable: int = 0
    missed: int = 0
    first_ns: int = 0
    last_ns: int = 0
    longest_gap_s: float = 0.0
    longest_gap_at_s: float = 0.0
    problem: str = ""
    _sequences: Dict[str, int] = field(default_factory=dict)

    def saw(self, message: RawMessage, begin_ns: int) -> None:
        self.seen += 1
        if self.last_ns:
            gap = (message.stamp_ns - self.last_ns) * 1e-9
            if gap > self.longest_gap_s:
                self.longest_gap_s, self.longest_gap_at_s = gap, (self.last_ns - begin_ns) * 1e-9
        self.first_ns = self.first_ns or message.stamp_ns
        self.last_ns = max(self.last_ns, message.stamp_ns)
        if not self.type:
            self.type = message.header.get("type", "")
        if begins_with_header(message.header) and len(message.data) >= 4:
            sequence, = struct.unpack_from("<I", message.data)
            caller = message.header.get("callerid", "")
            jump = sequence - self._sequences.get(caller, sequence - 1)
            self.missed += jump - 1 if 1 < jump < MAX_SEQUENCE_JUMP else 0
            self._sequences[caller] = sequence

    @property
    def lost(self) -> str:
        """Says which seen messages are not in the bag, and why; empty when all are."""
        texts = [f"{self.dropped} messages dropped because the disk did not keep up"] if self.dropped else []
        texts += [f"{self.unwritable} messages cannot be written: {self.problem}"] if self.unwritable else []
        rest = self.seen - self.written - self.dropped - self.unwritable
        return "; ".join(texts + ([f"{rest} of {self.seen} messages were seen and not written"] if rest else []))


def begins_with_header(header: Dict[str, str]) -> bool:
    """Tells from a message's definition whether its first field is a std_msgs/Header."""
    for line in header.get("message_definition", "").splitlines():
        text = line.partition("#")[0].split()
        if text and "=" not in line.partition("#")[0]:
            return text[0] in ("Header", "std_msgs/Header")
    return False


class Unwritable(Exception):
    """A message whose definition the bag could not hold."""


class BagWriter:
    """`put` never blocks; `close` waits until everything is on the disk. error: why writing ended early, or empty.

    Each publisher of a topic has its own connection in the bag, with its name.

    limit_bytes: bytes of messages that may wait for the disk.
    """

    def __init__(self, path: str, compression: str, limit_bytes: int) -> None:
        self.counts: Dict[str, TopicCount] = {}
        self.error = ""
        self.begin_ns = 0
        self._bag = rosbag.Bag(path, "w", compression=compression)
        self._limit, self._waiting = limit_bytes, 0
        self._queue: Deque[RawMessage] = deque()
        self._definitions: Dict[Tuple[str, str], str] = {}      # by type and MD5 sum
        self._connections: Dict[Tuple[str, str, str], Any] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = start_worker("writing the bag", self._run)

    def put(self, message: RawMessage) -> None:
        """Queues a message, or counts it as dropped."""
        with self._changed:
            if self._closing:
                return
            self.begin_ns = self.begin_ns or message.stamp_ns
            count = self.counts.setdefault(message.topic, TopicCount())
            count.saw(message, self.begin_ns)
            if self.error or self._waiting + len(message.data) > self._limit:
                count.dropped += 1
                return
            self._queue.append(message)
            self._waiting += len(message.data)
            self._changed.notify_all()

    def put_message(self, topic: str, message: genpy.Message, stamp_ns: int, latched: bool = True) -> None:
        """Queues a message of ours, marked as latched for players."""
        import io

        buffer = io.BytesIO()
        message.serialize(buffer)
        self.put(RawMessage(topic, buffer.getvalue(), {
            "topic": topic, "type": message._type, "md5sum": message._md5sum, "message_definition": message._full_text,
            "latching": "1" if latched else "0", "callerid": ""}, stamp_ns))

    def close(self) -> Optional[str]:
        """Writes the waiting messages and the index; returns an empty string, or why the bag is incomplete."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if not wait_until(lambda: not self._thread.is_alive(), GIVE_UP_S):
            return f"the disk did not take the rest within {GIVE_UP_S:.0f} s"
        try:
            self._bag.close()
        except (OSError, ValueError, rosbag.ROSBagException) as error:
            self.error = self.error or f"the bag's index cannot be written ({error})"
        return self.error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                message = self._queue.popleft()
            self._take(message)

    def _take(self, message: RawMessage) -> None:
        """Writes one message, or counts why it was not written."""
        unwritable = ""
        try:
            self._write(message)
        except Unwritable as error:
            unwritable = str(error)
        except (OSError, ValueError, rosbag.ROSBagException) as error:
            self.error = f"writing failed ({error})"
        except Exception as error:  # noqa: BLE001  # whatever it is, the recording ends by it and says so
            self.error = f"writing failed on {message.topic} ({described(error)})"
        with self._changed:
            self._waiting -= len(message.data)
            count = self.counts[message.topic]
            if self.error:
                count.dropped += 1
                for waiting in self._queue:
                    self.counts[waiting.topic].dropped += 1
                self._queue.clear()
                self._waiting = 0
            elif unwritable:
                count.unwritable, count.problem = count.unwritable + 1, unwritable
            else:
                count.written += 1

    def _write(self, message: RawMessage) -> None:
        header = message.header
        definition = self._definition(message)
        kind = type("Raw", (), {"_md5sum": header["md5sum"], "_full_text": definition})
        connection = {key: header[key] for key in ("type", "md5sum", "latching", "callerid") if key in header}
        connection.update(topic=message.topic, message_definition=definition)
        # rosbag keeps one connection per topic, the last: it gets the publisher's connection, or none, and then makes one.
        publisher, last = (message.topic, header.get("callerid", ""), header["md5sum"]), self._bag._topic_connections
        last.pop(message.topic, None)
        if publisher in self._connections:
            last[message.topic] = self._connections[publisher]
        self._bag.write(message.topic, (header["type"], message.data, header["md5sum"], kind),
                        genpy.Time(message.stamp_ns // 10 ** 9, message.stamp_ns % 10 ** 9), raw=True,
                        connection_header=connection)
        self._connections[publisher] = last[message.topic]

    def _definition(self, message: RawMessage) -> str:
        """Finds the definition of a message's type.

        It is the publisher's, or, where the publisher sends none, the installed one with the same MD5 sum.

        Args:
            message: Message with the header of its connection.

        Returns:
            The text of the definition.

        Raises:
            Unwritable: Neither definition exists; without it nobody could read the bag.
        """
        header, who = message.header, message.header.get("callerid", "") or "its publisher"
        missing = [key for key in ("type", "md5sum") if not header.get(key)]
        if missing:
            raise Unwritable(f"{who} does not say their {' and '.join(missing)}")
        key = (header["type"], header["md5sum"])
        if key not in self._definitions:
            text = header.get("message_definition", "")
            if not text:
                known = genpy.message.get_message_class(header["type"]) if header["type"].count("/") == 1 else None
                text = known._full_text if known is not None and known._md5sum == header["md5sum"] else ""
            if not text:
                raise Unwritable(f"{who} sends {header['type']} without its definition, and the one of this MD5 sum is not "
                                 "installed here; install its package on this computer")
            self._definitions[key] = text
        return self._definitions[key]
