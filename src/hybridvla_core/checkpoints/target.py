"""Target folder of a conversion or a training: it is complete once it has its name, and no foreign files are deleted for it."""
from __future__ import annotations

import logging
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator, List, Tuple

from hybridvla_core.checkpoints.format import CONFIG, STATISTICS, TOKENIZER
from hybridvla_core.checkpoints.manifest import MANIFEST
from hybridvla_core.checkpoints.weights import INDEX, WEIGHTS
from hybridvla_core.errors import CheckpointError, few
from hybridvla_core.files import unused

LOGGER = logging.getLogger(__name__)
GIB = 1 << 30
PARTIAL = "partial-"
#: Entries that a file system keeps in its own root.
OF_THE_DISK = ("lost+found", ".Trash-0", "$RECYCLE.BIN", "System Volume Information")
#: The files of a checkpoint folder.
OWN = re.compile("|".join([*map(re.escape, (MANIFEST, CONFIG, STATISTICS, TOKENIZER, WEIGHTS, INDEX)),
                           r"model-\d{5}-of-\d{5}\.safetensors"]))


def keep_apart(out: Path, others: Iterable[Tuple[str, Path]]) -> None:
    """Checks that a folder to write neither is nor contains a folder that is needed.

    Args:
        out: The folder to write.
        others: Description and path of each needed folder. They need not exist.

    Raises:
        CheckpointError: The folder is one of them or contains one, also by way of links.
    """
    place = Path(os.path.realpath(str(out)))
    for what, other in others:
        kept = Path(os.path.realpath(str(other)))
        if place == kept:
            raise CheckpointError(f"{out}: is {what}; choose another folder to write")
        if place in kept.parents:
            raise CheckpointError(f"{out}: holds {what}, {other}; choose another folder to write")


