"""The next joint velocity along a straight joint-space path, as fast as joints and tools may accelerate and brake."""
from __future__ import annotations

from typing import Optional, Sequence

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.motion.pursuit import PLAN

STRENGTH = 0.3         # share of the joints' acceleration limits that a path uses
STEP_SHARE = 0.2       # largest share of the remaining path in one tick
THERE_S = 1e-6         # time from the goal below which it counts as reached


class JointWay:
    """Plans ticks of a path on which all joints keep one time scale.

    A tool's own acceleration counts too: a wanted step beyond it would be reduced to a share at every tick, and the braking in
    between would undo the gain of that share, so that the arm would creep.
    """

    def __init__(self, config: RobotConfig, arms: Sequence[ArmKinematics]) -> None:
        self._dt, self._arms = config.dt, arms
        self._speed = np.array([arm.joint_limits.velocity_rad_s for arm in config.arms])
        self._strength = STRENGTH * np.array([arm.joint_limits.acceleration_rad_s2 for arm in config.arms])
        limits = [arm.cartesian_limits for arm in config.arms]
        self._tool = PLAN * np.array([[limit.acceleration_m_s2, limit.rotation_acceleration_rad_s2] for limit in limits])

    def velocity(self, joints: np.ndarray, previous: np.ndarray, goal: np.ndarray, scale: float) -> Optional[np.ndarray]:
        """Plans one tick.

        Args:
            joints: (A, dof) joints as commanded last, rad.
            previous: (A, dof) joints of the tick before, rad.
            goal: (A, dof) joints of the goal, rad.
            scale: Share of the joints' speeds, above 0.

            Returns:
                (A, dof) joint velocities, rad/s; None at the goal.
        """
        way = goal - joints
        seconds = float((np.abs(way) / (self._speed * scale)).max())
        if seconds < THERE_S:
            return None
        quickest = self._share(joints, way / seconds)
        wanted = way / seconds * min(1.0, (2.0 * PLAN * quickest * seconds) ** 0.5, STEP_SHARE * seconds / self._dt)
        present = (joints - previous) / self._dt
        change = wanted - present
        return present + change * min(1.0, self._share(joints, change / self._dt))

    def _share(self, joints: np.ndarray, acceleration: np.ndarray) -> float:
        """Returns the share of accelerations (A, dof) rad/s^2 that joints and tools can take at joints (A, dof) rad."""
        share = float((self._strength / np.maximum(np.abs(acceleration), 1e-9)).min())
        for arm, q, wanted, tool in zip(self._arms, joints, acceleration, self._tool):
            twist = arm.jacobian(q) @ wanted
            share = min(share, *(tool / np.maximum([np.linalg.norm(twist[:3]), np.linalg.norm(twist[3:])], 1e-9)).tolist())
        return share
