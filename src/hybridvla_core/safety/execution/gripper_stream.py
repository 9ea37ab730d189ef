"""A streamed gripper opening keeps its range, its speed and its acceleration on every step, and stops on the spot asked.

Grippers that are told only where to go (binary ones) have their own speed; for them the range is what remains.
"""
from __future__ import annotations

import math
from typing import Optional

from hybridvla_core.robots.arm import GripperConfig


class GripperRamp:
    """Openings run from 0 closed to 1 open, a step a tick."""

    def __init__(self, config: GripperConfig, dt: float) -> None:
        self._fastest = config.speed_m_s / config.max_width_m * dt
        self._change = config.acceleration_m_s2 / config.max_width_m * dt * dt
        self.opening: Optional[float] = None
        self._step = 0.0

    @property
    def moving(self) -> bool:
        return self._step != 0.0

    def restart(self, opening: Optional[float]) -> None:
        """At rest at the opening; None: unknown, so the first one asked for goes out as it is."""
        self.opening = None if opening is None else min(max(opening, 0.0), 1.0)
        self._step = 0.0

    def advance(self, wanted: Optional[float]) -> Optional[float]:
        """Moves one tick towards `wanted`, or to rest when there is none.

        Bounds in discrete time: a step v and those after it, each smaller by the change c, cover at most
        (v + c / 2)^2 / (2 c); v is the largest for which that fits into what is left.

        Args:
            wanted: Opening, 0 closed to 1 open.

        Returns:
            The next opening; None before the first one that was wanted.
        """
        if self.opening is None:
            if wanted is not None:
                self.restart(wanted)
            return self.opening
        left = 0.0 if wanted is None else min(max(wanted, 0.0), 1.0) - self.opening
        c = self._change
        if wanted is not None and abs(left) <= c and abs(left - self._step) <= c:
            self.opening, self._step = self.opening + left, left        # landing; the next step is none
            return self.opening
        step = math.copysign(min(self._fastest, max(0.0, math.sqrt(2.0 * c * abs(left)) - 0.5 * c)), left)
        step = min(max(step, self._step - c), self._step + c)
        self.opening, self._step = min(max(self.opening + step, 0.0), 1.0), step
        return self.opening
