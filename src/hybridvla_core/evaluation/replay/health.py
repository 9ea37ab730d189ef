"""Is a recorded stream complete? Rates, gaps and stamps, each fault with its time in the recording."""
from __future__ import annotations

from array import array
from typing import Any, Dict, Iterable, List, Optional, Sequence

import numpy as np

from hybridvla_core.evaluation.replay.settings import StreamConfig

MOST_EVENTS = 12     # most events kept of one kind; the rest are only counted


class StreamHealth:
    """One camera or joint stream, which is fed every message. Times are in s since the recording's begin, stamps in s."""

    def __init__(self, name: str, max_gap: Optional[float], min_rate: Optional[float], settings: StreamConfig) -> None:
        self.name, self._max_gap, self._min_rate, self._settings = name, max_gap, min_rate, settings
        self.count = 0
        self._intervals = array("f")
        self._first = self._last = self._stamp = 0.0
        self.events: List[Dict[str, Any]] = []
        self.more = 0

    def add(self, time: float, stamp: float) -> None:
        if self.count:
            step, stamp_step = time - self._last, stamp - self._stamp
            self._intervals.append(step)
            if self._max_gap is not None and step > self._max_gap:
                self.event("gap", self._last, f"{self.name}: nothing from {self._last:.2f} s to {time:.2f} s")
            if stamp_step < 0.0:
                self.event("stamps", time, f"{self.name}: its stamps go back by {-stamp_step:.3f} s at {time:.2f} s")
            elif self._settings.max_stamp_step_s is not None and abs(stamp_step - step) > self._settings.max_stamp_step_s:
                self.event("stamps", time, f"{self.name}: its stamps jump by {stamp_step - step:+.3f} s against the clock of "
                                           f"the recording at {time:.2f} s")
        else:
            self._first = time
        self.count, self._last, self._stamp = self.count + 1, time, stamp

    def finish(self, duration: float) -> None:
        """Ends the recording after `duration` s."""
        if not self.count:
            self.event("missing", 0.0, f"{self.name}: not one message")
            return
        limit = self._max_gap
        if limit is not None and self._first > limit:
            self.event("gap", 0.0, f"{self.name}: nothing before {self._first:.2f} s")
        if limit is not None and duration - self._last > limit:
            self.event("died", self._last, f"{self.name}: dead from {self._last:.2f} s to the end at {duration:.2f} s")
        if self._min_rate is not None and self.count > 1 and self.rate < self._min_rate:
            self.event("rate", 0.0, f"{self.name}: {self.rate:.1f} Hz; {self._min_rate:g} Hz are asked for")

    def event(self, kind: str, time: float, text: str) -> None:
        if sum(event["kind"] == kind for event in self.events) >= MOST_EVENTS:
            self.more += 1
            return
        self.events.append({"kind": kind, "time_s": round(time, 3), "text": text})

    @property
    def rate(self) -> float:
        """Rate of the messages while they came, Hz."""
        return (self.count - 1) / max(self._last - self._first, 1e-9) if self.count > 1 else 0.0

    @property
    def usual_interval(self) -> float:
        """Median time between two messages, s; 0 before there are two."""
        return float(np.median(self._steps()))

    def _steps(self) -> np.ndarray:
        return np.array(self._intervals, dtype=np.float32) if len(self._intervals) else np.zeros(1, np.float32)

    def summary(self) -> Dict[str, Any]:
        return {"messages": self.count, "rate_hz": round(self.rate, 2), "median_interval_s": round(self.usual_interval, 4),
                "longest_gap_s": round(float(self._steps().max()), 3), "events": self.events, "further_events": self.more}


class NameWatch:
    """Watches the joint names of one arm: says when the names it needs stop coming and others come instead."""

    def __init__(self, arm: str, wanted: Iterable[str], health: StreamHealth) -> None:
        self._arm, self._wanted, self._health = arm, frozenset(wanted), health
        self._last_good: Optional[float] = None
        self._other: Optional[tuple] = None
        self._reported = False
        self._ordinary: set = set()

    def add(self, time: float, names: Sequence[str]) -> bool:
        """Takes a message's names; returns whether they include all of the arm's joints."""
        found = frozenset(names)
        if self._wanted <= found:
            if self._other is not None:
                self._ordinary.add(frozenset(self._other[1]))
            self._last_good, self._other, self._reported = time, None, False
            return True
        if found in self._ordinary:
            return False     # for instance the gripper's own message, which comes between the arm's
        if self._other is None:
            self._other = (time, tuple(names))
        elif not self._reported and time - self._other[0] > 0.5:
            self._reported = True
            since = "from the begin" if self._last_good is None else f"at {self._other[0]:.2f} s"
            missing = ", ".join(sorted(self._wanted - frozenset(self._other[1]))[:3])
            self._health.event("names", self._other[0], f"arm {self._arm}: its joint names change {since}: {missing} "
                               f"no longer among {', '.join(self._other[1][:3])}, ...")
        return False
