"""The slow way to the start joints. Every step is checked again when it is made, as any other."""
from __future__ import annotations

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.way_to_start import WayToStart
from hybridvla_core.safety.motion.motion import Motion

THERE_RAD = 1e-4
STUCK_TICKS = 200      # at rest before the goal for so long: something is in the way after all


class Homing:
    """One way to the start joints, chosen when this is made.

    Args:
        config: The robot.
        motion: With its limits.
        here: (A, dof) rad, where the way begins.

    Attributes:
        blocked: why there is no way, or an empty string.
        finished: becomes True at rest at the start joints.
    """

    def __init__(self, config: RobotConfig, motion: Motion, here: np.ndarray) -> None:
        self._motion = motion
        self._still = 0
        self.finished = False
        self._legs, hindrance = WayToStart(config, motion).choose(here)
        self.blocked = (f"the way to the start joints is not free: {hindrance}; move the arms by hand or by the policy first"
                        if hindrance else "")

    @property
    def stuck(self) -> bool:
        return self._still >= STUCK_TICKS

    def step(self, scale: float) -> bool:
        """Makes one tick on the way; scale in (0, 1] on the joint speeds. Returns False when nothing may be sent."""
        motion = self._motion
        while self._legs and np.abs(motion.joints - self._legs[0]).max() < THERE_RAD:
            self._legs.pop(0)
        if not self._legs:
            self.finished = motion.at_rest
            return motion.step(None)
        self._still = self._still + 1 if motion.at_rest else 0
        return motion.step_joints(self._legs[0], scale)
