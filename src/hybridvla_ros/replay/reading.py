"""The messages of a recording as each pass reads them: our own types in this version, of one publisher, with stamps."""
from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Set, Tuple

import genpy
import rosbag

from hybridvla.msg import ActionProposal, EpisodeEvent, SafetyStatus
from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.messages.sources import OneSource
from hybridvla_ros.replay import bags
from hybridvla_ros.replay.topics import Topics

#: Which stamps count: the messages' own, or the times at which they were recorded.
STAMPS = HEADER, RECORDING = "header", "recording"
#: Our own types that replay and data sets read, each with this package's definition.
OURS = {kind._type: kind._md5sum for kind in (ActionProposal, EpisodeEvent, SafetyStatus)}
#: Those of the types read whose first field is a header.
STAMPED = {*OURS, "sensor_msgs/Image", "sensor_msgs/CompressedImage", "sensor_msgs/JointState", "sensor_msgs/CameraInfo"}


@dataclass
class LeftOut:
    """Messages that a pass left out. older: messages of another version of one of our types, by (file, topic, type, MD5 sum);
    foreign: topic -> (time of recording s, sentence) of the first message of a second publisher."""

    older: Dict[Tuple[str, str, str, str], int] = field(default_factory=dict)
    foreign: Dict[str, Tuple[float, str]] = field(default_factory=dict)

    def notes(self) -> List[str]:
        """Returns a sentence for each topic of another version."""
        return [f"{name}: {count} messages on {topic} are {kind} as another version of this package defines it (MD5 sum {md5}, "
                f"here {OURS[kind]}); they are left out" for (name, topic, kind, md5), count in self.older.items()]


def read(files: Sequence[bags.BagFile], topics: Topics, wanted: Sequence[str], stamps: str = HEADER,
         left_out: LeftOut = LeftOut()) -> Iterator[bags.Recorded]:  # noqa: B008  # nobody reads the default
    """Reads the files of a recording one after the other.

    Args:
        files: Files in the order of recording.
        topics: Roles of the topics. Joint states of every sender are handed on: several nodes may share their topic, and the
            publisher that counts is chosen for each arm.
        wanted: Topics to read.
        stamps: See STAMPS.
        left_out: Receives what is not handed on.

    Yields:
        The messages, in the order of recording in each file.
    """
    single: Set[str] = {*topics.images, *topics.camera_info, topics.proposals, topics.status}
    sources = {topic: OneSource(topic) for topic in single}
    for opened in files:
        for record in opened.read(wanted):
            topic, raw = record.topic, record.raw
            if OURS.get(raw[0], raw[2]) != raw[2]:
                key = (opened.path.name, topic, raw[0], raw[2])
                left_out.older[key] = left_out.older.get(key, 0) + 1
                continue
            if topic in single and not sources[topic].takes(record.publisher, record.when):
                left_out.foreign.setdefault(topic, (record.when, sources[topic].problem(record.when)))
                continue
            yield record if stamps == HEADER else _restamped(record)


def write_restamped(files: Sequence[bags.BagFile], topics: Sequence[str], out: Path) -> float:
    """Writes a bag of some topics, with each message's time of recording as its stamp.

    Args:
        files: Files in the order of recording; also files that were repaired, or whose first messages were recorded at time 0.
        topics: Topics of the new bag.
        out: Path of the new bag.

    Returns:
        When the first message was recorded, s.

    Raises:
        HybridVLAError: The bag cannot be written.
    """
    try:
        with rosbag.Bag(str(out), "w") as bag:
            for opened in files:
                for record in map(_restamped, opened.read(topics)):
                    bag.write(record.topic, record.raw, genpy.Time.from_sec(record.when), raw=True)
            return float(bag.get_start_time())
    except OSError as error:
        raise HybridVLAError(f"{out}: the bag with the time of recording for stamps cannot be written ({error.strerror}); it "
                             "needs as much room as what is played, beside out:=") from error


def last_of(files: Sequence[bags.BagFile], topics: Sequence[str]) -> float:
    """Finds when the last message on some topics was recorded.

    Args:
        files: Files of one recording.
        topics: Topics to look at; at least one of them is in the files.

    Returns:
        The time, s; 0 where there is no message.

    Raises:
        BagError: A chunk is broken.
    """
    last = 0.0
    for opened in files:
        back, found = 1.0, 0.0
        # Backwards from the end, because a bag may be too large to read through quickly.
        while not found and back < 10.0 * max(1.0, opened.end):
            for record in opened.read(topics, since=max(0.0, opened.end - back)):
                found = record.when
            back *= 10.0
        last = max(last, found)
    return last


def _restamped(record: bags.Recorded) -> bags.Recorded:
    """Returns the message with the time of recording as its stamp, if it has a stamp."""
    kind, data, md5, place, cls = record.raw
    if kind not in STAMPED:
        return record
    seconds, nanoseconds = divmod(int(round(record.when * 1e9)), 1_000_000_000)
    return record._replace(raw=(kind, data[:4] + struct.pack("<II", seconds, nanoseconds) + data[12:], md5, place, cls))
