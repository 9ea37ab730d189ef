"""Poses to which the arms were commanded lately: the pose that a proposal builds on must be one of them."""
from __future__ import annotations

from collections import deque
from typing import Deque, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import Proposal
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.motion.pursuit import Goal
from hybridvla_core.safety.status import Reason

FAR_M = 0.2        # a base farther from everything commanded since the observation is another arm's, or of another time
SPACING_S = 0.1    # time between remembered poses


class Bases:
    """Remembers positions commanded since the motion was seeded, as far back as an observation may be."""

    def __init__(self, config: RobotConfig) -> None:
        self._names = [arm.name for arm in config.arms]
        self._length_s = config.proposals.max_observation_age_s + 1.0
        self._seen: Deque[Tuple[float, np.ndarray]] = deque()

    def see(self, positions: np.ndarray, now: float) -> None:
        """Remembers commanded positions (A, 3) m."""
        if self._seen and 0.0 <= now - self._seen[-1][0] < SPACING_S:
            return
        self._seen.append((now, positions))
        while now - self._seen[0][0] > self._length_s:
            self._seen.popleft()

    def forget(self) -> None:
        self._seen.clear()

    def far(self, proposal: Proposal, asked: Optional[Goal]) -> Tuple[Reason, str]:
        """Returns a flag and a sentence if a base of the first step is far from all remembered positions.

        Args:
            proposal: a proposal with as many arms as the robot has.
            asked: the target that is being carried out; the next step may build on it.
        """
        if not self._seen:
            return Reason.NONE, ""
        for index, target in enumerate(proposal.targets[:len(self._names)]):
            base = np.asarray(target.base.position, dtype=float)
            places = [positions[index] for _, positions in self._seen]
            if asked is not None:
                places.append(asked.positions[index])
            away = float(np.sqrt(((np.array(places) - base) ** 2).sum(axis=1).min()))
            if not away <= FAR_M:
                return Reason.PROPOSAL_STALE, (f"{target.name}: its base lies {away * 1e3:.0f} mm from where the arm has been "
                                               "commanded; it was made for another place")
        return Reason.NONE, ""
