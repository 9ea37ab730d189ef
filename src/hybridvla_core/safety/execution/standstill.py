"""Why a target is not reached: finds arms that stand still before it, or creep, and names the limit that holds them."""
from __future__ import annotations

from collections import Counter
from typing import Counter as Counts
from typing import Set, Tuple

import numpy as np

from hybridvla_core.geometry import poses
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.plan import Plan
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.status import Reason

STILL_S = 0.3              # for this long ...
STILL_M, STILL_RAD = 3e-4, 1e-3     # ... moving less than this is standing still
CREEP = 0.1                # share of the requested speeds below which arms that are slowed by limits only creep
REACHED_M = 8e-4           # a target only this far outside the workspace does not count as outside
CLOSE = 5e-3               # m or rad: a limit with no more room than this is in the way
#: Limits of the step that only say that joints could not do more.
JOINT_STEPS = ("joint_step", "joint_position")


class Standstill:
    """Checks once a tick while a plan's goal has not been reached."""

    def __init__(self, config: RobotConfig, motion: Motion) -> None:
        self._config, self._motion = config, motion
        self._ticks = max(2, round(STILL_S / config.dt))
        limits = [arm.cartesian_limits for arm in config.arms]
        self._speeds = np.array([(arm.speed_m_s, arm.rotation_speed_rad_s) for arm in limits])
        self.restart()

    def restart(self) -> None:
        self._stand()
        self._creep(Reason.NONE)

    def _stand(self) -> None:
        """Begins a new check whether the arms stand still."""
        self._positions, self._rotations = self._motion.positions, self._motion.rotations
        self._still = 0
        self._outside = Reason.NONE
        self._limited: Set[str] = set()
        self._text = ""

    @property
    def standing(self) -> bool:
        return self._stopped and bool(self._flags() & ~Reason.SOLVER)

    @property
    def _stopped(self) -> bool:
        return self._still >= self._ticks and (bool(self._limited) or self._motion.at_rest)

    def look(self, plan: Plan, scale: float) -> Tuple[Reason, str]:
        """Returns flags and a sentence of what is in the way; neither while the arms move at the requested speed, which is
        `scale` in (0, 1] of the limits."""
        motion = self._motion
        moved = np.abs(motion.positions - self._positions).max() > STILL_M or any(
            poses.turn(one, two) > STILL_RAD for one, two in zip(motion.rotations, self._rotations))
        if moved:
            self._stand()
        self._still += 1
        self._watch_creep(scale)
        self._limited |= motion.limited
        outside = int(np.argmax(plan.outside))
        self._outside = Reason.WORKSPACE if plan.outside[outside] > REACHED_M else Reason.NONE
        if self._outside:
            text = (f"{self._config.arms[outside].name}: the target lies {plan.outside[outside] * 1e3:.1f} mm outside the "
                    "workspace; ask for one inside")
            return Reason.WORKSPACE, text
        if not self._stopped:
            return self._creeps, self._creep_text
        flags = self._flags()
        self._text = self._text or self._sentence("stand still", self._limited)
        return flags, self._text

    def _creep(self, flags: Reason, text: str = "") -> None:
        """Keeps the finding, and begins the next window."""
        self._creeps, self._creep_text = flags, text
        self._from = self._motion.positions, self._motion.rotations
        self._window = 0
        self._slowed: Counts[str] = Counter()

    def _watch_creep(self, scale: float) -> None:
        """Finds, once a window, arms that hardly move on because limits shape most of their steps, without standing still."""
        self._window += 1
        self._slowed.update(self._motion.limited)
        if self._window < self._ticks:
            return
        positions, rotations = self._from
        far = [max(float(np.linalg.norm(now - before)) / speed, poses.turn(turned, turn) / turning)
               for now, before, turned, turn, (speed, turning) in zip(
                   self._motion.positions, positions, self._motion.rotations, rotations, self._speeds)]
        slowing = {name for name, count in self._slowed.items() if 2 * count > self._window}
        flags = self._named(slowing) if max(far) < CREEP * scale * self._window * self._config.dt else Reason.NONE
        self._creep(flags, self._sentence("hardly move", slowing) if flags else "")

    def _named(self, limited: Set[str]) -> Reason:
        """Returns the flags of limits given by their names."""
        reasons = {limit.name: limit.reason for limit in self._motion.limits}
        flags = Reason.NONE
        for name in limited:
            flags |= Reason.JOINT_LIMIT if name in JOINT_STEPS else reasons.get(name, Reason.NONE)
        return flags

    def _flags(self) -> Reason:
        flags = self._outside | self._named(self._limited)
        if "workspace" in self._limited:
            flags |= Reason.WORKSPACE
        return flags or Reason.SOLVER

    def _sentence(self, how: str, limited: Set[str]) -> str:
        """Names the limits with hardly any room left, else those that shaped the last steps."""
        close = [(float(margin), name) for limit, margins in self._motion.margins(self._motion.joints) if limit.positional
                 for margin, name in zip(margins, limit.names) if margin < CLOSE]
        names = [name for _, name in sorted(close)[:3]] or sorted(limited)[:3]
        what = ", ".join(names) or "no joint step"
        return f"the arms {how} before the target at {what}; choose another target"
