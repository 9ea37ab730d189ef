"""Judgement whether a candidate step, and the braking that would follow it, keep every limit."""
from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics, BatchKinematics
from hybridvla_core.safety import limits as limit_files
from hybridvla_core.safety.limits.limit import Limit, Trajectory
from hybridvla_core.safety.motion.braking import Braking

ROUNDING = 1e-9                   # rounding of a positional margin, m or rad


class MotionJudge:
    """Knows limits and braking; the caller passes the motion itself as joints (A, dof) rad.

    Attributes:
        limits: every limit of the robot, cheap ones first.
        relaxed: while True, a positional limit that is already broken only must not be broken further.
        led: while True, the arms are led along their joints; limits that matter only for leading a tool (singularities) are
            ignored.
        forgiven: joints (A, dof) rad; while relaxed, limits may be broken as far as these joints break them.
    """

    def __init__(self, config: RobotConfig, arms: Sequence[ArmKinematics]) -> None:
        self._dt = config.dt
        self._arms = arms
        self._batch = BatchKinematics(config.arms)
        self._brakes = Braking(config.arms, config.dt)
        self.limits: Tuple[Limit, ...] = limit_files.build(config)
        self.relaxed = self.led = False
        self.forgiven: Optional[np.ndarray] = None

    def braking_ticks(self, twist: np.ndarray, velocity: np.ndarray) -> int:
        """Returns how many ticks the arms need to come to rest from twist (A, 6) and joint velocity (A, dof)."""
        return self._brakes.ticks(twist, velocity)

    def first_broken(self, previous: np.ndarray, joints: np.ndarray, candidate: np.ndarray,
                     bend: np.ndarray) -> Tuple[Optional[Limit], np.ndarray]:
        """Judges a step and the braking after it.

        Args:
            previous: joints (A, dof) rad of the tick before the last.
            joints: joints (A, dof) rad as commanded last.
            candidate: joints (A, dof) rad that would be commanded next.
            bend: (A, dof) rad/s^2, joint acceleration that keeps the tools' paths straight.

            Returns:
                The first limit that the step or the braking would break, or None; and the braking path (A, ticks, dof).
        """
        velocity = (candidate - joints) / self._dt
        twist = np.array([arm.jacobian(q) @ v for arm, q, v in zip(self._arms, joints, velocity)])
        path = self._brakes.path(joints, candidate, bend, self._brakes.ticks(twist, velocity, bend))
        ahead = np.concatenate((previous[:, None], joints[:, None], candidate[:, None], path), axis=1)
        trajectory = Trajectory(ahead, self._dt, self._batch)
        for limit in self.limits:
            if not self._keeps(limit, trajectory, joints):
                return limit, path
        return None, path

    def margins(self, window: np.ndarray) -> List[Tuple[Limit, np.ndarray]]:
        """Returns every limit with its margins over a window of joints (A, m, dof), m >= 3."""
        trajectory = Trajectory(window, self._dt, self._batch)
        return [(limit, limit.margins(trajectory)) for limit in self.limits]

    def margins_at(self, joints: np.ndarray) -> List[Tuple[Limit, np.ndarray]]:
        """Returns every limit with its margins at rest at joints (A, dof)."""
        return self.margins(_resting(joints))

    def places(self, joints: np.ndarray) -> List[Tuple[Limit, np.ndarray]]:
        """Returns every limit on where joints (A, dof) are, with its margins; singularities do not belong to them."""
        trajectory = Trajectory(_resting(joints), self._dt, self._batch)
        return [(limit, limit.margins(trajectory)) for limit in self.limits if limit.of_place]

    def inside(self, joints: np.ndarray) -> bool:
        """Returns whether joints (A, dof), at rest, keep every positional limit."""
        trajectory = Trajectory(_resting(joints), self._dt, self._batch)
        return not any(limit.positional and limit.margins(trajectory).min(initial=1.0) < 0.0 for limit in self.limits)

    def _keeps(self, limit: Limit, trajectory: Trajectory, joints: np.ndarray) -> bool:
        if limit.certainly_kept(trajectory):
            return True
        if limit.may_lead_out and (self.relaxed or self.led):
            return True
        margins = limit.margins(trajectory)
        if (margins >= (-ROUNDING if limit.positional else 0.0)).all():
            return True
        if not (limit.positional and (self.relaxed or limit.may_lead_out)):
            return False
        present = limit.margins(Trajectory(_resting(joints), self._dt, self._batch))
        if self.forgiven is not None:
            present = np.minimum(present, limit.margins(Trajectory(_resting(self.forgiven), self._dt, self._batch)))
        return bool((margins + np.maximum(0.0, -present) >= -ROUNDING).all())


def _resting(joints: np.ndarray) -> np.ndarray:
    """Returns three ticks at rest at joints (A, dof)."""
    return np.repeat(np.asarray(joints, dtype=float)[:, None, :], 3, axis=1)
