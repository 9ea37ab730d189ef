"""The way to the start joints: straight in joint space, looked at against the filter's limits before anything moves."""
from __future__ import annotations

from typing import List, Tuple

import numpy as np

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.motion.motion import Motion

LOOK_RAD = 0.02          # of the fastest joint, between two looks
PEAK = 1.5               # highest over mean speed of a cubic from rest to rest
ACCELERATION_RAD_S2 = 1.0
LIFT_JOINTS = (1, 3, 5)  # shoulder, elbow, wrist: they raise the tool before anything swings sideways


class StartPath:
    """Ways that keep, or at least never worsen, every positional limit of the filter (links, table, box, joints)."""

    def __init__(self, config: RobotConfig) -> None:
        self._config, self._motion = config, Motion(config)
        self.goal = np.array(config.arms[0].start_joints_rad)

    def plan(self, joints: np.ndarray, speed: float) -> Tuple[np.ndarray, np.ndarray]:
        """Times (n,) s and joints (n, dof) rad of the points, each reached at rest. speed: rad/s of the fastest joint.

        Raises HybridVLAError naming the limit in the way.
        """
        lifted = joints.copy()
        for joint in LIFT_JOINTS:
            lifted[joint] = self.goal[joint]
        problem = ""
        for points in ([self.goal], [lifted, self.goal]):
            found = self._obstacle(joints, points)
            if not found:
                return self._timed(joints, points, speed)
            problem = problem or found
        raise HybridVLAError(f"no free way to the start: {problem}; move the arm by hand or with reenter first")

    def _obstacle(self, joints: np.ndarray, points: List[np.ndarray]) -> str:
        allowed = self._margins(joints)
        here = joints
        for point in points:
            count = max(2, int(np.ceil(np.abs(point - here).max() / LOOK_RAD)))
            for share in np.linspace(0.0, 1.0, count):
                for name, margin in self._margins(here + share * (point - here)).items():
                    if margin < min(0.0, allowed[name]) - 1e-6:
                        return f"{name} would be broken by {-margin:.3f}"
            here = point
        return ""

    def _margins(self, joints: np.ndarray) -> dict:
        return {name: float(value) for limit, values in self._motion.margins(joints[None, :]) if limit.positional
                for name, value in zip(limit.names, values)}

    @staticmethod
    def _timed(joints: np.ndarray, points: List[np.ndarray], speed: float) -> Tuple[np.ndarray, np.ndarray]:
        times, here, now = [], joints, 0.0
        for point in points:
            way = float(np.abs(point - here).max())
            now += max(0.3, PEAK * way / speed, (6.0 * way / ACCELERATION_RAD_S2) ** 0.5)
            times.append(now)
            here = point
        return np.array(times), np.array(points)
