"""Files that one process writes: a lock that ends with its holder, however the holder ends. No ROS."""
from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import weakref
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict

#: Errors of a file system without locks: NFS without its lock service, some network drives and FUSE.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
LONGEST_NOTE = 4096


class Busy(Exception):
    """Another process has the file. The text says who, as far as that is known."""


class FileLock:
    """An exclusive lock on a file, until `release` or the end of the process; processes that it forks do not keep it.

    Args:
        path: File to lock.
        flags: Flags of `os.open`, besides O_RDWR: a lock over NFS needs a file that is open for writing.

    Attributes:
        held: False where the file system has no locks: then nothing is known of other users.

    Raises:
        Busy: Another process holds it, or has renamed the file meanwhile.
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, flags: int = 0) -> None:
        self._descriptor = -1
        _LOCKS.add(self)
        self._descriptor = os.open(str(path), os.O_RDWR | flags, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.held = True
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self._close()
                raise Busy("another process") from error
            if error.errno not in NO_LOCKS:
                self._close()
                raise
            self.held = False
        if not self._still(path):
            self._close()
            raise Busy("another process, which has renamed it")

    def __del__(self) -> None:
        self._close()

    def release(self) -> None:
        """Releases the file."""
        self._close()

    def read(self) -> Dict[str, Any]:
        """Returns the note that was written last; empty where there is none."""
        return _note(os.pread(self._descriptor, LONGEST_NOTE, 0))

    def write(self, note: Dict[str, Any]) -> None:
        """Replaces the file's content by a note; an empty note leaves an empty file."""
        os.ftruncate(self._descriptor, 0)
        if note:
            os.pwrite(self._descriptor, json.dumps(note).encode("utf-8"), 0)

    def _still(self, path: Path) -> bool:
        """Tells whether the file still has its name: its last holder may have finished with it between opening and locking."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(str(path)))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


#: Locks of this process. A forked process shares their open files, and would keep them locked after the holder's end.
_LOCKS: weakref.WeakSet = weakref.WeakSet()


def _leave_to_parent() -> None:
    for lock in list(_LOCKS):
        lock.release()


os.register_at_fork(after_in_child=_leave_to_parent)


class OnlyUser:
    """Keeps others of its kind from a file, by a lock file beside it that says who holds it.

    The lock is a separate file, because the file itself may be moved away and recreated while in use. The lock file stays:
    deleting it while another process opens it would let both in.

    Args:
        path: The file; its lock file is called PATH.lock.

    Raises:
        Busy: Another process uses it, or may: without locks, that may be one that this computer cannot see.
        OSError: The lock file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        place = path.with_name(path.name + ".lock")
        try:
            self._lock = FileLock(place, os.O_CREAT)
        except Busy:
            raise Busy(described(_note(place.read_bytes()))) from None
        if not self._lock.held and may_live(self._lock.read()):
            who = described(self._lock.read())
            self._lock.release()
            raise Busy(f"{who}, or that process was killed: the file system has no locks, so delete {place} if it was")
        self._lock.write({"pid": os.getpid(), "host": socket.gethostname(),
                          "since": datetime.now(timezone.utc).isoformat(timespec="seconds")})

    def release(self) -> None:
        """Lets others in."""
        with contextlib.suppress(OSError):
            self._lock.write({})
        self._lock.release()


def may_live(note: Dict[str, Any]) -> bool:
    """Tells whether the writer of a note runs, or may run: one on another computer cannot be checked."""
    pid = note.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    if note.get("host") != socket.gethostname():
        return True
    if pid == os.getpid():
        return False            # from a process before us, in a container that counts from the beginning
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True             # a process of another user
    return True


def described(note: Dict[str, Any]) -> str:
    """Names the writer of a note."""
    if not note:
        return "another process"
    return f"process {note.get('pid')} on {note.get('host')} since {note.get('since')}"


def _note(data: bytes) -> Dict[str, Any]:
    try:
        note = json.loads(data.decode("utf-8"))
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}
