"""One run at a time in a work folder: two would remove each other's half-written state."""
from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Iterator

from hybridvla_core.errors import HybridVLAError

#: The lock file in a work folder is called RUN.lock.
RUN = "run"


@contextlib.contextmanager
def only_run(work: Path) -> Iterator[None]:
    """Keeps other runs out of a work folder during the block; of several processes of a run, the first one calls it.

    Args:
        work: Work folder, which is made if it does not exist; its lock file stays in it.

    Yields:
        None.

    Raises:
        HybridVLAError: Another run is in the folder, or may be: without locks, one on another computer cannot be seen.
    """
    from hybridvla_ros.recording.locks import Busy, OnlyUser

    work.mkdir(parents=True, exist_ok=True)
    try:
        lock = OnlyUser(work / RUN)
    except Busy as error:
        raise HybridVLAError(f"{work}: another run is in it ({error}); wait for its end, or give another --work folder") from None
    try:
        yield
    finally:
        lock.release()
