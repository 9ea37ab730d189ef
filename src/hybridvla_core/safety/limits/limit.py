"""The base of every limit: a function from a trajectory to margins.

A trajectory is judged as a whole: the step about to be sent and the braking that would follow it. A limit never corrects
a motion, it only measures. A new limit needs one file here, one entry in `limits/__init__.py` and one test.
"""
from __future__ import annotations

from functools import cached_property
from typing import List, Tuple

import numpy as np

from hybridvla_core.robots.kinematics import BatchKinematics, Frames
from hybridvla_core.safety.status import Reason


class Trajectory:
    """Commanded joints of A arms at m consecutive ticks; the first two have already been sent.

    joints (A, m, dof) rad; dt s. Forward kinematics run once, on demand.
    """

    SENT = 2

    def __init__(self, joints: np.ndarray, dt: float, kinematics: BatchKinematics) -> None:
        self.joints = joints
        self.dt = dt
        self._kinematics = kinematics

    @cached_property
    def links(self) -> List[Frames]:
        return self._kinematics.links(self.joints)

    @cached_property
    def tool(self) -> Frames:
        return self._kinematics.tool(self.links[-1])

    @cached_property
    def joint_velocity(self) -> np.ndarray:
        """(A, m - 1, dof) rad/s."""
        return (self.joints[:, 1:] - self.joints[:, :-1]) / self.dt

    @cached_property
    def joint_acceleration(self) -> np.ndarray:
        """(A, m - 2, dof) rad/s^2."""
        return (self.joint_velocity[:, 1:] - self.joint_velocity[:, :-1]) / self.dt

    @cached_property
    def linear_step(self) -> np.ndarray:
        """(A, 3, m - 1) m for each tick."""
        return steps(self.tool.position)

    @cached_property
    def axes_step(self) -> Tuple[np.ndarray, np.ndarray]:
        """Returns the steps of the tool's axes: (A, 3, m - 1) complex (x + i y) and (A, 3, m - 1) (z)."""
        return steps(self.tool.xy), steps(self.tool.z)


def steps(samples: np.ndarray) -> np.ndarray:
    """Returns the changes (A, 3, m - 1) from each sample of (A, 3, m) to the next; `np.diff` takes three times as long."""
    return samples[:, :, 1:] - samples[:, :, :-1]


class Limit:
    """Base of all limits.

    reason: flag raised when the limit interferes. positional: whether it limits where the robot is (kept through braking and
    relaxed while re-entering) rather than how fast the robot moves.
    """

    name = "limit"
    unit = ""
    reason = Reason.NONE
    positional = True
    may_lead_out = False   # outside the limit, motion that does not make it worse is allowed

    names: Tuple[str, ...] = ()

    @property
    def of_place(self) -> bool:
        """Whether the limit says where the arms may be. A positional limit that may be led out of (a singularity) does not: it
        says how well the tool can be led there."""
        return self.positional and not self.may_lead_out

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        """Returns (k,) the smallest margin of each quantity in `names` over everything not yet sent; >= 0 inside."""
        raise NotImplementedError

    def certainly_kept(self, trajectory: Trajectory) -> bool:
        """Checks a cheap sufficient condition for all margins being >= 0; returns False if unsure."""
        return False
