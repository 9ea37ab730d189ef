"""Writing of machine-readable results, and checks of files on disk."""
from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Mapping, Optional, Union

from hybridvla_core.errors import HybridVLAError

#: First bytes of the pointer file that Git leaves in a clone made without Git LFS.
_POINTER = b"version https://git-lfs"
#: Marker file in folders that one of our commands makes anew each time.
_MARK = ".made-by-hybridvla"


def write_json(path: Optional[Union[str, Path]], result: Mapping[str, Any]) -> None:
    """Writes `result` as JSON by `write_text`; does nothing if `path` is None."""
    if path is not None:
        write_text(path, json.dumps(result, indent=2, sort_keys=False) + "\n")


def write_text(path: Union[str, Path], text: str) -> None:
    """Writes `text` to `path` by rename, so that no reader sees half a file.

    Raises:
        OSError: The folder cannot be made or written; the command line explains it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):      # it exists only if something failed
            partial.unlink()


def append_line(path: Path, line: str) -> None:
    """Appends a line and forces it to the disk. A full disk may take only part of it, which would spoil the next line.

    Args:
        path: File to append to; where its last line has no end, a new line is begun first.
        line: Line without its end.

    Raises:
        OSError: The line is not written; the file is as it was, as far as the disk allows.
    """
    with open(path, "a+b", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - 1, 0))
        data = (b"\n" if stream.read(1) not in (b"", b"\n") else b"") + line.encode("utf-8") + b"\n"
        try:
            while data:
                data = data[stream.write(data):]
            os.fsync(stream.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                stream.truncate(size)
            raise


def unused(path: Path) -> Path:
    """Returns `path`, or `path` followed by .2, .3, ... if it exists already.

    For names that contain a process number: in a container, where numbers start over, a killed run with the same number may
    have left the file, or a run on the same disk may be writing it.
    """
    names = itertools.chain([path], (path.with_name(f"{path.name}.{number}") for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flushes a folder and everything below it to the disk, for use before a rename, which must not overtake the contents."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def check_target(path: Union[str, Path], option: str) -> None:
    """Checks that `write_text` can write; makes nothing, because a verb may want to make the folder itself.

    Args:
        path: File to be written.
        option: Name of the option in the message.

    Raises:
        HybridVLAError: `path` is a folder, or nothing can be written there.
    """
    path = Path(path)
    if path.is_dir():
        raise HybridVLAError(f"{option} {path}: is a folder; name a file in it")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise HybridVLAError(f"{option} {path}: cannot be written ({error.strerror}); name another file") from error


def renew_folder(folder: Path, what: str) -> None:
    """Makes an empty folder, or empties one that the same command made before.

    Args:
        folder: Absent, empty, or made by this function.
        what: Name of the command in the message.

    Raises:
        HybridVLAError: The folder holds something that the command did not make; nothing is removed.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise HybridVLAError(f"{folder}: holds something that {what} did not make, and {what} begins with an empty folder; name "
                             "another one with --out, or remove it")
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()


def key_of(content: Mapping[str, Any]) -> str:
    """Returns 20 hexadecimal digits that identify a result by everything that determines it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def refuse_pointer(path: Union[str, Path]) -> None:
    """Refuses a Git LFS pointer; any other file, or none, passes.

    Raises:
        HybridVLAError: The file is the pointer that Git LFS leaves in place of a large file.
    """
    try:
        with open(path, "rb") as stream:
            pointer = stream.read(len(_POINTER)) == _POINTER
    except OSError:
        return
    if pointer:
        raise HybridVLAError(f"{path}: a Git LFS pointer and not the file itself; run `git lfs pull` in its repository, or "
                             "download the file again")
