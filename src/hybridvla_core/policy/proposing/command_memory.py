"""What the filter has commanded: the base for `delta_base: commanded` and the state for `state_source: last_command`."""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from hybridvla_core.contracts import Pose
from hybridvla_core.policy.proposing.pose_history import Held, PoseHistory

REMEMBERED = 32         # number of proposals whose gripper commands are kept


@dataclass
class Grips:
    """The gripper commands of one proposal.

    Attributes:
        rows: Openings of each step, by arm.
        period: Duration of a step, s; 0 for keyframes.
        since: Stamp of the first status that named the proposal, s.
    """

    rows: Dict[str, List[float]] = field(default_factory=dict)
    period: float = 0.0
    since: float = math.inf

    def at(self, arm: str, stamp: float) -> float:
        """Returns the opening that is commanded at a stamp, s; NaN for an arm without one."""
        rows = self.rows.get(arm, [math.nan])
        # No status says when one keyframe follows another. The next prediction is made when the last keyframe is done.
        row = int((stamp - self.since) / self.period) if self.period else len(rows) - 1
        return rows[min(row, len(rows) - 1)]


class CommandMemory:
    """The commands of the present activation, by arm. Not thread safe."""

    def __init__(self, arms: Sequence[str]) -> None:
        self._arms = tuple(arms)
        self._grips: Dict[Tuple[int, int], Grips] = {}
        self.clear()

    def clear(self) -> None:
        """Forgets all commands: the arms may be moved by others, and the next activation begins where they are."""
        self._histories = {name: PoseHistory(name) for name in self._arms}

    def proposed(self, epoch: int, sequence: int, openings: Iterable[Tuple[str, float]], period: float = 0.0) -> None:
        """Keeps the gripper commands of a proposal, in case it is executed.

        Args:
            epoch: Epoch of the proposal.
            sequence: Sequence number of the proposal.
            openings: (arm, 0 closed to 1 open) of each target, in the order of the targets.
            period: Duration of a step, s; 0 for keyframes.
        """
        grips = self._grips[(epoch, sequence)] = Grips(period=period)
        for name, opening in openings:
            grips.rows.setdefault(name, []).append(opening)
        while len(self._grips) > REMEMBERED:
            del self._grips[next(iter(self._grips))]

    def commanded(self, poses: Mapping[str, Pose], stamp: float, epoch: int, sequence: int, active: bool) -> None:
        """Takes over what the filter's status says.

        Args:
            poses: Commanded poses, by arm, base frame.
            stamp: Stamp of the status, s.
            epoch: Epoch of the proposal executed last; 0: none since the arms were seeded.
            sequence: Sequence number of that proposal.
            active: Whether the filter sends commands at all.
        """
        if not active or not epoch:
            self.clear()
            return
        grips = self._grips.get((epoch, sequence), Grips())
        grips.since = min(grips.since, stamp)
        for name, pose in poses.items():
            if name in self._histories:
                opening = grips.at(name, stamp)
                if math.isnan(opening):      # a HOLD says nothing about the grippers: they keep their last command
                    opening = self._histories[name].opening
                self._histories[name].add(stamp, pose, opening)

    def at(self, stamp: float) -> List[Optional[Held]]:
        """Looks up the commands that held at a time. A command holds until the next one.

        Args:
            stamp: The time, s.

            Returns:
                For each arm (pose, opening or NaN, stamp at which it held), or None before its first command.
        """
        return [history.at(stamp, math.inf) if len(history) else None for history in self._histories.values()]
