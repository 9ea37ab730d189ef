"""The slow way back inside for arms that start outside a limit.

First the joints go straight to just inside their limits. Then the tool goes to just inside its box. If that does not lead
inside, or links are too close, `way_out.py` searches for a way through joint space and checks all of it before anything moves:
first from where the arms are, then from where they began, because the straight way may have led into a corner.

Meanwhile a positional limit may stay broken, but only by as much as now or, on a checked way, by as much as at the beginning of
that way. So no violation becomes worse than it was at first.
"""
from __future__ import annotations

from typing import List, Optional

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.way_out import Looking, WayOut
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import Goal

INSIDE_RAD = 0.01
INSIDE_M = 0.005
CLEAR_M = 0.002        # extra distance between links, so that a reading's rounding does not put them back outside
SLOW_S = 1.0           # search for another way if in this time ...
SLOW_RAD = 0.1         # ... no joint moved by this, times the scale of the speed
PIECES_HZ = 400        # number of pieces of ways that a search checks per second
LOOKS = 7              # number of searches before the arms count as stuck
BACK = 2               # number of the search that starts from where the arms began ...
GONE_RAD = 0.05        # ... and leads back there over remembered places, which are this far apart
THERE_RAD = 1e-4


class Reentry:
    """Leads the arms back inside their limits, one tick at a time, from where the motion commands them.

    Attributes:
        finished: Whether the arms rest inside every limit of place.
        stuck: Whether no way inside was found.
    """

    def __init__(self, config: RobotConfig, motion: Motion) -> None:
        motion.relaxed = True
        self._motion = motion
        margins = np.array([[arm.joint_limits.margin_rad] for arm in config.arms]) + INSIDE_RAD
        self._lower = np.array([arm.joint_limits.lower_rad for arm in config.arms]) + margins
        self._upper = np.array([arm.joint_limits.upper_rad for arm in config.arms]) - margins
        self._workspaces = [arm.workspace for arm in config.arms]
        self._way_out = WayOut(config, motion)
        self._goal: Optional[Goal] = None
        self._legs: Optional[List[np.ndarray]] = None      # a way out that was found
        self._looking: Optional[Looking] = None
        self._from = motion.joints                         # where the search for it began
        self._gone = [motion.joints]                       # places from where the arms began to where the first search is
        self._looked = 0                                   # number of searches
        self._window, self._pieces = max(2, round(SLOW_S / config.dt)), max(1, round(PIECES_HZ * config.dt))
        self._ticks, self._mark = 0, motion.joints
        self._waits = False                                # comes to rest, to search for another way
        self.finished = False
        self.stuck = False

    def step(self, scale: float) -> bool:
        """Moves one tick on the way back; `finished` becomes True at rest inside every limit, `stuck` if there is no way."""
        motion = self._motion
        self._ticks += 1
        if self._looked < BACK and np.abs(motion.joints - self._gone[-1]).max() > GONE_RAD:
            self._gone.append(motion.joints)
        if self._ticks >= self._window:
            self._waits = self._waits or bool(np.abs(motion.joints - self._mark).max() < SLOW_RAD * scale)
            self._ticks, self._mark = 0, motion.joints
        margins = {limit.name: values for limit, values in motion.places(motion.joints) if values.size}
        broken = {name for name, values in margins.items() if values.min() < -1e-9}
        close = any(values.min() < CLEAR_M for name, values in margins.items() if name not in ("joint_position", "workspace"))
        if not broken and not (self._legs and close):
            self.finished = motion.at_rest
            return motion.step(None)
        if self._waits or self._looking is not None:
            return self._look()
        if self._legs is None and "joint_position" in broken:
            return motion.step_joints(np.clip(motion.joints, self._lower, self._upper), scale)
        if self._legs is None and broken == {"workspace"}:
            if self._goal is None:
                self._goal = Goal(self._inside(motion.positions), motion.rotations.copy())
            return motion.step(self._goal, scale)
        return self._go(scale) if self._legs is not None else self._look()

    def _look(self) -> bool:
        """Comes to rest, and searches for a way out from there: a few pieces per tick."""
        motion = self._motion
        if motion.at_rest:
            if self._looking is None:
                self._looked += 1
                back = self._looked == BACK and len(self._gone) > 1
                self._from, motion.factor = self._gone[0] if back else motion.joints, 1.0
                self._looking = (self._way_out.find_back(motion.joints, self._gone) if back
                                 else self._way_out.find(motion.joints, self._looked))
            try:
                for _ in range(self._pieces):
                    next(self._looking)
            except StopIteration as end:
                self._legs, self._looking, self._waits = end.value, None, False
                self.stuck = self._looked > LOOKS or self._looked > BACK + 1 and not self._legs
            self._ticks, self._mark = 0, motion.joints
        return motion.step(None)

    def _go(self, scale: float) -> bool:
        motion = self._motion
        while self._legs and np.abs(motion.joints - self._legs[0]).max() < THERE_RAD:
            self._legs.pop(0)
        if not self._legs:
            self._legs = None          # completed, or no way was found: the rest is tried anew
            return motion.step(None)
        motion.forgive(self._from)         # no worse than where the way begins
        moved = motion.step_joints(self._legs[0], scale)
        motion.forgive(None)
        return moved

    def _inside(self, positions: np.ndarray) -> np.ndarray:
        return np.array([space.project(point, INSIDE_M) for space, point in zip(self._workspaces, positions)])


def worst_violation(motion: Motion, joints: Optional[np.ndarray] = None) -> str:
    """Finds the worst positional limit that is broken.

    Args:
        motion: The motion with its limits.
        joints: (A, dof) joints, rad; None for the commanded joints.

        Returns:
            The limit's name with the amount; an empty string if none is broken.
    """
    worst, text = 0.0, ""
    for limit, margins in motion.places(motion.joints if joints is None else joints):
        if margins.size and margins.min() < worst - 1e-9:
            index = int(np.argmin(margins))
            worst = float(margins[index])
            text = f"{limit.names[index]} is outside by {-worst:.4f} {limit.unit}"
    return text
