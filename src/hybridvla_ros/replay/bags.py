"""Opening bags that other people recorded: not a bag, empty, truncated, never closed, split into several files."""
from __future__ import annotations

import re
import shutil
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Type, Union

import genpy
import rosbag
from genpy import DeserializationError
from genpy.dynamic import MsgGenerationException

from hybridvla_core.errors import HybridVLAError

MAGIC = b"#ROSBAG V"
SPLIT_GAP_S = 5.0       # files of one split recording follow each other this closely
NO_TIME_S = 1.0         # a time of recording at which time did not run yet (simulated time begins at 0) ...
JUMP_S = 10.0           # ... if what follows was recorded this much later
#: What `rosbag record` puts between the given name and the number of a part, if anything.
DATE = r"\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d"
BACKUP = ".orig.bag"    # what `rosbag reindex` keeps of a bag beside it
BROKEN = (rosbag.ROSBagException, struct.error, EOFError, ValueError, KeyError, IndexError, AttributeError)

#: A message as it lies in a bag: type, bytes, digest of the definition, place, and the class that reads it.
Raw = Tuple[str, bytes, str, Tuple[int, int], Type[genpy.Message]]


class BagError(HybridVLAError):
    """A bag that cannot be used; the sentence begins with its name."""


class Recorded(NamedTuple):
    """A message as it was recorded.

    Attributes:
        topic: It was recorded on.
        raw: As it lies in the bag.
        when: Time of recording, s.
        path: Of its bag.
        publisher: The node that sent it, empty where the bag does not say.
    """

    topic: str
    raw: Raw
    when: float
    path: Path
    publisher: str


@dataclass
class BagFile:
    """An open bag. Messages that were recorded before time ran count as recorded at the begin.

    Attributes:
        path: Of the file.
        bag: Its reader.
        topics: Topic -> type.
        begin: Of the recording, s.
        end: Of the recording, s.
        notes: What was done to read it.
    """

    path: Path
    bag: rosbag.Bag
    topics: Dict[str, str]
    begin: float
    end: float
    notes: List[str] = field(default_factory=list)

    def close(self) -> None:
        self.bag.close()

    def read(self, topics: Sequence[str]) -> Iterator[Recorded]:
        """In the order of recording; raises BagError for a broken chunk."""
        wanted = [topic for topic in topics if topic in self.topics]
        if not wanted:
            return
        try:
            for topic, raw, when, header in self.bag.read_messages(topics=wanted, raw=True, return_connection_header=True):
                yield Recorded(topic, raw, max(when.to_sec(), self.begin), self.path, _text(header.get("callerid", "")))
        except MsgGenerationException as error:
            raise BagError(f"{self.path}: a message type of the bag cannot be built ({_line(error)}); leave its topic out "
                           "with a topic map") from error
        except (*BROKEN, OSError) as error:
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
            begin, early = _begin(bag)
            if early:
                notes.append(f"{early} message{'s' if early > 1 else ''} recorded before time ran (at {bag.get_start_time():.3g} "
                             "s): taken as recorded at the begin")
            types = {topic: entry.msg_type for topic, entry in info.items()}
            opened = BagFile(path, bag, types, begin, bag.get_end_time(), notes)
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


def _begin(bag: rosbag.Bag) -> Tuple[float, int]:
    """Finds when recording began.

    A node with simulated time, which waits for its clock, records what is latched at 0.

    Returns:
        When it began, s, and how many messages bear a time from before it.
    """
    begin = last = bag.get_start_time()
    early = 0
    if begin <= NO_TIME_S:
        for _, _, when in bag.read_messages(raw=True):
            if when.to_sec() > NO_TIME_S:
                return (when.to_sec(), early) if when.to_sec() - last > JUMP_S else (begin, 0)
            last, early = when.to_sec(), early + 1
    return begin, 0


