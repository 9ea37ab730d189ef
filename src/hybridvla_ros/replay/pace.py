"""When an observation of a recording is due: at a rate, by the stamps of the images, keeping in time with the camera."""
from __future__ import annotations

import math
from typing import Optional

#: Of how far images lie from where they were due, the next ones are due so much nearer. A grid that does not give way slips past
#: an image each time a camera has got ahead of it by one: 30.01 Hz against 30 Hz in less than two minutes.
GIVES_WAY = 0.2
BACK_S = 0.5            # stamps that go back by more are of a camera, or a clock, that began anew


class Pace:
    """Takes the images nearest to each time that is due.

    Args:
        period: s between two observations; 0: each new set of images; None: none at all.
        between: s between two sets of images, as they usually come.

    Attributes:
        due_at: Time of recording at which the next ones are due, s.
    """

    def __init__(self, period: Optional[float], between: float) -> None:
        self._period = period
        self._slack = min(between, period or 0.0) / 2.0
        self._due = self.due_at = self._last = -math.inf

    def looks(self, now: float) -> bool:
        """Whether images may be taken, or their lack be due, at a time of recording, s."""
        return self._period is not None and now >= self.due_at - 2.0 * self._slack

    def takes(self, stamp: float) -> bool:
        """Whether images with a stamp, s, are what is due."""
        if stamp == self._last:
            return False
        return stamp >= self._due - self._slack or stamp < self._last - BACK_S

    def took(self, now: float, stamp: float) -> None:
        """The images with a stamp were taken at a time of recording, both s."""
        self._last = stamp
        if self._period:
            off = stamp - self._due
            self._due = stamp + self._period if abs(off) > self._period / 2.0 else self._due + self._period + GIVES_WAY * off
            self.due_at = now + self._due - stamp

    def missed(self, now: float, wait: float) -> None:
        """There was nothing to take at a time of recording, and it is of no use to look again before `wait`, s, have gone by."""
        self.due_at = max(self.due_at + (self._period or 0.0), now + wait)
