"""Joint velocities and accelerations of every step, the FR3's position-dependent velocity bound included."""
from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from hybridvla_core.safety.config import ArmConfig
from hybridvla_core.safety.limit_config import PositionDependentVelocity
from hybridvla_core.safety.limits.limit import Limit, Trajectory

SLACK = 1e-4   # share of a rate limit kept free for rounding


def velocity_bounds(table: PositionDependentVelocity, joints: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Lower and upper velocity (..., dof) rad/s at joints (..., dof) rad; libfranka `rate_limiting.h`."""
    top, offset, gain = (np.array(v) for v in (table.velocity_rad_s, table.offset_rad_s, table.gain_rad_s2))
    room_up = np.sqrt(np.maximum(0.0, gain * (np.array(table.upper_rad) - joints)))
    room_down = np.sqrt(np.maximum(0.0, gain * (np.array(table.lower_rad) + joints)))
    upper = np.minimum(top, np.maximum(0.0, room_up - offset)) - 1e-3
    lower = np.maximum(-top, np.minimum(0.0, offset - room_down)) + 1e-3
    return lower, upper


class JointVelocityLimit(Limit):
    name, unit, positional = "joint_velocity", "rad/s", False

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self.limit = np.array([arm.joint_limits.velocity_rad_s for arm in arms])
        self.names = tuple(f"{arm.name}/joint_{joint + 1}/velocity" for arm in arms for joint in range(arm.dof))
        self._tables = [arm.joint_limits.position_dependent for arm in arms]
        self._always = [table is None or _never_binds(arm) for arm, table in zip(arms, self._tables)]

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        velocity = trajectory.joint_velocity[:, 1:]
        margin = self.limit * (1.0 - SLACK) - np.abs(velocity).max(axis=1)
        for index, table in enumerate(self._tables):
            if not self._always[index]:
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


def _never_binds(arm: ArmConfig) -> bool:
    """True where the position limits keep the arm so far from its stops that the constant bound is always smaller."""
    limits = arm.joint_limits
    lower, _ = velocity_bounds(limits.position_dependent, np.array(limits.lower_rad))
    _, upper = velocity_bounds(limits.position_dependent, np.array(limits.upper_rad))
    return bool(np.all(upper > limits.velocity_rad_s) and np.all(-lower > np.array(limits.velocity_rad_s)))
