"""A fixed rate on monotonic time that never catches up, and the scheduler it runs under."""
from __future__ import annotations

import gc
import os
import sys
import time
from typing import Dict, List

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.waiting import Bell

MIN_SPACING = 0.98
EARLY_SPACING = 0.5      # spacing of a tick that is brought forward
BREATH = 0.25            # least share of a tick's own time in which listening threads get lock and interpreter
SWITCH_S = 0.0005        # another thread of ours gives up the interpreter after this long
PRIORITY = 20
SCHEDULERS = ("fifo", "ordinary")
GAPS_MS = (6.0, 7.5, 10.0, 20.0, 50.0, 100.0)


class Pace:
    """`wait()` once per tick. Gaps are times between the starts of two ticks, s."""

    def __init__(self, hz: float) -> None:
        self.period = 1.0 / hz
        self.ticks = self.overruns = self.early = 0
        self.longest_gap = 0.0
        self._bell, self._was_early = Bell(), False
        self.gaps: List[int] = [0] * (len(GAPS_MS) + 1)
        self._began = self._before = self._following = time.monotonic()

    def begin(self) -> None:
        """Starts the pace now; what was collected so far stays out of the garbage collector's way."""
        sys.setswitchinterval(SWITCH_S)
        gc.collect()
        gc.freeze()
        self._began = self._before = self._following = time.monotonic()

    def tick(self) -> float:
        """Returns the monotonic time of the tick that begins now."""
        now = time.monotonic()
        if self.ticks:
            gap = now - self._before
            self.longest_gap = max(self.longest_gap, gap)
            self.gaps[sum(gap * 1e3 > bound for bound in GAPS_MS)] += 1
        self._before = now
        self.ticks += 1
        # Never sooner than nearly a period after this tick: a late tick must not speed up the next step.
        self._following = max(self._following + self.period, now + MIN_SPACING * self.period)
        return now

    def hurry(self) -> None:
        """Called from another thread: brings the next tick forward, to half a period after the last one at the soonest, and the
        following ticks with it. Never twice in a row. Only for a trajectory at rest: whoever holds the last command sees the
        same motion as without it, begun a little earlier."""
        self._bell.ring()

    def calm(self) -> None:
        """Called before a tick, under the lock under which `hurry` is called: this tick does what `hurry` asked for."""
        self._bell.silence()

    def wait(self) -> None:
        """Waits until the next tick is due; missed ticks are never made up."""
        now = time.monotonic()
        # Otherwise ticks that fill their period would take the lock again at once, and no arm's state would come through. A tick
        # that was held up for long is no reason for a longer silence.
        soonest = now + min(BREATH * (now - self._before), self.period)
        late = self._following <= now
        self.overruns += self._following <= soonest      # the rate falls, even if only by this pause
        self._following = max(self._following, soonest)
        early = self._bell.wait(self._following - now) and not late and not self._was_early
        if early:
            soonest = max(soonest, self._before + EARLY_SPACING * self.period)
            self._following = min(self._following, max(time.monotonic(), soonest))
            self.early += 1
        self._was_early = early
        left = self._following - time.monotonic()
        if left > 0.0:
            time.sleep(left)

    def report(self) -> Dict[str, object]:
        elapsed = max(1e-9, self._before - self._began)
        bounds = [f"gaps_up_to_{bound:g}_ms" for bound in GAPS_MS] + ["gaps_longer"]
        return {"ticks": self.ticks, "overruns": self.overruns, "early": self.early,
                "rate_hz": round((self.ticks - 1) / elapsed, 2), "longest_gap_ms": round(self.longest_gap * 1e3, 2),
                **dict(zip(bounds, self.gaps))}


def use_scheduler(wanted: str) -> str:
    """Requests a scheduler for the calling thread and returns what we got. Raises HybridVLAError for an unknown one."""
    if wanted not in SCHEDULERS:
        raise HybridVLAError(f"scheduler is {wanted!r}; use one of {', '.join(SCHEDULERS)}")
    if wanted == "ordinary":
        return "ordinary scheduler, as asked for"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except (PermissionError, OSError) as error:
        return f"ordinary scheduler (SCHED_FIFO is not permitted: {error.strerror}; see rtprio in limits.conf)"
    return f"SCHED_FIFO {PRIORITY}"
