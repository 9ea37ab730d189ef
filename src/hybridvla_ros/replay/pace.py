"""When an observation of a recording is due: at a rate, by the stamps of the images, keeping in time with the camera."""
from __future__ import annotations

import math
from typing import Optional

#: Share of the offset between images and their due time by which the next due time shifts. A fixed grid would slip past an
#: image each time a camera has got one image ahead of it: 30.01 Hz against 30 Hz in less than two minutes.
GIVES_WAY = 0.2
BACK_S = 0.5            # stamps that go back by more come from a camera, or a clock, that restarted


class Pace:
    """Chooses the images nearest to each due time.

    Args:
        period: Time between two observations, s; 0: each new set of images; None: no observations.
        between: Usual time between two sets of images, s.

    Attributes:
        due_at: Time of recording at which the next images are due, s.
    """

    def __init__(self, period: Optional[float], between: float) -> None:
        self._period = period
        self._slack = min(between, period or 0.0) / 2.0
        self._due = self.due_at = self._last = -math.inf

    def looks(self, now: float) -> bool:
        """Tells whether, at a time of recording, s, images may be taken or count as missing."""
        return self._period is not None and now >= self.due_at - 2.0 * self._slack

    def takes(self, stamp: float) -> bool:
        """Tells whether images with a stamp, s, are those that are due."""
        if stamp == self._last:
            return False
        return stamp >= self._due - self._slack or stamp < self._last - BACK_S

    def took(self, now: float, stamp: float) -> None:
        """Notes that the images with a stamp were taken at a time of recording, both s."""
        self._last = stamp
        if self._period:
            off = stamp - self._due
            self._due = stamp + self._period if abs(off) > self._period / 2.0 else self._due + self._period + GIVES_WAY * off
            self.due_at = now + self._due - stamp

    def missed(self, now: float, wait: float) -> None:
        """Notes that there was nothing to take at a time of recording, and that looking again before `wait`, s, is useless."""
        self.due_at = max(self.due_at + (self._period or 0.0), now + wait)
