"""The tool centre point stays in its box and on the right side of every plane."""
from __future__ import annotations

from typing import Sequence

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.safety.limits.limit import Limit, Trajectory


class WorkspaceLimit(Limit):
    """Margins: for each arm the room to the lower and to the upper faces of the box, and to each plane, m."""

    name, unit = "workspace", "m"

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self.lower = np.array([arm.workspace.lower_m for arm in arms])
        self.upper = np.array([arm.workspace.upper_m for arm in arms])
        self.planes = [(index, np.array(plane.normal), plane.offset_m)
                       for index, arm in enumerate(arms) for plane in arm.workspace.planes]
        prefix = [f"{arm.name}/" if len(arms) > 1 else "" for arm in arms]
        self.names = (tuple(f"{p}workspace/{axis}_min" for p in prefix for axis in "xyz")
                      + tuple(f"{p}workspace/{axis}_max" for p in prefix for axis in "xyz")
                      + tuple(f"{p}workspace/{plane.name}" for p, arm in zip(prefix, arms)
                              for plane in arm.workspace.planes))

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        ahead = trajectory.tool.position[:, :, trajectory.SENT:]
        parts = [(ahead.min(axis=2) - self.lower).ravel(), (self.upper - ahead.max(axis=2)).ravel()]
        parts += [np.atleast_1d((normal @ ahead[index]).min() - offset) for index, normal, offset in self.planes]
        return np.concatenate(parts)
