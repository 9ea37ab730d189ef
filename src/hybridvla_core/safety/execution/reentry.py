"""The slow way back inside for arms that start outside a limit.

Joints first, along a straight line in joint space to just inside their limits; then the tool to just inside its box;
then, if links are still too close, towards the start joints. While it runs every positional limit is relaxed to its
present violation, so no step can make any of them worse.
"""
from __future__ import annotations

from typing import Optional

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import Goal

INSIDE_RAD = 0.01
INSIDE_M = 0.005
CLEAR_M = 0.002        # further apart than links must be, so that a reading's rounding does not put them back outside
STUCK_TICKS = 200      # without any motion while limits are still broken: there is no way


class Reentry:
    def __init__(self, config: RobotConfig, motion: Motion) -> None:
        motion.relaxed = True
        self._motion = motion
        margins = np.array([[arm.joint_limits.margin_rad] for arm in config.arms]) + INSIDE_RAD
        self._lower = np.array([arm.joint_limits.lower_rad for arm in config.arms]) + margins
        self._upper = np.array([arm.joint_limits.upper_rad for arm in config.arms]) - margins
        self._box_lower = np.array([arm.workspace.lower_m for arm in config.arms]) + INSIDE_M
        self._box_upper = np.array([arm.workspace.upper_m for arm in config.arms]) - INSIDE_M
        self._start = np.array([arm.start_joints_rad for arm in config.arms])
        self._planes = [arm.workspace.planes for arm in config.arms]
        self._goal: Optional[Goal] = None
        self._clearing = False
        self._still = 0
        self.finished = False

    @property
    def stuck(self) -> bool:
        """Limits are still broken, and no step towards them is possible."""
        return self._still >= STUCK_TICKS

    def step(self, scale: float) -> bool:
        """One tick of the way back; `finished` becomes True at rest inside every limit."""
        motion = self._motion
        self._still = self._still + 1 if motion.at_rest else 0
        broken = [limit for limit, margins in motion.margins(motion.joints)
                  if limit.positional and not limit.may_lead_out and margins.size and margins.min() < -1e-9]
        if not broken and self._clearing and self._close() and np.abs(motion.joints - self._start).max() > 1e-4:
            return motion.step_joints(self._start, scale)
        if not broken and motion.at_rest:
            self.finished = True
            return motion.step(None)
        names = {limit.name for limit in broken}
        if "joint_position" in names:
            return motion.step_joints(np.clip(motion.joints, self._lower, self._upper), scale)
        if "workspace" in names:
            if self._goal is None:
                self._goal = Goal(self._inside(motion.positions), motion.rotations.copy())
            return motion.step(self._goal, scale)
        if names:
            self._clearing = True
            return motion.step_joints(self._start, scale)
        return motion.step(None)

    def _close(self) -> bool:
        """Links that were too close are not yet clear of each other."""
        return any(limit.positional and not limit.may_lead_out and limit.name not in ("joint_position", "workspace")
                   and margins.size and margins.min() < CLEAR_M for limit, margins in self._motion.margins(self._motion.joints))

    def _inside(self, positions: np.ndarray) -> np.ndarray:
        inside = np.clip(positions, self._box_lower, self._box_upper)
        for index, planes in enumerate(self._planes):
            for plane in planes:
                depth = plane.offset_m + INSIDE_M - float(np.dot(plane.normal, inside[index]))
                inside[index] += max(0.0, depth) * np.array(plane.normal)
        return inside


def worst_violation(motion: Motion, joints: Optional[np.ndarray] = None) -> str:
    """Returns the worst positional limit broken at joints (A, dof) rad, without them at the commanded ones, with its amount;
    or an empty string."""
    worst, text = 0.0, ""
    for limit, margins in motion.margins(motion.joints if joints is None else joints):
        if limit.positional and not limit.may_lead_out and margins.size and margins.min() < worst - 1e-9:
            index = int(np.argmin(margins))
            worst = float(margins[index])
            text = f"{limit.names[index]} is outside by {-worst:.4f} {limit.unit}"
    return text
