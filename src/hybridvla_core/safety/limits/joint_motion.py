"""Joint velocities and accelerations at every step, including the FR3's position-dependent velocity bound."""
from __future__ import annotations

from functools import lru_cache
from typing import Sequence, Tuple

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.limits import PositionDependentVelocity
from hybridvla_core.safety.limits.limit import Limit, Trajectory

SLACK = 1e-4   # share of a rate limit kept free for rounding


def velocity_bounds(table: PositionDependentVelocity, joints: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Returns lower and upper velocity (..., dof) rad/s at joints (..., dof) rad; libfranka `rate_limiting.h`."""
    top, offset, gain, highest, lowest = _arrays(table)
    room_up = np.sqrt(np.maximum(0.0, gain * (highest - joints)))
    room_down = np.sqrt(np.maximum(0.0, gain * (lowest + joints)))
    upper = np.maximum(0.0, np.minimum(top, room_up - offset) - 1e-3)      # rest is always allowed
    lower = np.minimum(0.0, np.maximum(-top, offset - room_down) + 1e-3)
    return lower, upper


@lru_cache(maxsize=None)
def _arrays(table: PositionDependentVelocity) -> Tuple[np.ndarray, ...]:
    return tuple(np.array(values) for values in (table.velocity_rad_s, table.offset_rad_s, table.gain_rad_s2,
                                                 table.upper_rad, table.lower_rad))


class JointVelocityLimit(Limit):
    name, unit, positional = "joint_velocity", "rad/s", False

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self.limit = np.array([arm.joint_limits.velocity_rad_s for arm in arms])
        self.names = tuple(f"{arm.name}/joint_{joint + 1}/velocity" for arm in arms for joint in range(arm.dof))
        self._tables = [arm.joint_limits.position_dependent for arm in arms]
        self._slowest = [lowest_bound(arm) for arm in arms]

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        velocity = trajectory.joint_velocity[:, 1:]
        margin = self.limit * (1.0 - SLACK) - np.abs(velocity).max(axis=1)
        for index, table in enumerate(self._tables):
            if table is not None and np.abs(velocity[index]).max() >= self._slowest[index]:
                lower, upper = velocity_bounds(table, trajectory.joints[index, 1:-1])
                extra = np.minimum(upper - velocity[index], velocity[index] - lower).min(axis=0)
                margin[index] = np.minimum(margin[index], extra)
        return margin.ravel()


class JointAccelerationLimit(Limit):
    name, unit, positional = "joint_acceleration", "rad/s^2", False

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self.limit = np.array([arm.joint_limits.acceleration_rad_s2 for arm in arms])
        self.names = tuple(f"{arm.name}/joint_{joint + 1}/acceleration" for arm in arms for joint in range(arm.dof))

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        return (self.limit * (1.0 - SLACK) - np.abs(trajectory.joint_acceleration).max(axis=1)).ravel()


def lowest_bound(arm: ArmConfig) -> float:
    """Finds the smallest position-dependent bound of any joint anywhere within the position limits.

    The bounds fall towards the stops, so the position limits themselves are the worst places.

    Args:
        arm: The arm with its limits.

    Returns:
        The bound, rad/s; infinite if no bound depends on position.
    """
    limits = arm.joint_limits
    if limits.position_dependent is None:
        return float("inf")
    lower, _ = velocity_bounds(limits.position_dependent, np.array(limits.lower_rad))
    _, upper = velocity_bounds(limits.position_dependent, np.array(limits.upper_rad))
    return float(min(upper.min(), -lower.max()))
