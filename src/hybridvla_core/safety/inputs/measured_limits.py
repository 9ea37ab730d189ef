"""The measured robot as a second judge: limits on where it is, checked in addition to those on the commands.

A controller may leave the commanded joints (an impedance arm is free in its null space), a load may pull the arm down, a
person may push it. What counts then is where the links are.
"""
from __future__ import annotations

from typing import Dict, List, Optional, Tuple

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import BatchKinematics
from hybridvla_core.safety import limits as limit_files
from hybridvla_core.safety.limits.limit import Limit, Trajectory
from hybridvla_core.safety.status import LimitMargin, Reason

PREFIX = "measured/"
OUTSIDE_RAD = 0.01     # tolerance on measured joints beyond their limits, not counting the margin kept from the limits
OUTSIDE_M = 0.02       # tolerance on the measured tool beyond box and planes
NEARER_M = 0.01        # tolerance on measured links within the margins kept from table, links and the other arm


class MeasuredLimits:
    """Judges measured joints with limits of its own, so that what the motion remembers of the commanded arms stays true."""

    def __init__(self, config: RobotConfig) -> None:
        self._dt = config.dt
        self._batch = BatchKinematics(config.arms)
        self._limits: Tuple[Limit, ...] = tuple(limit for limit in limit_files.build(config) if limit.of_place)
        kept = max(arm.joint_limits.margin_rad for arm in config.arms)
        self._tolerances = {"joint_position": kept + OUTSIDE_RAD, "workspace": OUTSIDE_M}
        self._floor: Optional[Dict[str, float]] = None
        self._here: Optional[Trajectory] = None      # at the joints judged last

    @property
    def relaxed(self) -> bool:
        return self._floor is not None

    def relax(self, joints: Optional[np.ndarray]) -> None:
        """Lets arms that are led back inside begin outside, at joints (A, dof) rad; None: nothing is forgiven any more."""
        self._floor = None if joints is None else {
            name: min(0.0, float(margin)) for limit in self._limits
            for name, margin in zip(limit.names, limit.margins(self._at(joints)))}

    def breach(self, joints: np.ndarray) -> Tuple[Reason, str]:
        """Returns flags and a sentence on the worst limit that joints (A, dof) rad break by more than its tolerance."""
        if not np.isfinite(joints).all():
            return Reason.NONE, ""
        here = self._at(joints)
        worst, found = 0.0, (Reason.NONE, "")
        for limit in self._limits:
            if limit.certainly_kept(here):
                continue
            tolerance = self._tolerances.get(limit.name, NEARER_M)
            for name, margin in zip(limit.names, limit.margins(here)):
                beyond = -tolerance + (self._floor or {}).get(name, 0.0) - float(margin)
                if beyond > worst:
                    worst = beyond
                    found = (Reason.MEASURED_LIMIT | limit.reason,
                             f"{name} is broken by the measured arm, by {-margin:.3f} {limit.unit}; see what moved it")
        return found

    def margins(self, joints: np.ndarray) -> List[LimitMargin]:
        """Returns the margins at joints (A, dof) rad for the status; none while a joint is unknown."""
        if not np.isfinite(joints).all():
            return []
        here = self._at(joints)
        return [LimitMargin(PREFIX + name, margin, limit.unit) for limit in self._limits
                for name, margin in zip(limit.names, limit.margins(here).tolist())]

    def _at(self, joints: np.ndarray) -> Trajectory:
        """Returns three ticks at rest at joints (A, dof) rad; their kinematics are kept until other joints are reported."""
        if self._here is None or not np.array_equal(joints, self._here.joints[:, 0]):
            self._here = Trajectory(np.repeat(joints[:, None, :], 3, axis=1), self._dt, self._batch)
        return self._here
