"""Whether this computer is overloaded: how long the threads of this process were ready but had no processor."""
from __future__ import annotations

import contextlib
import os
import time
from typing import Callable, Dict

#: Waiting for more than this share of the wall time is overload. Work shorter than LEAST_S is not judged.
SHARE, LEAST_S = 0.4, 0.1


def waited_s() -> Dict[str, float]:
    """Reads how long each thread of this process was ready and waited for a processor.

    Returns:
        Time in s by thread id; empty where the kernel does not count it.
    """
    found: Dict[str, float] = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError, ValueError, IndexError):     # a thread may end between listing and reading
                with open(f"/proc/self/task/{thread}/schedstat", encoding="ascii") as stream:
                    found[thread] = int(stream.read().split()[1]) * 1e-9
    return found


class Overload:
    """Judges pieces of work, such as a prediction: `begin` before it, `end` after it. `problem` is the last one's sentence."""

    def __init__(self, waited: Callable[[], Dict[str, float]] = waited_s, clock: Callable[[], float] = time.monotonic) -> None:
        self._waited, self._clock = waited, clock
        self._before: Dict[str, float] = {}
        self._began = clock()
        self.problem = ""

    def begin(self) -> None:
        """Notes the present values of the counters."""
        self._began, self._before = self._clock(), self._waited()

    def now(self) -> str:
        """Returns a sentence when other work keeps the work under way waiting, or an empty string."""
        wall = self._clock() - self._began
        if wall < LEAST_S:
            return ""
        waited = max((seconds - self._before.get(thread, 0.0) for thread, seconds in self._waited().items()), default=0.0)
        if waited < SHARE * wall:
            return ""
        return (f"this computer is overloaded: of {wall:.1f} s a thread of the policy waited {waited:.1f} s for a processor; end "
                "other work on it, or lower threads in the policy configuration")

    def end(self) -> None:
        """Judges the work that was begun."""
        self.problem = self.now()
