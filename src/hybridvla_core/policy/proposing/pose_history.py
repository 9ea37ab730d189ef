"""Short histories of arm poses, interpolated at an observation's stamp."""
from __future__ import annotations

import bisect
import math
from collections import deque
from typing import Deque, Tuple

from hybridvla_core.contracts import Pose
from hybridvla_core.errors import ObservationError
from hybridvla_core.geometry.poses import between

#: Pose, gripper opening (0 closed to 1 open, NaN if unknown) and the stamp at which they held, s.
Held = Tuple[Pose, float, float]


class PoseHistory:
    """The poses and gripper openings of one arm over the last `length_s` seconds of the stamps' clock."""

    def __init__(self, name: str, length_s: float = 5.0) -> None:
        self._name = name
        self._length_s = length_s
        self._entries: Deque[Tuple[float, Pose, float]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def newest(self) -> float:
        """The stamp of the last reading, s; -inf without one."""
        return self._entries[-1][0] if self._entries else -math.inf

    @property
    def opening(self) -> float:
        """The opening of the last reading, 0 closed to 1 open; NaN without one."""
        return self._entries[-1][2] if self._entries else math.nan

    def add(self, stamp: float, pose: Pose, opening: float) -> None:
        """Appends one reading. A stamp before the last one means that the clock was set back, and drops the past.

        Of several readings with one stamp only the last is kept: a driver without stamps would fill the memory.
        """
        if self._entries and stamp < self._entries[-1][0]:
            self._entries.clear()
        elif self._entries and stamp == self._entries[-1][0]:
            self._entries.pop()
        self._entries.append((stamp, pose, opening))
        while stamp - self._entries[0][0] > self._length_s:
            self._entries.popleft()

    def at(self, stamp: float, max_gap_s: float) -> Held:
        """Interpolates the readings. Beyond either end it uses the nearest reading if that is within `max_gap_s`.

        Args:
            stamp: The wanted time, s.
            max_gap_s: Largest distance in time to a reading, s.

        Returns:
            Pose, opening (0 closed to 1 open) and the stamp at which they held, s.

        Raises:
            ObservationError: No reading is close enough.
        """
        if not self._entries:
            raise ObservationError(f"arm {self._name}: no pose has arrived; check its joint and robot state topics")
        entries = list(self._entries)
        after = bisect.bisect_left([entry[0] for entry in entries], stamp)
        if 0 < after < len(entries):
            (t0, pose0, opening0), (t1, pose1, opening1) = entries[after - 1], entries[after]
            if t1 - t0 <= 2.0 * max_gap_s:
                share = (stamp - t0) / (t1 - t0)
                return between(pose0, pose1, share), _blend(opening0, opening1, share), stamp
        nearest = min(entries[max(after - 1, 0):after + 1], key=lambda entry: abs(entry[0] - stamp))
        if abs(nearest[0] - stamp) > max_gap_s:
            raise ObservationError(f"arm {self._name}: the nearest pose is {abs(nearest[0] - stamp):.2f} s away from the "
                                   f"images (limit {max_gap_s} s); check that the stamps share one clock")
        return nearest[1], nearest[2], nearest[0]


def _blend(first: float, second: float, share: float) -> float:
    if math.isnan(first) or math.isnan(second):
        return second if math.isnan(first) else first
    return (1.0 - share) * first + share * second
