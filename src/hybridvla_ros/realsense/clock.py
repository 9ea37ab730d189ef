"""Turns RealSense frame times into stamps of this computer's clock. No ROS, no SDK.

`global_time` and `system_time` frames carry milliseconds of the host's clock; librealsense derives the former from the
device's clock and needs some frames to converge. `hardware_clock` counts from the device's start, drifts, and wraps
(32 bits of microseconds on D400: every 71.6 minutes).
"""
from __future__ import annotations

from collections import deque
from typing import Deque, Tuple

#: Seconds over which the shortest transfer is searched for: longer gains nothing, and the clocks drift meanwhile.
WINDOW_S = 10.0
#: A host time further in the future than this is wrong, s.
FUTURE_S = 0.005
#: A hardware clock that jumps against ours by more than this has wrapped or restarted, s.
JUMP_S = 1.0


class FrameClock:
    """Clock of one camera. `corrected`: how often the frame's own time was not believed."""

    def __init__(self, max_lag_s: float) -> None:
        self._max_lag_s = max_lag_s
        self._offsets: Deque[Tuple[float, float]] = deque()
        self._last = 0
        self.corrected = 0

    def stamp_ns(self, frame_ms: float, domain: str, arrival_ns: int) -> int:
        """Computes the stamp of a frame.

        A hardware time is placed by the fastest transfer of the last seconds, so it is late by that transfer and free of
        the others' jitter. The same is done for a host time that is not believed, so a frame that a stalled bus held back stays
        old. Stamps never go back, except with a jump of the clock.

        Args:
            frame_ms: The SDK's timestamp, ms.
            domain: `global_time`, `system_time` or `hardware_clock`.
            arrival_ns: When the frame came, on this computer's clock, ns.

        Returns:
            Time on this computer's clock, ns.
        """
        arrival, time_s = arrival_ns * 1e-9, frame_ms * 1e-3
        if domain != "hardware_clock" and -FUTURE_S <= arrival - time_s <= self._max_lag_s:
            stamp = int(round(frame_ms * 1e6))
            self._offset(time_s, arrival)       # keeps the transfer time known in case the next frame is late
        else:
            self.corrected += domain != "hardware_clock"
            stamp = int(round((time_s + self._offset(time_s, arrival)) * 1e9))
        if self._last - int(JUMP_S * 1e9) < stamp <= self._last:
            stamp = self._last + 1
        self._last = stamp
        return stamp

    def _offset(self, time_s: float, arrival: float) -> float:
        offset = arrival - time_s
        if self._offsets and abs(offset - self._offsets[-1][1]) > JUMP_S:
            self._offsets.clear()
        self._offsets.append((arrival, offset))
        while arrival - self._offsets[0][0] > WINDOW_S or arrival < self._offsets[0][0]:
            self._offsets.popleft()
        return min(offset for _, offset in self._offsets)
