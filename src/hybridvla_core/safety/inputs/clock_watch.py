"""A watch on ROS time against monotonic time: stamps compared with a clock that jumps or stands still mean nothing."""
from __future__ import annotations

from typing import Optional

STEP_S = 0.2          # a wall clock that gains or loses more than this between two ticks was set
STILL_S = 0.5         # simulated time that stands still for this long has stopped
AHEAD_S = 2.0         # simulated time that advances more than this between two ticks was set


class ClockWatch:
    """Watches ROS time. simulated: time comes from /clock, runs at its own pace, and may stop; otherwise it is the computer's."""

    def __init__(self, simulated: bool = False) -> None:
        self._simulated = simulated
        self._last: Optional[float] = None
        self._at = self._changed_at = 0.0

    def look(self, clock: float, now: float) -> str:
        """Returns what is wrong with ROS time `clock` at monotonic `now`, s, or an empty string."""
        last, before = self._last, self._at
        self._last, self._at = clock, now
        if last is None:
            self._changed_at = now
            return "/clock has not begun" if self._simulated and clock == 0.0 else ""
        if clock != last:
            self._changed_at = now
        if not self._simulated:
            step = (clock - last) - (now - before)
            return f"the clock was set {'ahead' if step > 0 else 'back'} by {abs(step):.1f} s" if abs(step) > STEP_S else ""
        if clock < last:
            return f"/clock went back by {last - clock:.1f} s"
        if clock - last > AHEAD_S:
            return f"/clock went ahead by {clock - last:.1f} s"
        if now - self._changed_at > STILL_S:
            return f"/clock has stood still for {now - self._changed_at:.1f} s"
        return "/clock has not begun" if clock == 0.0 else ""
