"""Joint states that are identical to the last bit while the arm is commanded to move: nobody reads the arm any more.

The driver's loop publishes what it heard last, at 200 Hz and with the present time, even when the CAN bus or the arm's power
is gone. While no motion is commanded, that cannot be told from an arm at rest.
"""
from __future__ import annotations

import math
from typing import Optional

import numpy as np

MOVED_RAD = 0.02         # an arm follows a command that has moved this far
FROZEN_S = 0.3           # within this time, an arm that follows has moved by more than the driver's 0.001 degrees
GAP_S = 0.1              # the filter judges states that fell silent

SAYS = ("its joint states stand still while it is commanded: the CAN bus or the arm's power is gone; check cable, CAN interface "
        "(ip -details link show) and power")


class FrozenStates:
    """Check for one arm: feed it every state and every command that went out."""

    def __init__(self) -> None:
        self._positions: Optional[np.ndarray] = None
        self._from: Optional[np.ndarray] = None      # the first command since the positions changed
        self._moved, self._since, self._heard = False, math.inf, -math.inf

    def begin(self) -> None:
        """Forgets the commands: a stream begins or ends, or the arm has moved."""
        self._from, self._moved, self._since = None, False, math.inf

    def commanded(self, joints: np.ndarray) -> None:
        """Notes a command that went out. joints: (dof,) rad."""
        if self._from is None:
            self._from = np.array(joints)
        self._moved = self._moved or bool(np.abs(joints - self._from).max() > MOVED_RAD)

    def measured(self, positions: np.ndarray, now: float) -> str:
        """Checks a state.

        Args:
            positions: (dof,) rad, as the driver sent them.
            now: Monotonic time, s.

        Returns:
            A sentence where nobody reads the arm any more, otherwise an empty string.
        """
        if self._positions is None or now - self._heard > GAP_S or not np.array_equal(positions, self._positions):
            self._positions = np.array(positions)
            self.begin()
        self._heard = now
        if self._moved:
            self._since = min(self._since, now)
        return SAYS if now - self._since >= FROZEN_S else ""