def _text(value: Union[str, bytes]) -> str:
    """A field of a connection's header, which is read as bytes."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def expand(paths: Sequence[str], notes: Optional[List[str]] = None, unread: Optional[List[str]] = None) -> List[Path]:
    """Files and folders as given; a folder stands for the bags in it, also unfinished ones.

    The backup that `rosbag reindex` leaves beside a bag is left out where that bag is there too.

    Args:
        paths: As given.
        notes: Gets a sentence on each backup.
        unread: Gets a sentence on each folder without a bag.

    Returns:
        The files.

    Raises:
        BagError: Such a folder, where `unread` is not given.
    """
    result: List[Path] = []
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            found = sorted([*path.glob("*.bag"), *path.glob("*.bag.active")])
            if not found:
                problem = f"{path}: no .bag file in this folder"
                if unread is None:
                    raise BagError(problem)
                unread.append(problem)
            result += found
        else:
            result.append(path)
    given = {path.resolve() for path in result}
    backups = [path for path in result if path.name.endswith(BACKUP)
               and path.with_name(path.name[:-len(BACKUP)] + ".bag").resolve() in given]
    if notes is not None:
        notes += [f"{path.name}: left out; it is what `rosbag reindex` kept of {path.name[:-len(BACKUP)]}.bag"
                  for path in backups]
    return [path for path in result if path not in backups]


def recordings(files: Sequence[BagFile]) -> List[List[BagFile]]:
    """Puts the files of a split recording, which follow each other, together.

    They are `name_0.bag`, `name_1.bag`, ..., also with the time at which each was begun in the name, as
    `rosbag record --split` has it.

    Returns:
        The files of each recording, in order.
    """
    groups: List[List[BagFile]] = []
    for bag in sorted(files, key=lambda item: (_stem(item.path)[0], item.begin)):
        last = groups[-1][-1] if groups else None
        if last is not None and _follows(_stem(last.path), _stem(bag.path)) and -0.5 <= bag.begin - last.end <= SPLIT_GAP_S:
            groups[-1].append(bag)
        else:
            groups.append([bag])
    return groups


def _follows(first: Tuple[str, Optional[int]], second: Tuple[str, Optional[int]]) -> bool:
    """Whether the second is the next part of the same recording, by their names."""
    return first[0] == second[0] and first[1] is not None and second[1] == first[1] + 1


def _stem(path: Path) -> Tuple[str, Optional[int]]:
    """What the parts of one recording share, and the number of the part."""
    match = re.fullmatch(rf"(.*?)(_?{DATE})?_(\d+)\.bag(?:\.active)?", path.name)
    return (str(path.parent / f"{match.group(1)}_"), int(match.group(3))) if match else (str(path), None)


def message(raw: Raw, topic: str, path: Path) -> genpy.Message:
    """Deserialise a raw message; raises BagError naming the topic."""
    kind, data, _, _, cls = raw
    try:
        return cls().deserialize(data)
    except (DeserializationError, struct.error, UnicodeDecodeError) as error:
        raise BagError(f"{path}: a message on {topic} ({kind}) cannot be decoded ({_line(error)})") from error


def text(raw: Raw, topic: str, path: Path) -> str:
    """Reads the text of a std_msgs/String, with single blanks.

    Returns:
        The text.

    Raises:
        BagError: It is not UTF-8; read with signs replaced it would be another instruction.
    """
    data = bytes(raw[1][4:])        # after its length
    try:
        return " ".join(data.decode("utf-8").split())
    except UnicodeDecodeError as error:
        found = data[error.start:error.start + 4].hex(" ")
        raise BagError(f"{path}: the text on {topic} is not UTF-8 (byte {error.start}: {found}; GBK or Latin-1, perhaps); say "
                       "what it is with --instruction") from error


def header_stamp(raw: Raw) -> int:
    """ns; of a message whose first field is a header, without decoding the rest."""
    _, seconds, nanoseconds = struct.unpack_from("<III", raw[1])
    return seconds * 1_000_000_000 + nanoseconds


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
