"""One accepted proposal in execution: which row is due, where it leads, and whether it has been carried out."""
from __future__ import annotations

from typing import Optional

import numpy as np

from hybridvla_core.contracts import Proposal
from hybridvla_core.geometry import rotations
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.motion.pursuit import Goal

WALL_M = 5e-4     # goals stay this far inside the box, so that rounding never decides
TOUCH_M = 5e-3    # a target no further outside is moved onto the wall, whatever `on_limit` says, so that nothing freezes


class Plan:
    """The rows of a proposal as goals; K x arms, executed in order. Times are monotonic seconds."""

    def __init__(self, proposal: Proposal, config: RobotConfig, now: float) -> None:
        count = len(config.arms)
        self.proposal = proposal
        self.received = now
        self.row = 0
        self.rows = proposal.chunk
        self.arrived_at: Optional[float] = None
        self.done = False
        self.gripper_sent = False
        self._config = config
        targets = proposal.targets
        self._positions = np.array([t.target.position for t in targets], dtype=float).reshape(self.rows, count, 3)
        self._matrices = np.array([rotations.to_matrix(t.target.quaternion) for t in targets]).reshape(
            self.rows, count, 3, 3)
        self.openings = np.array([t.gripper for t in targets], dtype=float).reshape(self.rows, count)
        self._lower = np.array([arm.workspace.lower_m for arm in config.arms]) + WALL_M
        self._upper = np.array([arm.workspace.upper_m for arm in config.arms]) - WALL_M
        self._goal: Optional[Goal] = None
        self.outside = np.zeros(count)      # distance of the row's targets outside box and planes, m

    @property
    def keyframe(self) -> bool:
        return self.proposal.action_period == 0.0

    @property
    def asked(self) -> Goal:
        """The goal that the row requests, inside the workspace or not."""
        return Goal(self._positions[self.row], self._matrices[self.row])

    @property
    def last_row(self) -> bool:
        return self.row == self.rows - 1

    def expired(self, now: float) -> bool:
        return now - self.received > self.proposal.valid_for

    def advance(self, now: float) -> bool:
        """Advances dense rows by the clock. Returns True when a new row begins."""
        if self.keyframe:
            return False
        row = min(int((now - self.received) / self.proposal.action_period), self.rows - 1)
        return self._begin(row) if row > self.row else False

    def next_row(self) -> bool:
        """Begins the next keyframe row on arrival. Returns False if this was the last."""
        return not self.last_row and self._begin(self.row + 1)

    def goal(self, now: float, positions: np.ndarray, matrices: np.ndarray) -> Goal:
        """Returns the row's goal inside the box, seen from where the arms are commanded: positions (A, 3), matrices."""
        if self._goal is None:
            self._goal = self._inside(positions, matrices)
        if self.keyframe:
            return self._goal
        left = (self.row + 1) * self.proposal.action_period - (now - self.received)
        return Goal(self._goal.positions, self._goal.rotations, max(left, 1e-3))

    def _begin(self, row: int) -> bool:
        self.row, self._goal, self.arrived_at, self.gripper_sent = row, None, None, False
        return True

    def _inside(self, positions: np.ndarray, matrices: np.ndarray) -> Goal:
        asked, turned = self._positions[self.row], self._matrices[self.row].copy()
        limited = np.array([arm.workspace.project(point, WALL_M) for arm, point in zip(self._config.arms, asked)])
        outside = np.linalg.norm(limited - asked, axis=1)
        self.outside = outside
        if self._config.on_limit == "slide" or not (outside > TOUCH_M).any():
            return Goal(limited, turned)
        count = len(limited)
        for group in [range(count)] if self._config.coupled else [[index] for index in range(count)]:
            share = min(self._share(index, positions[index], asked[index]) if outside[index] > TOUCH_M else 1.0
                        for index in group)
            for index in group:
                end = asked[index] if outside[index] > TOUCH_M else limited[index]
                limited[index] = positions[index] + share * (end - positions[index])
                turn = rotations.log(turned[index] @ matrices[index].T)
                turned[index] = rotations.exp(share * turn) @ matrices[index]
        return Goal(limited, turned)

    def _share(self, index: int, here: np.ndarray, wanted: np.ndarray) -> float:
        """Returns the share of an arm's straight path (3,) that stays inside box and planes."""
        way = wanted - here
        room = [1.0]
        for bound, sign in ((self._lower[index], -1.0), (self._upper[index], 1.0)):
            blocked = sign * (wanted - bound) > 0.0
            room += (np.maximum(sign * (bound - here), 0.0)[blocked] / np.maximum(sign * way, 1e-12)[blocked]).tolist()
        for plane in self._config.arms[index].workspace.planes:
            inward = float(np.dot(plane.normal, way))
            height = float(np.dot(plane.normal, here)) - plane.offset_m - WALL_M
            if height + inward < 0.0:
                room.append(max(height, 0.0) / max(-inward, 1e-12))
        return max(0.0, min(room))
