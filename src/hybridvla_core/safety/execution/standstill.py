"""Why a target is not reached: the arms stand still before it, and the limit that holds them is named."""
from __future__ import annotations

from typing import Set, Tuple

import numpy as np

from hybridvla_core.geometry import poses
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.plan import Plan
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.status import Reason

STILL_S = 0.3              # moving less than this ...
STILL_M, STILL_RAD = 3e-4, 1e-3     # ... for so long is standing still
REACHED_M = 8e-4           # a target this little outside the workspace is not called outside
CLOSE = 5e-3               # m or rad: a limit with no more room is the one in the way
#: Limits of the step that only say that joints could not do more.
JOINT_STEPS = ("joint_step", "joint_position")


class Standstill:
    """Looks once a tick while a plan's goal has not been reached."""

    def __init__(self, config: RobotConfig, motion: Motion) -> None:
        self._config, self._motion = config, motion
        self._ticks = max(2, round(STILL_S / config.dt))
        self.restart()

    def restart(self) -> None:
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

    def look(self, plan: Plan) -> Tuple[Reason, str]:
        """Returns flags and a sentence of what is in the way; neither while the arms move."""
        motion = self._motion
        moved = np.abs(motion.positions - self._positions).max() > STILL_M or any(
            poses.turn(one, two) > STILL_RAD for one, two in zip(motion.rotations, self._rotations))
        if moved:
            self.restart()
        self._still += 1
        self._limited |= motion.limited
        outside = int(np.argmax(plan.outside))
        self._outside = Reason.WORKSPACE if plan.outside[outside] > REACHED_M else Reason.NONE
        if self._outside:
            text = (f"{self._config.arms[outside].name}: the target lies {plan.outside[outside] * 1e3:.1f} mm outside the "
                    "workspace; ask for one inside")
            return Reason.WORKSPACE, text
        if not self._stopped:
            return Reason.NONE, ""
        flags = self._flags()
        self._text = self._text or self._sentence()
        return flags, self._text

    def _flags(self) -> Reason:
        reasons = {limit.name: limit.reason for limit in self._motion.limits}
        flags = self._outside
        for name in self._limited:
            flags |= Reason.JOINT_LIMIT if name in JOINT_STEPS else reasons.get(name, Reason.NONE)
        if "workspace" in self._limited:
            flags |= Reason.WORKSPACE
        return flags or Reason.SOLVER

    def _sentence(self) -> str:
        """Names what has hardly any room left, else what shaped the last steps."""
        close = [(float(margin), name) for limit, margins in self._motion.margins(self._motion.joints) if limit.positional
                 for margin, name in zip(margins, limit.names) if margin < CLOSE]
        names = [name for _, name in sorted(close)[:3]] or sorted(self._limited)[:3]
        what = ", ".join(names) or "no joint step"
        return f"the arms stand still before the target at {what}; choose another target"
