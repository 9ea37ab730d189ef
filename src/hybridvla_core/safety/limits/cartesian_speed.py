"""Speed and acceleration of the tool centre point at every step."""
from __future__ import annotations

from typing import Sequence

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.safety.limits.joint_motion import SLACK
from hybridvla_core.safety.limits.limit import Limit, Trajectory, steps


class CartesianSpeedLimit(Limit):
    name, unit, positional = "cartesian_speed", "m/s", False

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self.limit = np.array([arm.cartesian_limits.speed_m_s for arm in arms])
        self.names = tuple(f"{arm.name}/tool/speed" for arm in arms)

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        step = trajectory.linear_step[:, :, 1:]
        speed = np.sqrt((step * step).sum(axis=1).max(axis=1)) / trajectory.dt
        return self.limit * (1.0 - SLACK) - speed


class CartesianAccelerationLimit(Limit):
    name, unit, positional = "cartesian_acceleration", "m/s^2", False

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self.limit = np.array([arm.cartesian_limits.acceleration_m_s2 for arm in arms])
        self.names = tuple(f"{arm.name}/tool/acceleration" for arm in arms)

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        change = steps(trajectory.linear_step)
        return self.limit * (1.0 - SLACK) - np.sqrt((change * change).sum(axis=1).max(axis=1)) / trajectory.dt ** 2
