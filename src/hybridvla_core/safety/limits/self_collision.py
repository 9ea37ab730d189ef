"""Named pairs of capsules of one arm keep their margin to each other."""
from __future__ import annotations

from typing import Sequence

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.safety.limits.capsules import ArmCapsules, Clearance, reach, segment_distance
from hybridvla_core.safety.limits.limit import Limit, Trajectory
from hybridvla_core.safety.status import Reason


class SelfCollisionLimit(Limit):
    """Margins: for each named pair, the distance between the two capsules beyond the arm's `margin_m`, m."""

    name, unit, reason = "self_collision", "m", Reason.COLLISION

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        self._capsules = [ArmCapsules(arm, index) for index, arm in enumerate(arms)]
        self._pairs = []
        for arm, capsules in zip(arms, self._capsules):
            places = np.array([[capsules.names.index(name) for name in pair] for pair in arm.collision.pairs],
                              dtype=int).reshape(-1, 2)
            apart = capsules.radii[places].sum(axis=1) + arm.collision.margin_m
            self._pairs.append((places[:, 0], places[:, 1], apart))
        self.names = tuple(f"{arm.name}/{a}-{b}" for arm in arms for a, b in arm.collision.pairs)
        reaches = np.zeros((len(self.names), len(arms), arms[0].dof))
        pairs = [(index, arm, pair) for index, arm in enumerate(arms) for pair in arm.collision.pairs]
        for place, (index, arm, pair) in enumerate(pairs):
            by_name = {capsule.name: capsule for capsule in arm.collision.capsules}
            near, far = sorted((by_name[name] for name in pair), key=lambda capsule: capsule.link)
            reaches[place, index] = reach(arm, far, near.link)
        self._clearance = Clearance(reaches)

    def certainly_kept(self, trajectory: Trajectory) -> bool:
        return not self.names or self._clearance.suffices(trajectory)

    def margins(self, trajectory: Trajectory) -> np.ndarray:
        picks, between = self._clearance.samples(trajectory)
        picks = np.concatenate(([trajectory.SENT - 1], picks))
        parts, present = [], []
        for index, (capsules, (first, second, apart)) in enumerate(zip(self._capsules, self._pairs)):
            start, end = capsules.segments(trajectory.links, picks)
            rooms = segment_distance(start[:, first], end[:, first], start[:, second], end[:, second]) - apart
            present.append(rooms[0])
            nearest = rooms[1:].min(axis=0) - between[index]
            near = np.flatnonzero(nearest < 0.0)
            if len(near) and between[index] > 0.0:
                start, end = capsules.segments(trajectory.links, np.arange(trajectory.SENT, trajectory.joints.shape[1]))
                one, other = first[near], second[near]
                exact = segment_distance(start[:, one], end[:, one], start[:, other], end[:, other])
                nearest[near] = exact.min(axis=0) - apart[near]
            parts.append(nearest)
        self._clearance.remember(trajectory.joints[:, trajectory.SENT - 1], np.concatenate(present))
        return np.concatenate(parts)
