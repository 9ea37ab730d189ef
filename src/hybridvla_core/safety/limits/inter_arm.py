"""Every capsule of one arm keeps its margin to every capsule of another arm, in the frame that all mounts share."""
from __future__ import annotations

from itertools import combinations
from typing import List, Sequence, Tuple

import numpy as np

from hybridvla_core.geometry import rotations
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.safety.limits.capsules import ArmCapsules, Clearance, reach, segment_distance
from hybridvla_core.safety.limits.limit import Limit, Trajectory
from hybridvla_core.safety.status import Reason


class InterArmLimit(Limit):
    """Margins: for each pair of arms, the smallest distance between their capsules beyond `margin_m`, m."""

    name, unit, reason = "inter_arm", "m", Reason.COLLISION | Reason.OTHER_ARM

    def __init__(self, arms: Sequence[ArmConfig], margin_m: float) -> None:
        self._capsules = [ArmCapsules(arm, index) for index, arm in enumerate(arms)]
        self._mounts = [(np.array(arm.mount.position_m), rotations.to_matrix(np.array(arm.mount.quaternion_xyzw)))
                        for arm in arms]
        self._couples = list(combinations(range(len(arms)), 2))
        self._margin = margin_m
        reaches = np.zeros((len(self._couples), len(arms), arms[0].dof))
        for place, couple in enumerate(self._couples):
            for index in couple:
                reaches[place, index] = np.max([reach(arms[index], capsule) for capsule in
                                                arms[index].collision.capsules], axis=0)
        self._clearance = Clearance(reaches)
        self.names = tuple("inter_arm" if len(self._couples) == 1 else f"inter_arm/{arms[a].name}-{arms[b].name}"
                           for a, b in self._couples)

    def certainly_kept(self, trajectory: Trajectory) -> bool:
        return not self._couples or self._clearance.suffices(trajectory)

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        if not self._couples:
            return np.zeros(0)
        now = trajectory.SENT - 1
        picks, between = self._clearance.samples(trajectory)
        world = self._world(trajectory, np.concatenate(([now], picks)))
        every = None
        rooms, present = np.empty(len(self._couples)), np.empty(len(self._couples))
        for place, (a, b) in enumerate(self._couples):
            apart = self._capsules[a].radii[:, None] + self._capsules[b].radii[None, :] + self._margin
            away = segment_distance(world[a][0][:, :, None], world[a][1][:, :, None],
                                    world[b][0][:, None], world[b][1][:, None]) - apart
            present[place] = away[0].min()
            nearest = away[1:].min(axis=0) - between[a] - between[b]
            first, second = np.nonzero(nearest < 0.0)
            if len(first) and between.any():
                every = every or self._world(trajectory, np.arange(trajectory.SENT, trajectory.joints.shape[1]))
                exact = segment_distance(every[a][0][:, first], every[a][1][:, first], every[b][0][:, second],
                                         every[b][1][:, second])
                nearest[first, second] = exact.min(axis=0) - apart[first, second]
            rooms[place] = nearest.min()
        self._clearance.remember(trajectory.joints[:, now], present)
        return rooms

    def _world(self, trajectory: Trajectory, picks: np.ndarray) -> List[Tuple[np.ndarray, np.ndarray]]:
        """Returns starts and ends (samples, capsules, 3) of every arm's capsules in the frame that all mounts share."""
        world = []
        for capsules, (position, matrix) in zip(self._capsules, self._mounts):
            start, end = capsules.segments(trajectory.links, picks)
            world.append((start @ matrix.T + position, end @ matrix.T + position))
        return world
