"""Opening bags that other people recorded: not a bag, empty, truncated, never closed, split into several files."""
from __future__ import annotations

import re
import shutil
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Type

import genpy
import rosbag
from genpy import DeserializationError
from genpy.dynamic import MsgGenerationException

from hybridvla_core.errors import HybridVLAError

MAGIC = b"#ROSBAG V"
SPLIT_GAP_S = 5.0       # files of one split recording follow each other this closely
BROKEN = (rosbag.ROSBagException, struct.error, EOFError, ValueError, KeyError, IndexError, AttributeError)

#: A message as it lies in a bag: type, bytes, digest of the definition, place, and the class that reads it.
Raw = Tuple[str, bytes, str, Tuple[int, int], Type[genpy.Message]]


class BagError(HybridVLAError):
    """A bag that cannot be used; the sentence begins with its name."""


@dataclass
class BagFile:
    """An open bag. topics: topic -> type; begin, end: s of recording; notes: what was done to read it."""

    path: Path
    bag: rosbag.Bag
    topics: Dict[str, str]
    begin: float
    end: float
    notes: List[str] = field(default_factory=list)

    def close(self) -> None:
        self.bag.close()

    def read(self, topics: Sequence[str]) -> Iterator[Tuple[str, Raw, float]]:
        """(topic, raw message, time of recording s) in the order of recording; raises BagError for a broken chunk."""
        wanted = [topic for topic in topics if topic in self.topics]
        if not wanted:
            return
        try:
            for topic, raw, when in self.bag.read_messages(topics=wanted, raw=True):
                yield topic, raw, when.to_sec()
        except MsgGenerationException as error:
            raise BagError(f"{self.path}: a message type of the bag cannot be built ({_line(error)}); leave its topic out "
                           "with a topic map") from error
        except BROKEN as error:
            raise BagError(f"{self.path}: cannot be read to its end ({_line(error)}); the file is damaged") from error


class BagShelf:
    """Opens bags; damaged ones as re-indexed copies in a scratch folder that leaves with the shelf."""

    def __init__(self, scratch: Optional[Path] = None) -> None:
        self._parent = scratch
        self._folder: Optional[Path] = None
        self._open: List[BagFile] = []

    def __enter__(self) -> BagShelf:
        return self

    def __exit__(self, *_exception: object) -> None:
        for bag in self._open:
            bag.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, path: Path) -> BagFile:
        """Raises BagError with one sentence for what is no bag, is empty, or cannot be repaired."""
        try:
            with open(path, "rb") as stream:
                head = stream.read(len(MAGIC))
        except OSError as error:
            raise BagError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        size = path.stat().st_size
        if size == 0:
            raise BagError(f"{path}: the file is empty; record it again")
        if head != MAGIC:
            raise BagError(f"{path}: not a ROS 1 bag (it does not begin with {MAGIC.decode()!r}); give a .bag file")
        notes: List[str] = []
        try:
            bag = rosbag.Bag(str(path), "r")
        except rosbag.ROSBagUnindexedException:
            bag = self._reindexed(path, notes)
        except rosbag.ROSBagFormatException as error:
            bag = self._reindexed(path, notes, str(error))
        except BROKEN as error:
            bag = self._reindexed(path, notes, str(error))
        return self._checked(path, bag, notes)

    def _checked(self, path: Path, bag: rosbag.Bag, notes: List[str]) -> BagFile:
        try:
            if not bag.get_message_count():
                bag.close()
                raise BagError(f"{path}: the bag holds no message; record it again")
            info = bag.get_type_and_topic_info().topics
            opened = BagFile(path, bag, {topic: entry.msg_type for topic, entry in info.items()}, bag.get_start_time(),
                             bag.get_end_time(), notes)
        except BROKEN as error:
            bag.close()
            raise BagError(f"{path}: its index cannot be read ({_line(error)}); the file is damaged") from error
        self._open.append(opened)
        return opened

    def _reindexed(self, path: Path, notes: List[str], why: str = "") -> rosbag.Bag:
        """A copy with a new index; the original is only read."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="hybridvla_replay_", dir=str(self._parent) if self._parent else None))
        copy = self._folder / f"{len(list(self._folder.iterdir()))}_{path.name.replace('.active', '')}"
        free = shutil.disk_usage(self._folder).free
        if free < path.stat().st_size * 1.05:
            raise BagError(f"{path}: has no index, and {self._folder} has no room for a copy of {path.stat().st_size >> 20} "
                           "MiB; free space or choose another folder with --scratch")
        shutil.copyfile(str(path), str(copy))
        try:
            with rosbag.Bag(str(copy), "a", allow_unindexed=True) as bag:
                for _ in bag.reindex():
                    pass
        except BROKEN as error:
            raise BagError(f"{path}: damaged beyond repair ({why or _line(error)}); record it again") from error
        try:
            repaired = rosbag.Bag(str(copy), "r")
        except BROKEN as error:
            raise BagError(f"{path}: damaged beyond repair ({why or _line(error)}); record it again") from error
        notes.append("it was truncated or never closed; read from a re-indexed copy, the original is untouched")
        return repaired


def expand(paths: Sequence[str]) -> List[Path]:
    """Files and folders as given; a folder stands for the bags in it, also unfinished ones."""
    result: List[Path] = []
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            found = sorted([*path.glob("*.bag"), *path.glob("*.bag.active")])
            if not found:
                raise BagError(f"{path}: no .bag file in this folder")
            result += found
        else:
            result.append(path)
    return result


def recordings(files: Sequence[BagFile]) -> List[List[BagFile]]:
    """Files of a split recording (`name_0.bag`, `name_1.bag`, ...) that follow each other become one."""
    groups: List[List[BagFile]] = []
    for bag in sorted(files, key=lambda item: (_stem(item.path)[0], item.begin)):
        last = groups[-1] if groups else None
        if last is not None and _stem(bag.path)[1] is not None and _stem(last[-1].path)[0] == _stem(bag.path)[0] \
                and -0.5 <= bag.begin - last[-1].end <= SPLIT_GAP_S:
            last.append(bag)
        else:
            groups.append([bag])
    return groups


def _stem(path: Path) -> Tuple[str, Optional[int]]:
    match = re.fullmatch(r"(.*)_(\d+)\.bag(?:\.active)?", path.name)
    return (str(path.parent / match.group(1)), int(match.group(2))) if match else (str(path), None)


def message(raw: Raw, topic: str, path: Path) -> genpy.Message:
    """Deserialise a raw message; raises BagError naming the topic."""
    kind, data, _, _, cls = raw
    try:
        return cls().deserialize(data)
    except (DeserializationError, struct.error, UnicodeDecodeError) as error:
        raise BagError(f"{path}: a message on {topic} ({kind}) cannot be decoded ({_line(error)})") from error


def header_stamp(raw: Raw) -> int:
    """ns; of a message whose first field is a header, without decoding the rest."""
    _, seconds, nanoseconds = struct.unpack_from("<III", raw[1])
    return seconds * 1_000_000_000 + nanoseconds


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
