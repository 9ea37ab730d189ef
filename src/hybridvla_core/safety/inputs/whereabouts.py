"""A check whether the arms still are where commands left them: after a driver was silent, and while nothing is commanded."""
from __future__ import annotations

from typing import Callable, List, Optional, Set

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.inputs.measured_arms import MeasuredArms
from hybridvla_core.safety.motion.motion import Motion

LOST_RAD = 0.1        # on a joint door, an arm with a joint farther from its command is not where it was
KEPT_RAD = 0.02       # an arm none of whose joints has moved more still rests under its last command


class Whereabouts:
    """Remembers where the arms were. silent: arms whose joint states fell silent while commands went out."""

    def __init__(self, config: RobotConfig, motion: Motion, arms: MeasuredArms, near: Callable[[Optional[int]], bool]) -> None:
        """Sets up the check. near: whether an arm, by index, or every arm is within the leash of its command."""
        self._config, self._motion, self._arms, self._near = config, motion, arms, near
        self.silent: Set[str] = set()
        self._kept: Optional[np.ndarray] = None      # measured joints under the last command, while nothing disturbed them

    def forget(self) -> None:
        self.silent.clear()
        self._kept = None

    def unheard(self, name: str) -> bool:
        """Returns whether the present position of an arm is unknown; coupled arms share the doubt."""
        return bool(self.silent) if self._config.coupled else name in self.silent

    def lost(self) -> List[str]:
        """Returns arms that report again and are not where they are commanded; once a tick while commands go out."""
        lost = []
        for index, arm in enumerate(self._arms):
            if arm.name in self._arms.unknown:
                self.silent.add(arm.name)
            elif arm.name in self.silent:
                self.silent.discard(arm.name)
                apart = np.abs(self._arms.joints[index] - self._motion.joints[index]).max()
                if not self._near(index) or (self._config.door == "joint" and apart > LOST_RAD):
                    lost.append(arm.name)
        return lost

    def keep(self, resting: bool) -> None:
        """Notes that commands end here. resting: whether the arms rest under the last command."""
        self._kept = self._arms.joints.copy() if resting and not self.silent and self._near(None) else None

    def look(self, disturbed: bool) -> None:
        """Checks the arms once a tick while nothing is commanded. disturbed: drivers or controllers are not what they were."""
        if self._kept is not None and (disturbed or not np.abs(self._arms.joints - self._kept).max() < KEPT_RAD):
            self._kept = None

    @property
    def undisturbed(self) -> bool:
        """Whether the arms have rested under the last command ever since: its pose is theirs, including the controller's sag."""
        return self._kept is not None and self._near(None)
