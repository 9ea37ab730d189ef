"""Messages into a bag from a thread of its own, with every loss counted. rosbag's API, no rospy."""
from __future__ import annotations

import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, NamedTuple, Optional

import genpy
import rosbag

#: Beyond this a jump of the sequence number is a restarted publisher, not loss.
MAX_SEQUENCE_JUMP = 1000
GIVE_UP_S = 120.0


class RawMessage(NamedTuple):
    """A message as it came over the wire. header: the connection's (type, md5sum, message_definition, ...)."""

    topic: str
    data: bytes
    header: Dict[str, str]
    stamp_ns: int


@dataclass
class TopicCount:
    """written; dropped: not written because the disk did not keep up; missed: gone before they reached us, by the
    sequence numbers of one publisher; longest_gap_s and its place after the recording's first message, s."""

    type: str = ""
    written: int = 0
    dropped: int = 0
    missed: int = 0
    first_ns: int = 0
    last_ns: int = 0
    longest_gap_s: float = 0.0
    longest_gap_at_s: float = 0.0
    _sequences: Dict[str, int] = field(default_factory=dict)

    def saw(self, message: RawMessage, begin_ns: int) -> None:
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


def begins_with_header(header: Dict[str, str]) -> bool:
    """Whether a message's first field is a std_msgs/Header, by its definition."""
    for line in header.get("message_definition", "").splitlines():
        text = line.partition("#")[0].split()
        if text and "=" not in line.partition("#")[0]:
            return text[0] in ("Header", "std_msgs/Header")
    return False


class BagWriter:
    """`put` never blocks; `close` waits until everything is on the disk. error: why writing ended early, or empty.

    limit_bytes: of messages waiting for the disk.
    """

    def __init__(self, path: str, compression: str, limit_bytes: int) -> None:
        self.counts: Dict[str, TopicCount] = {}
        self.error = ""
        self.begin_ns = 0
        self._bag = rosbag.Bag(path, "w", compression=compression)
        self._limit, self._waiting = limit_bytes, 0
        self._queue: Deque[RawMessage] = deque()
        self._types: Dict[str, Any] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, message: RawMessage) -> None:
        """Queue a message, or count it as dropped."""
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
        """A message of ours, marked as latched for players."""
        import io

        buffer = io.BytesIO()
        message.serialize(buffer)
        self.put(RawMessage(topic, buffer.getvalue(), {
            "topic": topic, "type": message._type, "md5sum": message._md5sum, "message_definition": message._full_text,
            "latching": "1" if latched else "0", "callerid": ""}, stamp_ns))

    def close(self) -> Optional[str]:
        """Write what waits and the index; an empty string, or why the bag is not whole."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(GIVE_UP_S)
        if self._thread.is_alive():
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
            try:
                self._write(message)
            except (OSError, ValueError, rosbag.ROSBagException) as error:
                self.error = f"writing failed ({error})"
            with self._changed:
                self._waiting -= len(message.data)
                count = self.counts[message.topic]
                if self.error:
                    count.dropped += 1 + sum(1 for _ in self._queue if _.topic == message.topic)
                    for other in {entry.topic for entry in self._queue} - {message.topic}:
                        self.counts[other].dropped += sum(1 for entry in self._queue if entry.topic == other)
                    self._queue.clear()
                    self._waiting = 0
                else:
                    count.written += 1

    def _write(self, message: RawMessage) -> None:
        header = message.header
        kind = self._types.get(header["type"])
        if kind is None:
            kind = self._types[header["type"]] = type("Raw", (), {"_md5sum": header["md5sum"],
                                                                  "_full_text": header["message_definition"]})
        connection = {key: header[key] for key in ("type", "md5sum", "message_definition", "latching", "callerid")
                      if key in header}
        connection["topic"] = message.topic
        self._bag.write(message.topic, (header["type"], message.data, header["md5sum"], kind),
                        genpy.Time(message.stamp_ns // 10 ** 9, message.stamp_ns % 10 ** 9), raw=True,
                        connection_header=connection)
