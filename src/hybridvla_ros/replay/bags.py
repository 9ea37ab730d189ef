"""Opens bags that other people recorded: not a bag, empty, truncated, never closed."""
from __future__ import annotations

import errno
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
NO_TIME_S = 1.0         # a recording time at which time did not run yet (simulated time begins at 0) ...
JUMP_S = 10.0           # ... if the next message was recorded this much later
BROKEN = (rosbag.ROSBagException, struct.error, EOFError, ValueError, KeyError, IndexError, AttributeError)

#: A message as stored in a bag: type, bytes, digest of the definition, place, and the class that reads it.
Raw = Tuple[str, bytes, str, Tuple[int, int], Type[genpy.Message]]


class BagError(HybridVLAError):
    """A bag that cannot be used; the sentence begins with the bag's name."""


class TooManyOpen(HybridVLAError):
    """No more files can be opened: this is no fault of the bag at hand, and the next one would fail too."""


class Recorded(NamedTuple):
    """A message as it was recorded.

    Attributes:
        topic: Topic it was recorded on.
        raw: Message as stored in the bag.
        when: Time of recording, s.
        path: Path of its bag.
        publisher: Node that sent it; empty where the bag does not say.
    """

    topic: str
    raw: Raw
    when: float
    path: Path
    publisher: str


@dataclass
class BagFile:
    """A readable bag, open only while it is read. Messages recorded before time ran count as recorded at the start.

    Attributes:
        path: Path of the file.
        source: File that is read: the bag, or its re-indexed copy.
        topics: Topic -> type.
        begin: Start of the recording, s.
        end: End of the recording, s.
        notes: What was done to read it.
    """

    path: Path
    source: Path
    topics: Dict[str, str]
    begin: float
    end: float
    notes: List[str] = field(default_factory=list)

    def read(self, topics: Sequence[str], since: float = 0.0) -> Iterator[Recorded]:
        """Reads messages in the order of recording.

        Args:
            topics: Topics that are wanted; topics that the bag lacks are skipped.
            since: Time of recording to begin at, s.

        Yields:
            The messages.

        Raises:
            BagError: The file has gone, or has a broken chunk.
            TooManyOpen: The bag cannot be opened because too many files are open.
        """
        wanted = [topic for topic in topics if topic in self.topics]
        if not wanted:
            return
        try:
            with rosbag.Bag(str(self.source), "r") as bag:
                start = genpy.Time.from_sec(since) if since > 0.0 else None
                for topic, raw, when, header in bag.read_messages(wanted, start, raw=True, return_connection_header=True):
                    yield Recorded(topic, raw, max(when.to_sec(), self.begin), self.path, _text(header.get("callerid", "")))
        except MsgGenerationException as error:
            raise BagError(f"{self.path}: a message type of the bag cannot be built ({_line(error)}); leave its topic out "
                           "with a topic map") from error
        except (*BROKEN, OSError) as error:
            _refuse_exhausted(error, self.path)
            if isinstance(error, FileNotFoundError):
                raise BagError(f"{self.path}: is no longer there; leave the bags in place until the end") from error
            raise BagError(f"{self.path}: cannot be read to its end ({_line(error)}); the file is damaged") from error


