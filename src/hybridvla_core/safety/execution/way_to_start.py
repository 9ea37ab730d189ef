"""The choice of a free way to the start joints, checked over its whole length before anything moves."""
from __future__ import annotations

from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import BatchKinematics
from hybridvla_core.safety.limits.limit import Trajectory
from hybridvla_core.safety.motion.judge import MotionJudge
from hybridvla_core.safety.motion.motion import Motion

SPACING_RAD = 0.02     # distance of the fastest joint between two checked points of the way


class WayToStart:
    """Straight legs in joint space that keep every positional limit.

    The way is straight to the start if that is free. Otherwise it moves one arm after the other, or first everything but the
    first joint (which draws the arm in and up) and then the first joint.
    """

    def __init__(self, config: RobotConfig, motion: Motion) -> None:
        self._dt = config.dt
        self._limits = motion.limits
        self._batch = BatchKinematics(config.arms)
        self.start = np.array([arm.start_joints_rad for arm in config.arms])

    def choose(self, here: np.ndarray) -> Tuple[List[np.ndarray], str]:
        """Chooses the first free way from joints (A, dof) rad.

        Returns:
            Joints (A, dof) to go to, one after the other, and an empty string; or no joints, and what is in the way.
        """
        first: Optional[str] = None
        for legs in self.ways(here):
            hindrance, begin = "", here
            for leg in legs:
                hindrance = hindrance or self.hindrance(begin, leg)
                begin = leg
            if not hindrance:
                return legs, ""
            first = first or hindrance
        return [], first or ""

    def hindrance(self, begin: np.ndarray, end: np.ndarray) -> str:
        """Returns the limit that breaks first on the straight way between joints (A, dof), or an empty string."""
        count = max(2, int(np.ceil(np.abs(end - begin).max() / SPACING_RAD)) + 1)
        share = np.linspace(0.0, 1.0, count)[None, :, None]
        path = begin[:, None, :] + share * (end - begin)[:, None, :]
        path = np.concatenate((path[:, :1], path[:, :1], path), axis=1)
        trajectory = Trajectory(path, self._dt, self._batch)
        for limit in self._limits:
            if limit.of_place:
                margins = limit.margins(trajectory)
                if margins.size and margins.min() < -1e-9:
                    return f"{limit.names[int(np.argmin(margins))]} would be broken by {-float(margins.min()):.3f} {limit.unit}"
        return ""

    def ways(self, here: np.ndarray) -> Iterator[List[np.ndarray]]:
        """Yields legs worth checking from joints (A, dof) rad, the simplest first."""
        start = self.start
        yield [start]
        drawn = start.copy()
        drawn[:, 0] = here[:, 0]
        yield [drawn, start]
        for arm in range(len(here)):
            alone = here.copy()
            alone[arm] = start[arm]
            yield [alone, start]
            inwards = here.copy()
            inwards[arm] = drawn[arm]
            yield [inwards, alone, start]


def worsening(judge: MotionJudge, begin: np.ndarray, points: Sequence[np.ndarray]) -> str:
    """Checks each point of a way that may begin outside a limit as long as it makes nothing worse.

    Args:
        judge: the limits.
        begin: joints (A, dof) rad where the way begins.
        points: joints (A, dof) rad to which the way leads, one after the other.

    Returns:
        The first positional limit that would be broken further than at `begin`, or an empty string.
    """
    allowed, here = _margins(judge, begin), begin
    for point in points:
        count = max(2, int(np.ceil(np.abs(point - here).max() / SPACING_RAD)))
        for share in np.linspace(0.0, 1.0, count):
            for name, margin in _margins(judge, here + share * (point - here)).items():
                if margin < min(0.0, allowed[name]) - 1e-6:
                    return f"{name} would be broken by {-margin:.3f}"
        here = point
    return ""


def _margins(judge: MotionJudge, joints: np.ndarray) -> Dict[str, float]:
    return {name: float(value) for limit, values in judge.margins_at(joints) if limit.positional
            for name, value in zip(limit.names, values)}
