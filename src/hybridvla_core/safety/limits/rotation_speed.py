"""Rotation speed and acceleration of the tool at every step, from the steps of its axes.

For a turn w: sum over the three axes of |w x e|^2 = 2 |w|^2. For the second difference the same sum is
2 (|acceleration|^2 + |w|^4), so the value used is never below the true acceleration.
"""
from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.safety.limits.joint_motion import SLACK
from hybridvla_core.safety.limits.limit import Limit, Trajectory, steps


class RotationSpeedLimit(Limit):
    name, unit, positional = "rotation_speed", "rad/s", False

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self.limit = np.array([arm.cartesian_limits.rotation_speed_rad_s for arm in arms])
        self.names = tuple(f"{arm.name}/tool/rotation_speed" for arm in arms)

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        xy, z = trajectory.axes_step
        return self.limit * (1.0 - SLACK) - _length((xy[:, :, 1:], z[:, :, 1:])) / trajectory.dt


class RotationAccelerationLimit(Limit):
    name, unit, positional = "rotation_acceleration", "rad/s^2", False

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self.limit = np.array([arm.cartesian_limits.rotation_acceleration_rad_s2 for arm in arms])
        self.names = tuple(f"{arm.name}/tool/rotation_acceleration" for arm in arms)

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        xy, z = trajectory.axes_step
        return self.limit * (1.0 - SLACK) - _length((steps(xy), steps(z))) / trajectory.dt ** 2


def _length(turned: Tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Returns (A,) the largest turn over the samples, rad."""
    xy, z = turned
    squared = (xy.real ** 2 + xy.imag ** 2 + z * z).sum(axis=1)
    return np.sqrt(0.5 * squared.max(axis=1))
