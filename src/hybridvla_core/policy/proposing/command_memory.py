"""What the filter has commanded: the base of `delta_base: commanded` and the state of `state_source: last_command`."""
from __future__ import annotations

import math
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from hybridvla_core.contracts import Pose
from hybridvla_core.policy.proposing.pose_history import Held, PoseHistory

REMEMBERED = 32         # proposals whose gripper commands are kept


class CommandMemory:
    """Commands of the present activation, by arm. Not thread safe."""

    def __init__(self, arms: Sequence[str]) -> None:
        self._arms = tuple(arms)
        self._openings: Dict[Tuple[int, int], Dict[str, float]] = {}
        self.clear()

    def clear(self) -> None:
        """No command holds any more: the arms may be moved by others, and the next activation begins where they are."""
        self._histories = {name: PoseHistory(name) for name in self._arms}

    def proposed(self, epoch: int, sequence: int, openings: Mapping[str, float]) -> None:
        """The gripper commands of a proposal, 0 closed to 1 open, in case it is executed."""
        self._openings[(epoch, sequence)] = dict(openings)
        while len(self._openings) > REMEMBERED:
            del self._openings[next(iter(self._openings))]

    def commanded(self, poses: Mapping[str, Pose], stamp: float, epoch: int, sequence: int, active: bool) -> None:
        """Takes what the filter's status says.

        Args:
            poses: That it commands, by arm, base frame.
            stamp: Of the status, s.
            epoch: Of the proposal executed last; 0: none since the arms were seeded.
            sequence: Of that proposal.
            active: Whether the filter commands at all.
        """
        if not active or not epoch:
            self.clear()
            return
        openings = self._openings.get((epoch, sequence), {})
        for name, pose in poses.items():
            if name in self._histories:
                self._histories[name].add(stamp, pose, openings.get(name, math.nan))

    def at(self, stamp: float) -> List[Optional[Held]]:
        """Looks up the commands that held at a time. A command holds until the next one.

        Args:
            stamp: The time, s.

        Returns:
            By arm (pose, opening or NaN, stamp it held at), or None before its first command.
        """
        return [history.at(stamp, math.inf) if len(history) else None for history in self._histories.values()]
