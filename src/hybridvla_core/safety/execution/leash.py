"""Keeps the commanded pose from running away from an arm that cannot follow.

The leash compares the measured pose with the pose that an unhindered arm would have by now: the command after the
controller's first-order lag. Their distance times the stiffness is the push on something in the way.
"""
from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from hybridvla_core.geometry import poses, rotations
from hybridvla_core.robots.config import RobotConfig


def lags_s(config: RobotConfig) -> Sequence[float]:
    """Returns the time constant with which each unhindered arm follows its command, s.

    It belongs to the controller behind the door in use: `leash.lag_s`. An FR3 has two doors in one file. Behind its joint door,
    each target is reached `franka.trajectory_ahead_s` after it was sent.
    """
    if config.franka is not None and config.door == "joint":
        return [config.franka.trajectory_ahead_s] * len(config.arms)
    return [arm.leash.lag_s for arm in config.arms]


class Leash:
    """Tracks where unhindered arms would be by now, and how far the measured arms may be from there.

    Attributes:
        distance: (A,) bounds on the distance, m.
        angle: (A,) bounds on the rotation, rad.
    """

    def __init__(self, config: RobotConfig) -> None:
        self.distance = np.array([arm.leash.distance_m for arm in config.arms])
        self.angle = np.array([arm.leash.rotation_rad for arm in config.arms])
        self._share = np.array([1.0 - np.exp(-config.dt / lag) if lag > 0.0 else 1.0 for lag in lags_s(config)])

    def restart(self, positions: np.ndarray, matrices: np.ndarray) -> None:
        """Starts over with the arms at rest at positions (A, 3) m and matrices (A, 3, 3)."""
        self._positions, self._matrices = positions.copy(), matrices.copy()

    def advance(self, positions: np.ndarray, matrices: np.ndarray) -> None:
        """Advances the lagged command by one tick."""
        self._positions += self._share[:, None] * (positions - self._positions)
        for index, share in enumerate(self._share):
            turn = rotations.log(matrices[index] @ self._matrices[index].T)
            self._matrices[index] = rotations.exp(share * turn) @ self._matrices[index]

    def margins(self, positions: np.ndarray, matrices: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Returns room (A,) m and (A,) rad before the measured positions (A, 3) and matrices (A, 3, 3) reach the bound."""
        away = np.sqrt(((positions - self._positions) ** 2).sum(axis=1))
        turned = np.array([poses.turn(a, b) for a, b in zip(matrices, self._matrices)])
        return self.distance - away, self.angle - turned

    def pulls_away(self, index: int, commanded: np.ndarray, measured: np.ndarray, towards: np.ndarray) -> bool:
        """Returns whether moving from `commanded` along `towards` (3,) increases the distance to `measured`."""
        return float((commanded - measured) @ towards) >= 0.0
