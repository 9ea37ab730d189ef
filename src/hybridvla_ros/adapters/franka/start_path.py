"""The path to the start joints: straight in joint space, checked against the filter's limits before anything moves."""
from __future__ import annotations

from typing import List, Tuple

import numpy as np

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.execution.way_to_start import worsening
from hybridvla_core.safety.motion.judge import MotionJudge

PEAK = 1.5               # peak over mean speed of a cubic from rest to rest
ACCELERATION_RAD_S2 = 1.0
LIFT_JOINTS = (1, 3, 5)  # shoulder, elbow, wrist: they raise the tool before anything swings sideways


class StartPath:
    """Paths that keep, or at least never worsen, every positional limit of the filter (links, table, box, joints)."""

    def __init__(self, config: RobotConfig) -> None:
        self._judge = MotionJudge(config, [ArmKinematics(arm) for arm in config.arms])
        self.goal = np.array(config.arms[0].start_joints_rad)

    def plan(self, joints: np.ndarray, speed: float) -> Tuple[np.ndarray, np.ndarray]:
        """Plans the path to the start, straight or by lifting first.

        Args:
            joints: (dof,) present joint positions, rad.
            speed: Speed of the fastest joint, rad/s.

        Returns:
            Times (n,), s, and joints (n, dof), rad, of the points, each reached at rest.

        Raises:
            HybridVLAError: There is no free path; the message names the limit.
        """
        lifted = joints.copy()
        for joint in LIFT_JOINTS:
            lifted[joint] = self.goal[joint]
        problem = ""
        for points in ([self.goal], [lifted, self.goal]):
            found = worsening(self._judge, joints[None, :], [point[None, :] for point in points])
            if not found:
                return self._timed(joints, points, speed)
            problem = problem or found
        raise HybridVLAError(f"no free way to the start: {problem}; move the arm by hand or with reenter first")

    @staticmethod
    def _timed(joints: np.ndarray, points: List[np.ndarray], speed: float) -> Tuple[np.ndarray, np.ndarray]:
        times, here, now = [], joints, 0.0
        for point in points:
            way = float(np.abs(point - here).max())
            now += max(0.3, PEAK * way / speed, (6.0 * way / ACCELERATION_RAD_S2) ** 0.5)
            times.append(now)
            here = point
        return np.array(times), np.array(points)