class Target:
    """OUT, and the folder on the same disk in which it is written until it is complete.

    If OUT does not exist, it appears by one rename. If OUT exists and is empty, it stays what it is (a mount point, the end of
    a link, or `.`): the checkpoint is written in a folder inside it, and the files are moved up, the manifest last.

    With `replace`, OUT may also hold a checkpoint and nothing else. Once the new one is complete, the old one is renamed, and
    is removed file by file when the new one has its name: at any moment one of them exists.
    """

    def __init__(self, out: Path, replace: bool = False) -> None:
        """Raises CheckpointError if OUT exists and is neither empty nor such a checkpoint, and for a link to nothing."""
        self.given, self.out, self.replace = out, Path(os.path.abspath(out)), replace
        if self.out.is_symlink() and not self.out.exists():
            raise CheckpointError(f"{out}: is a link to {os.readlink(self.out)}, which is not there; make that folder, or choose "
                                  "another name")
        if replace:         # a link stays; the folder that it leads to is exchanged
            self.out = Path(os.path.realpath(str(out)))
        names = sorted(os.listdir(str(self.out))) if self.out.is_dir() else []
        if self.out.exists():
            foreign = self._foreign() if self.out.is_dir() else []
            if foreign or not self.out.is_dir():
                held = f", with {few(foreign)}" if replace and foreign else ""
                raise CheckpointError(f"{out}: already there{held}; choose another name, or remove it first")
        self.inside = self.out.is_dir() and (os.path.ismount(str(self.out)) or not names or
                                             not all(_own(self.out / name) for name in names))
        # A conversion is done once, so leftovers are reported. A training continues under the same name and clears its leftovers.
        name, old = f"{PARTIAL}{'training' if replace else os.getpid()}", f"{PARTIAL}old"
        beside = self.out.name + "."
        self.partial = self.out / name if self.inside else self.out.with_name(beside + name)
        if not replace:
            self.partial = unused(self.partial)
        self.aside = self.out / old if self.inside else self.out.with_name(beside + old)

    def _foreign(self) -> List[str]:
        names = [path.name for path in self.out.iterdir()
                 if not path.name.startswith(PARTIAL) and path.name not in OF_THE_DISK]
        if self.replace and MANIFEST in names:
            return [name for name in names if not _own(self.out / name)]
        return names

    def leftovers(self) -> List[str]:
        """Returns a sentence about each folder that an earlier conversion into OUT left behind, with its size."""
        found = sorted(self.out.glob(f"{PARTIAL}*") if self.inside else self.out.parent.glob(f"{self.out.name}.{PARTIAL}*"))
        return [f"{path} ({_gib(path)}) {_whose(path)}" for path in found if path != self.partial and path.is_dir()]

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yields the folder to write in; it is removed if the block fails, also by a signal."""
        if self.replace and self.partial.is_dir():
            shutil.rmtree(str(self.partial))
        try:
            self.partial.mkdir(parents=True)
            yield self.partial
        except BaseException:
            shutil.rmtree(str(self.partial), ignore_errors=True)
            raise

    def room_for(self, count: int) -> None:
        """Raises CheckpointError unless the disk of OUT has room for `count` bytes."""
        free = shutil.disk_usage(str(self.partial)).free
        if free < count * 1.01:
            raise CheckpointError(f"{self.given}: {count / GIB:.1f} GiB to write, {free / GIB:.1f} GiB free there; make room or "
                                  "choose another disk")

    def finish(self) -> None:
        """Renames the complete folder to its name; if this fails, raises CheckpointError saying where the folder is."""
        try:
            if self.inside:
                self._fill()
            elif self.replace and self.out.is_dir():
                self._exchange()
            else:
                os.rename(str(self.partial), str(self.out))
        except OSError as error:
            raise CheckpointError(f"{self.given}: the finished checkpoint cannot take this name ({error.strerror}); nothing "
                                  f"is lost, it is in {self.partial}: move it yourself") from error
        try:
            self._remove_aside()
        except OSError as error:
            LOGGER.warning("%s: the earlier checkpoint cannot be removed (%s); remove it yourself", self.aside, error.strerror)

    def _fill(self) -> None:
        self._still_ours()
        old = [path for path in self.out.iterdir() if _own(path)]
        if old:
            self._remove_aside()
            self.aside.mkdir()
            for path in sorted(old, key=lambda one: one.name != MANIFEST):      # a folder without a manifest is read by nobody
                os.rename(str(path), str(self.aside / path.name))
        for path in sorted(self.partial.iterdir(), key=lambda one: one.name == MANIFEST):
            os.rename(str(path), str(self.out / path.name))
        self.partial.rmdir()

    def _exchange(self) -> None:
        self._still_ours()
        self._remove_aside()
        os.rename(str(self.out), str(self.aside))
        try:
            os.rename(str(self.partial), str(self.out))
        except BaseException:
            os.rename(str(self.aside), str(self.out))
            raise

    def _still_ours(self) -> None:
        foreign = self._foreign()
        if foreign:
            raise OSError(0, f"it now holds {few(foreign)}")

    def _remove_aside(self) -> None:
        """Removes the earlier checkpoint, and its folder only if nothing else is in it."""
        if self.replace and self.aside.is_dir():
            for path in [path for path in self.aside.iterdir() if _own(path)]:
                path.unlink()
            self.aside.rmdir()


def _own(path: Path) -> bool:
    return OWN.fullmatch(path.name) is not None and path.is_file()


def _gib(folder: Path) -> str:
    """Returns the size of a folder; another process may be removing it."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return f"{total / GIB:.1f} GiB"


def _whose(folder: Path) -> str:
    number = folder.name.rpartition("-")[2].partition(".")[0]
    # A folder with our own number is of an earlier run, in a container, where process numbers start over.
    alive = number.isdigit() and int(number) != os.getpid() and Path(f"/proc/{number}").exists()
    return f"is being written by process {number}" if alive else "was left by a conversion that was killed; remove it"
