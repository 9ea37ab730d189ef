"""The slow way to the start joints, looked at in its whole length before the first step.

Straight in joint space, all joints on one time scale; where that way is not free, one arm after the other, or first
everything but the first joint (which draws the arm in and up) and then its turn. Every step is checked again when it is made,
as any other.
"""
from __future__ import annotations

from typing import Iterator, List, Optional

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import BatchKinematics
from hybridvla_core.safety.limits.limit import Trajectory
from hybridvla_core.safety.motion.motion import Motion

SPACING_RAD = 0.02     # of the fastest joint, between two looks at the way
THERE_RAD = 1e-4
STUCK_TICKS = 200      # at rest before the goal for so long: something is in the way after all


class Homing:
    """`blocked`: why there is no way, or an empty string; `finished` becomes True at rest at the start joints."""

    def __init__(self, config: RobotConfig, motion: Motion) -> None:
        self._config, self._motion = config, motion
        self._batch = BatchKinematics(config.arms)
        self._start = np.array([arm.start_joints_rad for arm in config.arms])
        self._still = 0
        self.finished = False
        self.blocked = ""
        self._legs = self._choose()

    @property
    def stuck(self) -> bool:
        return self._still >= STUCK_TICKS

    def step(self, scale: float) -> bool:
        """One tick on the way; scale in (0, 1] on the joint speeds."""
        motion = self._motion
        while self._legs and np.abs(motion.joints - self._legs[0]).max() < THERE_RAD:
            self._legs.pop(0)
        if not self._legs:
            self.finished = motion.at_rest
            return motion.step(None)
        self._still = self._still + 1 if motion.at_rest else 0
        return motion.step_joints(self._legs[0], scale)

    def _choose(self) -> List[np.ndarray]:
        """The first free way, as joints (A, dof) one after the other."""
        first: Optional[str] = None
        for legs in self._ways():
            hindrance, here = "", self._motion.joints
            for leg in legs:
                hindrance = hindrance or self._hindrance(here, leg)
                here = leg
            if not hindrance:
                return legs
            first = first or hindrance
        self.blocked = f"the way to the start joints is not free: {first}; move the arms by hand or by the policy first"
        return []

    def _ways(self) -> Iterator[List[np.ndarray]]:
        here, start = self._motion.joints, self._start
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

    def _hindrance(self, begin: np.ndarray, end: np.ndarray) -> str:
        """What breaks first on the straight way between joints (A, dof), or an empty string."""
        count = max(2, int(np.ceil(np.abs(end - begin).max() / SPACING_RAD)) + 1)
        share = np.linspace(0.0, 1.0, count)[None, :, None]
        path = begin[:, None, :] + share * (end - begin)[:, None, :]
        path = np.concatenate((path[:, :1], path[:, :1], path), axis=1)
        trajectory = Trajectory(path, self._config.dt, self._batch)
        for limit in self._motion.limits:
            if limit.positional and not limit.may_lead_out:
                margins = limit.margins(trajectory)
                if margins.size and margins.min() < -1e-9:
                    return f"{limit.names[int(np.argmin(margins))]} would be broken by {-float(margins.min()):.3f} {limit.unit}"
        return ""
