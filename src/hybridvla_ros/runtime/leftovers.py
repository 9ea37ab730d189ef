"""Finds and ends processes that one of our commands has started, directly or through roslaunch.

roslaunch gives every node its own session, so that a signal to its group does not reach the nodes: a roslaunch that must be
killed, or that dies, leaves its nodes running.
"""
from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Dict, Iterable, Set

POLL_S = 0.05


def _parents() -> Dict[int, int]:
    """Returns the parent of every process that can be read."""
    found: Dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stream:
                    state, parent = stream.read().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    found[int(entry)] = int(parent)
    return found


def descendants(pid: int) -> Set[int]:
    """Returns the processes that `pid` has started, and their descendants."""
    parents, new = _parents(), {pid}
    found: Set[int] = set()
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def marked(variable: str, value: str) -> Set[int]:
    """Returns the processes, except this one, that were started with this environment variable."""
    wanted = f"{variable}={value}".encode()
    found: Set[int] = set()
    for pid in _parents():
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/environ", "rb") as stream:
                if pid != os.getpid() and wanted in stream.read().split(b"\0"):
                    found.add(pid)
    return found


def end_all(pids: Iterable[int], patience_s: float = 5.0) -> Set[int]:
    """Ends processes: SIGTERM, then SIGKILL for those left after `patience_s`. Returns the processes that had to be ended."""
    left = set(pids) & set(_parents())
    ended = set(left)
    for number, wait in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s)):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline = time.monotonic() + wait
        while left and time.monotonic() < deadline:
            time.sleep(POLL_S)
            left &= set(_parents())
    return ended


def leave_on_signals() -> None:
    """Makes SIGTERM and SIGHUP leave this program as `sys.exit` does, so that it ends what it has started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
