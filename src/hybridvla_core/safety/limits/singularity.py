"""The braking trajectory never ends nearer to a singularity than allowed; leading out of one is always allowed.

The measure is the smallest singular value of the tool Jacobian. `motion.py` does the slowing on the way in.
"""
from __future__ import annotations

from typing import Sequence

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.safety.limits.limit import Limit, Trajectory
from hybridvla_core.safety.status import Reason


class SingularityLimit(Limit):
    name, unit, reason, may_lead_out = "singularity", "", Reason.SINGULARITY, True

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self._stop = np.array([arm.singularity.stop_below for arm in arms])
        self.names = tuple(f"{arm.name}/singularity" for arm in arms)

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        return smallest_singular_values(trajectory) - self._stop


def smallest_singular_values(trajectory: Trajectory) -> np.ndarray:
    """Returns (A,) values at the last sample, from the geometric Jacobian: axis x lever over axis."""
    links = trajectory.links[1:]
    x, y, z = np.array([frame.z[:, :, -1] for frame in links]).transpose(2, 1, 0)        # of the axes, (A, dof) each
    origins = np.array([frame.position[:, :, -1] for frame in links]).transpose(2, 1, 0)
    u, v, w = trajectory.tool.position[:, :, -1].T[:, :, None] - origins                 # of the levers
    jacobian = np.array((y * w - z * v, z * u - x * w, x * v - y * u, x, y, z)).transpose(1, 0, 2)
    return np.linalg.svd(jacobian, compute_uv=False)[:, -1]
