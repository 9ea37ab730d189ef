"""The slow way to the start joints. Every step is checked again when it is made, like any other step."""
from __future__ import annotations

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.way_to_start import WayToStart
from hybridvla_core.safety.motion.motion import Motion

THERE_RAD = 1e-4
STUCK_TICKS = 200      # after so many ticks at rest before the goal, something is in the way after all


class Homing:
    """One way to the start joints, chosen at construction.

    Args:
        config: Configuration of the robot.
        motion: The motion with its limits.
        here: (A, dof) joints at which the way begins, rad.

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
        """Moves one tick along the way; scale in (0, 1] of the joint speeds. Returns False if nothing may be sent."""
        motion = self._motion
        while self._legs and np.abs(motion.joints - self._legs[0]).max() < THERE_RAD:
            self._legs.pop(0)
        if not self._legs:
            self.finished = motion.at_rest
            return motion.step(None)
        self._still = self._still + 1 if motion.at_rest else 0
        return motion.step_joints(self._legs[0], scale)
