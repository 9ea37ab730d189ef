"""A way through joint space, towards the start joints, that makes no broken limit worse, found before anything moves.

Straight, or the first joint last, or one arm after the other, where one of these is free; else a tree of random straight pieces
for each arm in turn (rapidly exploring, with a seed, so that the same pose gives the same way), until one ends inside or sees the
start. Where none does within its pieces, the way that leads to where least is broken.
"""
from __future__ import annotations

from typing import Dict, Generator, Iterator, List, Optional, Tuple

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import BatchKinematics
from hybridvla_core.safety.execution.way_to_start import WayToStart
from hybridvla_core.safety.limits.limit import Limit, Trajectory
from hybridvla_core.safety.motion.motion import Motion

SPACING_RAD = 0.04     # of the fastest joint, between two looks at a piece
PIECE_RAD = 0.5        # longest piece of a tree, of its fastest joint
SHORT_RAD = 0.1        # where that is not free
PIECES = 400           # that are looked at for an arm
TOWARDS = 0.3          # share of the pieces that lead straight to the start
BETTER = 0.01          # m or rad less that is broken: a way worth going where none leads inside
WORSE = 1e-9           # m or rad that a broken limit may be broken further by rounding
Legs = List[np.ndarray]
#: Looks at one piece between two values, so that the caller can do so in its own time; ends with what was found.
Looking = Generator[None, None, Optional[Legs]]


class WayOut:
    """Knows the limits; `find` looks from where the arms rest."""

    def __init__(self, config: RobotConfig, motion: Motion) -> None:
        self._dt = config.dt
        self._limits = [limit for limit in motion.limits if limit.positional and not limit.may_lead_out]
        self._batch = BatchKinematics(config.arms)
        self._ways = WayToStart(config, motion)
        self.start = self._ways.start
        self._lower = np.array([arm.joint_limits.lower_rad for arm in config.arms])
        self._upper = np.array([arm.joint_limits.upper_rad for arm in config.arms])
        self._allowed: Dict[str, np.ndarray] = {}

    def find(self, here: np.ndarray, seed: int = 0) -> Looking:
        """Ends with joints (A, dof) rad to go to one after the other from `here` (A, dof), or None.

        Args:
            here: joints at which limits may be broken; none of them is broken further on the way.
            seed: of the trees; another one may find what this one does not.
        """
        self._allowed = {limit.name: np.minimum(values, 0.0) - WORSE for limit, values in self._margins(here, here)}
        for legs in self._ways.ways(here):
            begins = [here, *legs[:-1]]
            if all(self._free(begin, end) for begin, end in zip(begins, legs)):
                return legs
            yield
        return (yield from self._search(here, np.random.default_rng(seed)))

    def _search(self, here: np.ndarray, rng: np.random.Generator) -> Looking:
        """One arm after the other, the one that finds its way first."""
        legs: Legs = []
        left = list(range(len(here)))
        while left:
            for arm in left:
                found = yield from self._tree(legs[-1] if legs else here, arm, rng)
                if found is not None:
                    legs += found
                    left.remove(arm)
                    break
            else:
                return legs or None        # as far as it leads; from there more may be free
        return legs

    def _tree(self, here: np.ndarray, arm: int, rng: np.random.Generator) -> Looking:
        start = self.start[arm]
        nodes, parents = [here[arm]], [-1]
        least = self._broken(here) - BETTER, 0
        for _ in range(PIECES):
            wanted = start if rng.random() < TOWARDS else rng.uniform(self._lower[arm], self._upper[arm])
            nearest = int(np.argmin(np.abs(np.array(nodes) - wanted).max(axis=1)))
            way = wanted - nodes[nearest]
            for most in (PIECE_RAD, SHORT_RAD):
                yield
                end = nodes[nearest] + way * min(1.0, most / max(float(np.abs(way).max()), 1e-9))
                if self._free(_with(here, arm, nodes[nearest]), _with(here, arm, end)):
                    break
            else:
                continue
            nodes.append(end)
            parents.append(nearest)
            places = _with(here, arm, end)
            left = self._broken(places)
            if left < least[0]:
                least = left, len(nodes) - 1
            if left == 0.0:
                break
            if self._free(places, _with(here, arm, start)):
                nodes.append(start)
                parents.append(len(nodes) - 2)
                return self._back(here, arm, nodes, parents, len(nodes) - 1)
        return self._back(here, arm, nodes, parents, least[1]) if least[1] else None

    def _broken(self, joints: np.ndarray) -> float:
        """By how much joints (A, dof) rad break limits, all of it together, m and rad alike; 0 inside."""
        return sum(float(np.maximum(-values - WORSE, 0.0).sum()) for _, values in self._margins(joints, joints))

    def _back(self, here: np.ndarray, arm: int, nodes: Legs, parents: List[int], place: int) -> Legs:
        """The pieces from the root to a node, those left out that a straight one replaces."""
        places: Legs = []
        while place >= 0:
            places.insert(0, _with(here, arm, nodes[place]))
            place = parents[place]
        legs: Legs = []
        begin = 0
        while begin < len(places) - 1:
            end = len(places) - 1
            while end > begin + 1 and not self._free(places[begin], places[end]):
                end -= 1
            legs.append(places[end])
            begin = end
        return legs

    def _free(self, begin: np.ndarray, end: np.ndarray) -> bool:
        return all((values >= self._allowed[limit.name]).all() for limit, values in self._margins(begin, end))

    def _margins(self, begin: np.ndarray, end: np.ndarray) -> Iterator[Tuple[Limit, np.ndarray]]:
        """The smallest margins of each limit on the straight piece between joints (A, dof) rad, one after the other."""
        count = max(2, int(np.ceil(np.abs(end - begin).max() / SPACING_RAD)) + 1)
        share = np.linspace(0.0, 1.0, count)[None, :, None]
        path = begin[:, None, :] + share * (end - begin)[:, None, :]
        trajectory = Trajectory(np.concatenate((path[:, :1], path[:, :1], path), axis=1), self._dt, self._batch)
        for limit in self._limits:
            yield limit, limit.margins(trajectory)


def _with(joints: np.ndarray, arm: int, values: np.ndarray) -> np.ndarray:
    """joints (A, dof) with those of one arm replaced."""
    changed = joints.copy()
    changed[arm] = values
    return changed
