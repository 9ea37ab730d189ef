"""One recording as a file: starts only with enough disk, ends with an index and a sidecar, complete or marked broken.

The file is `NAME.bag.active` while it is written, `NAME.bag` when it is complete, `NAME.broken.bag` when something is missing;
beside either is `NAME.json` with the label, counts and gaps by topic, duration, hash, and every reason. No rospy.
"""
from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import rosbag

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import sha256, sync
from hybridvla_ros.recording.bag_writer import BagWriter, RawMessage
from hybridvla_ros.recording.config import RecordingConfig
from hybridvla_ros.recording.locks import Busy, FileLock

ACTIVE, BROKEN = ".bag.active", ".broken.bag"
GB = 1e9
FORMAT = 1


class RecordingError(HybridVLAError):
    """A recording cannot start, or what an earlier one left behind cannot be marked."""


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(str(folder)).free


class Recording:
    """A recording from start to finish. now_ns: receive time of the start, on the clock of the messages' stamps."""

    def __init__(self, folder: Path, name: str, config: RecordingConfig, now_ns: int,
                 free: Callable[[Path], int] = free_bytes) -> None:
        check_disk(folder, config, free)
        self.name, self.folder, self._config, self._free = name, folder, config, free
        self._path, self._sidecar = folder / (name + ACTIVE), folder / (name + ".json")
        self.begin_ns = now_ns
        self.instructions: List[str] = []
        exists = RecordingError(f"{folder / name} exists already; recordings are never overwritten")
        if any((folder / (name + end)).exists() for end in (ACTIVE, ".bag", BROKEN, ".json")):
            raise exists
        try:
            # Created by the lock, and only if it did not exist: two recorders may want one name at the same moment.
            self._lock = FileLock(self._path, os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            raise exists from None
        except Busy as error:
            raise RecordingError(f"{self._path} was taken by {error}; start again") from error
        except OSError as error:
            with contextlib.suppress(OSError):
                remove(self._path)
            raise RecordingError(f"{self._path} cannot be written ({error})") from error
        try:
            self._writer = BagWriter(str(self._path), config.compression, int(config.queue_mb * 1e6))
        except (OSError, rosbag.ROSBagException) as error:
            remove(self._path)
            raise RecordingError(f"{self._path} cannot be written ({error})") from error

    @property
    def locked(self) -> bool:
        """Tells whether other recorders can see that the bag is being written; a file system may have no locks."""
        return self._lock.held

    @property
    def writer(self) -> BagWriter:
        return self._writer

    def put(self, message: RawMessage) -> None:
        self._writer.put(message)

    def must_end(self, now_ns: int) -> str:
        """Says why the recording has to be closed now, or returns an empty string."""
        try:
            free = self._free(self.folder)
        except OSError as error:
            return f"the disk of {self.folder} does not answer any more ({error.strerror})"
        if free < self._config.stop_free_gb * GB:
            return f"only {free / GB:.1f} GB are left on the disk of {self.folder} (limit {self._config.stop_free_gb:g} GB)"
        if self._writer.error:
            return self._writer.error
        if (now_ns - self.begin_ns) * 1e-9 > self._config.max_duration_s:
            return f"it is longer than max_duration_s, {self._config.max_duration_s:g} s"
        return ""

    def finish(self, label: Optional[str], now_ns: int, cut_short: str = "", extra: Optional[Dict[str, Any]] = None
               ) -> Dict[str, Any]:
        """Closes the bag, checks it by reading it again, names it, and writes the sidecar.

        Args:
            label: `success`, `failure`, or None for a recording that nobody judged.
            now_ns: ROS time, ns.
            cut_short: Why it was ended by no person.
            extra: Further keys of the sidecar.

        Returns:
            The sidecar.
        """
        error = self._writer.close()
        problems = [f"closed early: {cut_short}"] if cut_short else []
        problems += [error] if error else []
        problems += self._gaps(now_ns) + verify(self._path, {topic: count.written for topic, count in
                                                             self._writer.counts.items()})
        final = self.folder / (self.name + (BROKEN if problems else ".bag"))
        sidecar: Dict[str, Any] = {
            "format": FORMAT, "bag": final.name, "complete": not problems, "problems": problems, "label": label,
            "instructions": self.instructions, "start": self.begin_ns * 1e-9,
            "duration_s": round((now_ns - self.begin_ns) * 1e-9, 3), "topics": self._topics(now_ns)}
        sidecar.update(extra or {})
        try:
            sync(self._path)
            sidecar.update(bytes=self._path.stat().st_size, sha256=sha256(self._path))
            # The sidecar first: the name NAME.bag means complete, so the bag gets it last.
            write_sidecar(self._sidecar, sidecar)
            os.replace(str(self._path), str(final))
        except OSError as error_:
            sidecar.update(bag=self.name + BROKEN, complete=False,
                           problems=problems + [f"naming the bag or its sidecar failed ({error_})"])
            self._mark_broken(sidecar)
        self._lock.release()        # under its final name, or, where the disk refused that, for the next start to mark
        return sidecar

    def _mark_broken(self, sidecar: Dict[str, Any]) -> None:
        """Marks the bag as broken, as far as a failing disk allows; what stays `.bag.active` is marked at the next start."""
        broken = self.folder / (self.name + BROKEN)
        for act in (lambda: os.replace(str(self._path), str(broken)), lambda: remove(self._sidecar),
                    lambda: write_sidecar(self._sidecar, sidecar)):
            with contextlib.suppress(OSError):
                act()

    def discard(self) -> None:
        """Closes and deletes the recording."""
        self._writer.close()
        self._path.unlink()
        self._lock.release()

    def _gaps(self, now_ns: int) -> List[str]:
        # Everything seen must be in the bag, on every topic; what was never seen matters where it is required.
        found = [f"{name}: {count.lost}" for name, count in sorted(self._writer.counts.items()) if count.lost]
        for topic in self._config.topics:
            count = self._writer.counts.get(topic.name)
            if count is None or not count.written:
                if topic.required:
                    found.append(f"{topic.name}: no message")
                continue
            if topic.required and count.missed > self._config.max_drop_share * (count.written + count.missed):
                found.append(f"{topic.name}: {count.missed} messages never arrived")
            if topic.max_gap_s is None:
                continue
            before, after = (count.first_ns - self.begin_ns) * 1e-9, (now_ns - count.last_ns) * 1e-9
            for gap, where in ((count.longest_gap_s, f"{count.longest_gap_at_s:.2f} s after the first message"),
                               (before, "at the beginning"), (after, "at the end")):
                if topic.required and gap > topic.max_gap_s:
                    found.append(f"{topic.name}: silent for {gap:.2f} s {where} (limit {topic.max_gap_s:g} s)")
        return found

    def _topics(self, now_ns: int) -> Dict[str, Any]:
        found = {}
        for name, count in sorted(self._writer.counts.items()):
            entry = {key: value for key, value in asdict(count).items() if not key.startswith("_")}
            span = (count.last_ns - count.first_ns) * 1e-9
            entry.update(rate_hz=round((count.written - 1) / span, 2) if span > 0 else 0.0,
                         longest_gap_s=round(count.longest_gap_s, 4), longest_gap_at_s=round(count.longest_gap_at_s, 3))
            entry.pop("first_ns"), entry.pop("last_ns")
            found[name] = entry
        return found


def check_disk(folder: Path, config: RecordingConfig, free: Callable[[Path], int] = free_bytes) -> None:
    """Raises RecordingError when the folder cannot be used or its disk is nearly full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        left = free(folder)
    except OSError as error:
        raise RecordingError(f"{folder} cannot be used ({error.strerror}); check the folder and its permissions") from error
    if not os.access(str(folder), os.W_OK):
        raise RecordingError(f"{folder} cannot be written; check its permissions")
    if left < config.start_free_gb * GB:
        raise RecordingError(f"only {left / GB:.1f} GB are free on the disk of {folder}, {config.start_free_gb:g} GB are "
                             "needed to start; free space or choose another folder")


def verify(path: Path, written: Dict[str, int]) -> List[str]:
    """Says what a reader misses in the bag, compared with what was written."""
    try:
        with rosbag.Bag(str(path), "r") as bag:
            found = {name: info.message_count for name, info in bag.get_type_and_topic_info().topics.items()}
    except (OSError, rosbag.ROSBagException) as error:
        return [f"the bag cannot be read again ({error})"]
    return [f"{topic}: {count} messages were written, {found.get(topic, 0)} are in the bag"
            for topic, count in sorted(written.items()) if found.get(topic, 0) != count]


def recover(folder: Path, say: Callable[[str], None] = lambda _text: None) -> List[str]:
    """Marks as broken what a recorder that died left behind.

    The data stays as it is: `rosbag reindex` on a copy makes it readable. Recordings that a living recorder writes, or may write,
    are left alone: on a file system without locks nobody can tell.

    Args:
        folder: Folder of the recordings.
        say: Called with a sentence for each recording that is left alone.

    Returns:
        The names of the recordings that were marked.

    Raises:
        RecordingError: The folder does not let them be marked.
    """
    found = []
    try:
        for path in sorted(folder.glob(f"*{ACTIVE}")) if folder.is_dir() else ():
            name = path.name[:-len(ACTIVE)]
            try:
                lock = FileLock(path)
            except FileNotFoundError:
                continue                # it was closed just now
            except Busy:
                say(f"recording {name} is being written by another recorder, or was just closed; it is left alone")
                continue
            try:
                if lock.held:
                    _mark_dead(folder, name)
                    found.append(name)
                else:
                    say(f"recording {name} may still be written by another recorder: {folder} is on a file system without "
                        f"locks; if none runs, rename it to {name}{BROKEN}")
            finally:
                lock.release()
    except OSError as error:
        raise RecordingError(f"{folder} holds unfinished recordings that cannot be marked as broken ({error.strerror}); "
                             "check the disk and its permissions, or choose another folder") from error
    return found


def _mark_dead(folder: Path, name: str) -> None:
    # The name last: a mark that fails half-way is made again at the next start.
    write_sidecar(folder / (name + ".json"), {
        "format": FORMAT, "bag": name + BROKEN, "complete": False, "label": None,
        "problems": ["the recorder ended before it could write the index; `rosbag reindex` a copy to read it"]})
    os.replace(str(folder / (name + ACTIVE)), str(folder / (name + BROKEN)))


def write_sidecar(path: Path, content: Dict[str, Any]) -> None:
    """Writes JSON, whole or not at all. Creates no folder: a missing folder means that somebody pulled the disk."""
    partial = path.with_suffix(".json.partial")
    try:
        with open(partial, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=1)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(str(partial), str(path))
    except OSError:
        remove(partial)
        raise


def remove(path: Path) -> None:
    """Deletes a file that may be absent."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
