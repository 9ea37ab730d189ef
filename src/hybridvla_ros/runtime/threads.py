"""Threads of numeric libraries. Imports none of them: OpenMP reads these settings when it is loaded.

An idle OpenMP thread spins, to avoid the cost of waking. Beside other work, this takes the processor
from the very thread it waits for, and a prediction of 0.4 s takes 11 s.
"""
from __future__ import annotations

import os
import sys

#: Of the variables that set the number of threads, the one that both torch and OpenMP read.
COUNT = "OMP_NUM_THREADS"


def wait_quietly() -> None:
    """Makes idle OpenMP threads sleep instead of spin, unless the environment says otherwise. Call before torch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def processors() -> int:
    """Returns the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(wanted: int) -> int:
    """Sets how many threads torch uses, before or after it is imported.

    Args:
        wanted: Number of threads; 0: what OMP_NUM_THREADS says, otherwise all processors but one, which is left to the cameras,
            the filter and the driver.

    Returns:
        The number that is now set.
    """
    given = os.environ.get(COUNT, "").split(",")[0].strip()
    count = wanted or (int(given) if given.isdigit() and int(given) else max(1, processors() - 1))
    os.environ[COUNT] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    return count
