"""How verbs write results for machines, and what a file on disk is."""
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

#: First bytes of what Git leaves in a clone made without Git LFS.
_POINTER = b"version https://git-lfs"
#: In folders that a command of ours makes anew each time.
_MARK = ".made-by-hybridvla"


def write_json(path: Optional[Union[str, Path]], result: Mapping[str, Any]) -> None:
    """`write_text` of `result` as JSON; nothing when `path` is None."""
    if path is not None:
        write_text(path, json.dumps(result, indent=2, sort_keys=False) + "\n")


def write_text(path: Union[str, Path], text: str) -> None:
    """Write `text` to `path` by rename, so that no reader meets half a file.

    Raises:
        OSError: when the folder cannot be made or written; the command line explains it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):      # it is there only where something failed
            partial.unlink()


def unused(path: Path) -> Path:
    """Returns `path`, or `path` with .2, .3, ... behind it where that is there already.

    For names with a process's number: in a container that counts from the beginning, a killed run of the same number may have
    left one, or one on the same disk may be writing it.
    """
    names = itertools.chain([path], (path.with_name(f"{path.name}.{number}") for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Forces a folder with all files and folders below to the disk, before a rename: that must not overtake what it names."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def check_target(path: Union[str, Path], option: str) -> None:
    """Does nothing where `write_text` can write; makes nothing, because the folder may be one that a verb wants to make itself.

    Args:
        path: Of the file that is to be written.
        option: Names it in the message.

    Raises:
        HybridVLAError: It is a folder, or nothing can be written there.
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
    """Makes an empty folder, also of one that the same command made before.

    Args:
        folder: Absent, empty, or made by this function.
        what: Names the command in the message.

    Raises:
        HybridVLAError: It holds something that the command did not make; nothing is removed.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise HybridVLAError(f"{folder}: holds something that {what} did not make, and {what} begins with an empty folder; name "
                             "another one with --out, or remove it")
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()


def key_of(content: Mapping[str, Any]) -> str:
    """Returns 20 hexadecimal digits that name a result by everything that decides it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def refuse_pointer(path: Union[str, Path]) -> None:
    """Does nothing for a file that is what its name says, or is not there.

    Raises:
        HybridVLAError: for the pointer that Git LFS leaves in a large file's place.
    """
    try:
        with open(path, "rb") as stream:
            pointer = stream.read(len(_POINTER)) == _POINTER
    except OSError:
        return
    if pointer:
        raise HybridVLAError(f"{path}: a Git LFS pointer and not the file itself; run `git lfs pull` in its repository, or "
                             "download the file again")
