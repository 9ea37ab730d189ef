"""The commanded pose does not run away from an arm that cannot follow.

Compared are the measured pose and the one an unhindered arm would have by now: the command behind the controller's
first-order lag. Their distance times the stiffness is the push that something in the way feels.
"""
from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from hybridvla_core.geometry import poses, rotations
from hybridvla_core.robots.arm import ArmConfig


class Leash:
    """Where arms that nothing hinders would be by now, and how far the measured ones may be from there.

    Attributes:
        distance: (A,) the bound, m.
        angle: (A,) the bound of the rotation, rad.
    """

    def __init__(self, arms: Sequence[ArmConfig], dt: float) -> None:
        self.distance = np.array([arm.leash.distance_m for arm in arms])
        self.angle = np.array([arm.leash.rotation_rad for arm in arms])
        self._share = np.array([1.0 - np.exp(-dt / arm.leash.lag_s) if arm.leash.lag_s > 0.0 else 1.0 for arm in arms])

    def restart(self, positions: np.ndarray, matrices: np.ndarray) -> None:
        """The arms rest at positions (A, 3) m and matrices (A, 3, 3)."""
        self._positions, self._matrices = positions.copy(), matrices.copy()

    def advance(self, positions: np.ndarray, matrices: np.ndarray) -> None:
        """One tick of the lag behind the command."""
        self._positions += self._share[:, None] * (positions - self._positions)
        for index, share in enumerate(self._share):
            turn = rotations.log(matrices[index] @ self._matrices[index].T)
            self._matrices[index] = rotations.exp(share * turn) @ self._matrices[index]

    def margins(self, positions: np.ndarray, matrices: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Room (A,) m and (A,) rad before the measured positions (A, 3) and matrices (A, 3, 3) reach the bound."""
        away = np.sqrt(((positions - self._positions) ** 2).sum(axis=1))
        turned = np.array([poses.turn(a, b) for a, b in zip(matrices, self._matrices)])
        return self.distance - away, self.angle - turned

    def pulls_away(self, index: int, commanded: np.ndarray, measured: np.ndarray, towards: np.ndarray) -> bool:
        """True when moving from `commanded` along `towards` (3,) increases the distance to `measured`."""
        return float((commanded - measured) @ towards) >= 0.0
