"""A streamed gripper opening keeps its range, speed and acceleration on every step, and stops exactly where requested.

Grippers that only receive a target (binary ones) move at their own speed; for them only the range applies.
"""
from __future__ import annotations

import math
from typing import Optional

from hybridvla_core.robots.arm import GripperConfig


class GripperRamp:
    """Moves an opening from 0 closed to 1 open, one step per tick."""

    def __init__(self, config: GripperConfig, dt: float) -> None:
        self._fastest = config.speed_m_s / config.max_width_m * dt
        self._change = config.acceleration_m_s2 / config.max_width_m * dt * dt
        self.opening: Optional[float] = None
        self._step = 0.0

    @property
    def moving(self) -> bool:
        return self._step != 0.0

    def restart(self, opening: Optional[float]) -> None:
        """Begins at rest at the opening; None: unknown, so the first requested opening goes out as it is."""
        self.opening = None if opening is None else min(max(opening, 0.0), 1.0)
        self._step = 0.0

    def advance(self, wanted: Optional[float]) -> Optional[float]:
        """Moves one tick towards `wanted`, or to rest if there is none.

        Bounds in discrete time: a step v and the steps after it, each smaller by the change c, cover at most
        (v + c / 2)^2 / (2 c); v is the largest step for which that fits into the remaining distance.

        Args:
            wanted: Opening, 0 closed to 1 open.

            Returns:
                The next opening; None before the first wanted opening.
        """
        if self.opening is None:
            if wanted is not None:
                self.restart(wanted)
            return self.opening
        left = 0.0 if wanted is None else min(max(wanted, 0.0), 1.0) - self.opening
        c = self._change
        if wanted is not None and abs(left) <= c and abs(left - self._step) <= c:
            self.opening, self._step = self.opening + left, left        # landing; the next step is 0
            return self.opening
        step = math.copysign(min(self._fastest, max(0.0, math.sqrt(2.0 * c * abs(left)) - 0.5 * c)), left)
        step = min(max(step, self._step - c), self._step + c)
        self.opening, self._step = min(max(self.opening + step, 0.0), 1.0), step
        return self.opening
