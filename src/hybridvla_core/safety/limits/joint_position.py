"""Joint positions stay between their limits, less the margin."""
from __future__ import annotations

from typing import Sequence

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.safety.limits.limit import Limit, Trajectory


class JointPositionLimit(Limit):
    name, unit = "joint_position", "rad"

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        margin = np.array([[arm.joint_limits.margin_rad] for arm in arms])
        self.lower = np.array([arm.joint_limits.lower_rad for arm in arms]) + margin
        self.upper = np.array([arm.joint_limits.upper_rad for arm in arms]) - margin
        self.names = tuple(f"{arm.name}/joint_{joint + 1}/position" for arm in arms for joint in range(arm.dof))

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        ahead = trajectory.joints[:, trajectory.SENT:]
        return np.minimum(ahead.min(axis=1) - self.lower, self.upper - ahead.max(axis=1)).ravel()
