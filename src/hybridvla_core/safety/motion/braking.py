"""Braking: the trajectory that brings the arms to rest from wherever they are, stored and always ready to run."""
from __future__ import annotations

import math
from typing import Optional, Sequence

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.safety.motion.pursuit import PLAN

MOST = 0.97        # share of a joint's acceleration limit that stopping and bending may use together
LEAST = 0.3        # smallest share of the usual deceleration that planning uses


class Braking:
    """Constant deceleration of all arms on one time scale, along a path that keeps the tools on straight lines."""

    def __init__(self, arms: Sequence[ArmConfig], dt: float) -> None:
        limits = [arm.cartesian_limits for arm in arms]
        self._linear = PLAN * np.array([x.acceleration_m_s2 for x in limits]) * dt
        self._angular = PLAN * np.array([x.rotation_acceleration_rad_s2 for x in limits]) * dt
        self._joint = PLAN * np.array([arm.joint_limits.acceleration_rad_s2 for arm in arms]) * dt
        self._most = MOST / PLAN * self._joint
        self._dt = dt

    def ticks(self, twist: np.ndarray, velocity: np.ndarray, bend: Optional[np.ndarray] = None) -> int:
        """Returns the number of ticks needed to come to rest.

        Args:
            twist: (A, 6) tool twists, m/s over rad/s.
            velocity: (A, dof) joint velocities, rad/s.
            bend: (A, dof) rad/s^2; if keeping the tool's path straight brakes a joint as well, less is left for stopping.

        Returns:
            The number of ticks, at least 1.
        """
        joint = self._joint
        if bend is not None:
            with_it = np.maximum(-bend * np.sign(velocity), 0.0) * self._dt
            joint = np.maximum(np.minimum(joint, self._most - with_it), LEAST * joint)
        worst = max(float((np.sqrt((twist[:, :3] ** 2).sum(axis=1)) / self._linear).max()),
                    float((np.sqrt((twist[:, 3:] ** 2).sum(axis=1)) / self._angular).max()),
                    float((np.abs(velocity) / joint).max()))
        return max(1, math.ceil(worst - 1e-9))

    def path(self, last: np.ndarray, following: np.ndarray, bend: np.ndarray, ticks: int) -> np.ndarray:
        """Computes the path to rest, with linearly falling speed.

        Args:
            last: (A, dof) joints of the previous tick, rad.
            following: (A, dof) joints of the candidate, rad.
            bend: (A, dof) rad/s^2, joint acceleration that keeps the tool's path straight at constant speed (except for paths
                through a null space).
            ticks: Number of ticks until rest.

        Returns:
            Joints (A, ticks, dof) rad after `following`.
        """
        velocity = (following - last) / self._dt + 0.5 * self._dt * bend
        shares = 1.0 - np.arange(1, ticks + 1) / ticks
        reached = (self._dt * np.cumsum(shares))[None, :, None]
        return following[:, None, :] + velocity[:, None, :] * reached + 0.5 * bend[:, None, :] * reached ** 2
