"""The folder that a conversion makes: whole when it has its name, and never deleted once it is whole."""
from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List

from hybridvla_core.checkpoints.manifest import MANIFEST
from hybridvla_core.errors import CheckpointError, few

GIB = 1 << 30
PARTIAL = "partial-"
#: What a file system keeps in its own root.
OF_THE_DISK = ("lost+found", ".Trash-0", "$RECYCLE.BIN", "System Volume Information")


class Target:
    """OUT, and the folder in which it is written until it is complete, on the same disk.

    OUT that is not there appears by one rename. OUT that is there and empty stays what it is, a mount point, the end of a
    link, or `.`: it is written in a folder inside it, and the files are moved up, the manifest last.
    """

    def __init__(self, out: Path) -> None:
        """Raises CheckpointError for an OUT that is there and not empty, and for a link to nothing."""
        self.given, self.out = out, Path(os.path.abspath(out))
        if self.out.is_symlink() and not self.out.exists():
            raise CheckpointError(f"{out}: is a link to {os.readlink(self.out)}, which is not there; make that folder, or choose "
                                  "another name")
        self.inside = self.out.is_dir()
        if self.out.exists() and (not self.inside or self._foreign()):
            raise CheckpointError(f"{out}: already there; choose another name, or remove it first")
        name = f"{PARTIAL}{os.getpid()}"
        self.partial = self.out / name if self.inside else self.out.with_name(f"{self.out.name}.{name}")

    def _foreign(self) -> List[str]:
        return [path.name for path in self.out.iterdir()
                if not path.name.startswith(PARTIAL) and path.name not in OF_THE_DISK]

    def leftovers(self) -> List[str]:
        """Returns a sentence about each folder that an earlier conversion into OUT left, and how much it holds."""
        found = sorted(self.out.glob(f"{PARTIAL}*") if self.inside else self.out.parent.glob(f"{self.out.name}.{PARTIAL}*"))
        return [f"{path} ({_gib(path)}) {_whose(path)}" for path in found if path != self.partial and path.is_dir()]

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """The folder to write in; it is removed when the block does not end well, also by a signal."""
        try:
            self.partial.mkdir(parents=True)
            yield self.partial
        except BaseException:
            shutil.rmtree(str(self.partial), ignore_errors=True)
            raise

    def room_for(self, count: int) -> None:
        """Raises CheckpointError unless the disk of OUT has room for a number of bytes."""
        free = shutil.disk_usage(str(self.partial)).free
        if free < count * 1.01:
            raise CheckpointError(f"{self.given}: {count / GIB:.1f} GiB to write, {free / GIB:.1f} GiB free there; make room or "
                                  "choose another disk")

    def finish(self) -> None:
        """Gives the complete folder its name; raises CheckpointError saying where it lies when it cannot have it."""
        try:
            if not self.inside:
                os.rename(str(self.partial), str(self.out))
                return
            foreign = self._foreign()
            if foreign:
                raise OSError(0, f"it now holds {few(foreign)}")
            for path in sorted(self.partial.iterdir(), key=lambda one: one.name == MANIFEST):
                os.rename(str(path), str(self.out / path.name))
            self.partial.rmdir()
        except OSError as error:
            raise CheckpointError(f"{self.given}: the finished checkpoint cannot take this name ({error.strerror}); nothing is "
                                  f"lost, it lies in {self.partial}: move it yourself") from error


def _gib(folder: Path) -> str:
    """How much a folder holds; another process may be removing it."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return f"{total / GIB:.1f} GiB"


def _whose(folder: Path) -> str:
    number = folder.name.rpartition("-")[2]
    alive = number.isdigit() and Path(f"/proc/{number}").exists()
    return f"is being written by process {number}" if alive else "was left by a conversion that was killed; remove it"