class BagShelf:
    """Examines bags; damaged bags are read from re-indexed copies in a scratch folder that is removed with the shelf."""

    def __init__(self, scratch: Optional[Path] = None) -> None:
        self._parent = scratch
        self._folder: Optional[Path] = None

    def __enter__(self) -> BagShelf:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, path: Path) -> BagFile:
        """Examines a bag, and closes it again: a folder may hold more bags than a process may have open.

        Args:
            path: Path of the file.

        Returns:
            The bag's contents.

        Raises:
            BagError: It is no bag, is empty, or cannot be repaired, in one sentence.
            TooManyOpen: No more files can be opened.
            OSError: The disk went away, or takes no copy.
        """
        try:
            with open(path, "rb") as stream:
                head = stream.read(len(MAGIC))
        except OSError as error:
            _refuse_exhausted(error, path)
            raise BagError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        size = path.stat().st_size
        if size == 0:
            raise BagError(f"{path}: the file is empty; record it again")
        if head != MAGIC:
            raise BagError(f"{path}: not a ROS 1 bag (it does not begin with {MAGIC.decode()!r}); give a .bag file")
        notes: List[str] = []
        try:
            source, bag = self._opened(path, notes)
            with bag:
                return _checked(path, source, bag, notes)
        except OSError as error:
            _refuse_exhausted(error, path)
            raise

    def _opened(self, path: Path, notes: List[str]) -> Tuple[Path, rosbag.Bag]:
        try:
            return path, rosbag.Bag(str(path), "r")
        except rosbag.ROSBagUnindexedException:
            why = ""
        except BROKEN as error:
            why = str(error)
        return self._reindexed(path, notes, why)

    def _reindexed(self, path: Path, notes: List[str], why: str) -> Tuple[Path, rosbag.Bag]:
        """Returns a copy with a new index; the original is only read."""
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
            repaired = rosbag.Bag(str(copy), "r")
        except BROKEN as error:
            raise BagError(f"{path}: damaged beyond repair ({why or _line(error)}); record it again") from error
        notes.append("it was truncated or never closed; read from a re-indexed copy, the original is untouched")
        return copy, repaired


def _checked(path: Path, source: Path, bag: rosbag.Bag, notes: List[str]) -> BagFile:
    try:
        if not bag.get_message_count():
            raise BagError(f"{path}: the bag holds no message; record it again")
        info = bag.get_type_and_topic_info().topics
        begin, early = _begin(bag)
        if early:
            notes.append(f"{early} message{'s' if early > 1 else ''} recorded before time ran (at {bag.get_start_time():.3g} "
                         "s): taken as recorded at the begin")
        types = {topic: entry.msg_type for topic, entry in info.items()}
        return BagFile(path, source, types, begin, bag.get_end_time(), notes)
    except BROKEN as error:
        raise BagError(f"{path}: its index cannot be read ({_line(error)}); the file is damaged") from error


def _refuse_exhausted(error: BaseException, path: Path) -> None:
    """Raises TooManyOpen where an error says that no more files can be opened."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        whose = "this process" if error.errno == errno.EMFILE else "this computer"
        raise TooManyOpen(f"{path}: cannot be opened, because {whose} has too many files open; raise the limit (`ulimit -n "
                          "4096`) or end what holds them, and start again") from error


def _begin(bag: rosbag.Bag) -> Tuple[float, int]:
    """Finds when recording began.

    A node with simulated time, while it waits for its clock, records latched messages at time 0.

    Returns:
        When recording began, s, and how many messages carry an earlier time.
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
    """Returns a field of a connection's header, which is read as bytes, as text."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def message(raw: Raw, topic: str, path: Path) -> genpy.Message:
    """Deserialises a raw message; raises BagError naming the topic."""
    kind, data, _, _, cls = raw
    try:
        return cls().deserialize(data)
    except (DeserializationError, struct.error, UnicodeDecodeError) as error:
        raise BagError(f"{path}: a message on {topic} ({kind}) cannot be decoded ({_line(error)})") from error


def text(raw: Raw, topic: str, path: Path) -> str:
    """Reads the text of a std_msgs/String and reduces white space to single blanks.

    Returns:
        The text.

    Raises:
        BagError: It is not UTF-8; with characters replaced it would be another instruction.
    """
    data = bytes(raw[1][4:])        # after its length
    try:
        return " ".join(data.decode("utf-8").split())
    except UnicodeDecodeError as error:
        found = data[error.start:error.start + 4].hex(" ")
        raise BagError(f"{path}: the text on {topic} is not UTF-8 (byte {error.start}: {found}; GBK or Latin-1, perhaps); say "
                       "what it is with --instruction") from error


def header_stamp(raw: Raw) -> int:
    """Returns the stamp, ns, of a message whose first field is a header, without decoding the rest."""
    _, seconds, nanoseconds = struct.unpack_from("<III", raw[1])
    return seconds * 1_000_000_000 + nanoseconds


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
