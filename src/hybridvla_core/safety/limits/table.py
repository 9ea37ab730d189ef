"""Named capsules stay above the table (the tool centre point has its own box)."""
from __future__ import annotations

from typing import List, Sequence

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.safety.limits.capsules import Clearance, reach
from hybridvla_core.safety.limits.limit import Limit, Trajectory
from hybridvla_core.safety.status import Reason


class TableLimit(Limit):
    """Margins: for each named capsule, the height of its lowest point above the table beyond the arm's `margin_m`, m."""

    name, unit, reason = "table", "m", Reason.COLLISION

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self._parts: List = []
        moves: List = []
        for index, arm in enumerate(arms):
            for capsule in arm.collision.capsules:
                if capsule.name in arm.collision.above_table:
                    lowest = arm.collision.table_z_m + capsule.radius_m + arm.collision.margin_m
                    self._parts.append((index, capsule.link, np.array([capsule.start_m, capsule.end_m]), lowest))
                    moves.append((index, reach(arm, capsule)))
        reaches = np.zeros((len(moves), len(arms), arms[0].dof))
        for place, (index, move) in enumerate(moves):
            reaches[place, index] = move
        self._clearance = Clearance(reaches)
        self.names = tuple(f"{arm.name}/{capsule.name}/table" for arm in arms for capsule in arm.collision.capsules
                           if capsule.name in arm.collision.above_table)

    def certainly_kept(self, trajectory: Trajectory) -> bool:
        return not self._parts or self._clearance.suffices(trajectory)

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        now, links = trajectory.SENT - 1, trajectory.links
        rooms, present = np.empty(len(self._parts)), np.empty(len(self._parts))
        for place, (arm, link, ends, lowest) in enumerate(self._parts):
            frame = links[link]
            base = frame.position[arm, 2, now:]
            xy, z = frame.xy[arm, 2, now:], frame.z[arm, 2, now:]
            heights = np.minimum(*[base + x * xy.real + y * xy.imag + h * z for x, y, h in ends]) - lowest
            rooms[place] = heights[1:].min()
            present[place] = heights[0]
        self._clearance.remember(trajectory.joints[:, now], present)
        return rooms


