"""Health of one camera's stream: rate, lost frames, stamps against the clock. No ROS; the bag tools use it too."""
from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass
from typing import Deque, Dict, Optional

#: Number of intervals and lags remembered; half a second at 30 Hz.
WINDOW = 15
#: A pause longer than this many usual intervals counts as lost frames.
LATE = 1.5
#: A stamp this far ahead of the clock cannot be right, s; well synchronised computers differ by less.
AHEAD_S = 0.02
#: A pause longer than this counts as a separate outage, s.
OUTAGE_S = 1.0
#: A larger jump of the sequence number is a restarted publisher, not loss.
MAX_SEQUENCE_JUMP = 1000


@dataclass
class CameraHealth:
    """Counters of one view since the start.

    Attributes:
        received: Frames received.
        dropped: Frames missing between two stamps at the usual rate.
        lost: Messages missing between two sequence numbers: lost by the network or by this node.
        duplicates: Stamps sent twice.
        went_back: Stamps earlier than the one before.
        unstamped: Frames with stamp zero.
        outages: Pauses longer than OUTAGE_S.
        longest_gap_s: Longest gap between two stamps, s.
    """

    received: int = 0
    dropped: int = 0
    lost: int = 0
    duplicates: int = 0
    went_back: int = 0
    unstamped: int = 0
    outages: int = 0
    longest_gap_s: float = 0.0

    def __post_init__(self) -> None:
        self._intervals: Deque[float] = deque(maxlen=WINDOW)
        self._lags: Deque[float] = deque(maxlen=WINDOW)
        self._stamp_ns = self._sequence = self._arrival_ns = 0

    def add(self, stamp_ns: int, sequence: Optional[int] = None, arrival_ns: Optional[int] = None) -> None:
        """Takes one frame: the driver's stamp, the publisher's sequence number, and its arrival on the clock of `now`."""
        self.received += 1
        self.unstamped += stamp_ns == 0
        if sequence is not None:
            jump = sequence - self._sequence
            if self.received > 1 and 1 < jump < MAX_SEQUENCE_JUMP:
                self.lost += jump - 1
            self._sequence = sequence
        if self.received > 1 and stamp_ns:
            self._interval((stamp_ns - self._stamp_ns) * 1e-9)
        if arrival_ns is not None:
            self._lags.append((arrival_ns - stamp_ns) * 1e-9)
            self._arrival_ns = arrival_ns
        self._stamp_ns = stamp_ns

    def _interval(self, seconds: float) -> None:
        if seconds < 0.0:
            self.went_back += 1
            self._intervals.clear()
            return
        if seconds == 0.0:
            self.duplicates += 1
            return
        self.longest_gap_s = max(self.longest_gap_s, seconds)
        usual = self.period_s
        if usual and seconds > LATE * usual:
            self.dropped += int(round(seconds / usual)) - 1
        self.outages += seconds > OUTAGE_S
        # A pause is not a rate: it would make the next pause look usual.
        if not usual or seconds < 4.0 * usual or len(self._intervals) < 3:
            self._intervals.append(seconds)

    @property
    def period_s(self) -> float:
        """Returns the usual time between two frames, s; 0 before it is known."""
        return statistics.median(self._intervals) if len(self._intervals) >= 3 else 0.0

    @property
    def lag_s(self) -> float:
        """Returns arrival minus stamp, s, as the median of the last frames; NaN where arrivals are not known."""
        return statistics.median(self._lags) if self._lags else float("nan")

    def silent_s(self, now: float) -> float:
        """Returns seconds since the last arrival on the clock of `now`; infinite where arrivals are not known."""
        return now - self._arrival_ns * 1e-9 if self._arrival_ns else float("inf")

    def values(self) -> Dict[str, float]:
        """Returns the numbers for diagnostics and reports."""
        rate = 1.0 / self.period_s if self.period_s else 0.0
        return {"received": self.received, "rate_hz": round(rate, 2), "dropped": self.dropped, "lost": self.lost,
                "duplicates": self.duplicates, "went_back": self.went_back, "unstamped": self.unstamped,
                "outages": self.outages, "longest_gap_s": round(self.longest_gap_s, 3), "lag_s": round(self.lag_s, 4)}
