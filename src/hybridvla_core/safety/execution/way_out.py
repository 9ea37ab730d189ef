"""A way through joint space, towards the start joints, that makes no broken limit worse, found before anything moves.

The search tries, in this order: the straight way, the first joint last, or one arm after the other, if one of these is free; a
walk of all arms at once in small steps (`walk_out.py`); for each arm in turn, two trees of random straight pieces (rapidly
exploring, seeded so that the same pose gives the same way), from where the arm is and from its start joints, until they meet or
the first tree gets inside. If neither happens within their pieces, it takes the way that leads to the least violation.
"""
from __future__ import annotations

from typing import Dict, Generator, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import BatchKinematics
from hybridvla_core.safety.execution.walk_out import WORSE, WalkOut, broken
from hybridvla_core.safety.execution.way_to_start import WayToStart
from hybridvla_core.safety.limits.limit import Limit, Trajectory
from hybridvla_core.safety.motion.motion import Motion

SPACING_RAD = 0.04     # distance between two checked points of a piece, by its fastest joint
FIRST = (0.01, 0.1, 0.4)           # shares of the first SPACING_RAD, also checked: motion refuses a way that begins worse
LENGTHS_RAD = (0.5, 0.1)           # lengths of a piece, by its fastest joint; the shorter is tried if the longer is not free
PIECES = 2000          # pieces tried for an arm since the last BETTER one, without those that join the two trees ...
MOST_PIECES = 12000    # ... and at most in all
AROUND = 0.3           # share of the pieces that start at a place already found, often the best, and end near it ...
NEAR_RAD = (0.5, 0.1, 0.02)        # ... this near: in a corner of the box few directions are free, and only for a short way
TOWARDS = 0.3          # share of the other pieces that aim at the root of the other tree
BETTER = 0.01          # violation reduced by this, m or rad, is worth going to even if no way leads inside
Legs = List[np.ndarray]
#: Checks one piece between two yields, so that the caller can spread the search over time; ends with the result.
Looking = Generator[None, None, Optional[Legs]]


class Tree:
    """Places (dof,) rad of one arm; a free piece from another place leads to each but the first."""

    def __init__(self, root: np.ndarray) -> None:
        self.places, self._parents = [root], [-1]

    def add(self, place: np.ndarray, parent: int) -> int:
        self.places.append(place)
        self._parents.append(parent)
        return len(self.places) - 1

    def nearest(self, place: np.ndarray) -> int:
        return int(np.argmin(np.abs(np.array(self.places) - place).max(axis=1)))

    def back(self, node: int) -> Legs:
        """Returns the places from a node to the root."""
        way: Legs = []
        while node >= 0:
            way.append(self.places[node])
            node = self._parents[node]
        return way


class WayOut:
    """Searches ways among the limits; `find` starts from where the arms rest."""

    def __init__(self, config: RobotConfig, motion: Motion) -> None:
        self._dt = config.dt
        self._limits = [limit for limit in motion.limits if limit.of_place]
        self._batch = BatchKinematics(config.arms)
        self._ways = WayToStart(config, motion)
        self.start = self._ways.start
        margins = np.array([[arm.joint_limits.margin_rad] for arm in config.arms])
        self._lower = np.array([arm.joint_limits.lower_rad for arm in config.arms]) + margins
        self._upper = np.array([arm.joint_limits.upper_rad for arm in config.arms]) - margins
        self._allowed: Dict[str, np.ndarray] = {}
        self._walk = WalkOut(lambda begin, end: self._margins(begin, end), lambda begin, end: self._free(begin, end),
                             self.start, self._lower, self._upper)

    def find(self, here: np.ndarray, seed: int = 0) -> Looking:
        """Searches for a way, one part of the search at each step of the iterator.

        Args:
            here: (A, dof) joints at which limits may be broken, rad; the way breaks none of them further.
            seed: Seed of walks and trees; another seed may find a way that this one does not.

        Returns:
            At the end, joints (A, dof) rad to go to one after the other from `here`, or None.

        Yields:
            Nothing, after each part.
        """
        self._allow(here)
        known = yield from self._known(here)
        if known:
            return known
        rng = np.random.default_rng(seed)
        walked = yield from self._walk.find(here, rng, anew=seed > 1)
        return walked or (yield from self._search(here, rng))

    def find_back(self, here: np.ndarray, gone: Sequence[np.ndarray]) -> Looking:
        """Searches for a way inside from where the arms began, and leads back there if nothing shorter is free.

        Args:
            here: (A, dof) joints where the arms are, rad.
            gone: Joints (A, dof) rad along which they came here; no limit is broken further than at the first of them.

        Returns:
            At the end, joints (A, dof) rad to go to one after the other from `here`, or None.

        Yields:
            Nothing, after each part.
        """
        begin = gone[0]
        self._allow(begin)
        legs = yield from self._known(begin)
        rng = np.random.default_rng(0)
        for anew in (False, True, True):
            legs = legs or (yield from self._walk.find(begin, rng, anew))
        return (yield from self._walk.straight([here, *gone[::-1], *legs])) if legs else None

    def _allow(self, joints: np.ndarray) -> None:
        """Lets limits be broken as far as they are at joints (A, dof) rad."""
        self._allowed = {limit.name: np.minimum(values, 0.0) - WORSE for limit, values in self._margins(joints, joints)}

    def _known(self, here: np.ndarray) -> Looking:
        """Tries the straight way to the start joints, the first joint last, or one arm after the other."""
        for legs in self._ways.ways(here):
            begins = [here, *legs[:-1]]
            if all(self._free(begin, end) for begin, end in zip(begins, legs)):
                return legs
            yield
        return None

    def _search(self, here: np.ndarray, rng: np.random.Generator) -> Looking:
        """Searches for one arm after the other; the arm that finds its way goes first."""
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
                return legs or None        # as far as the way leads; from there more may be free
        return legs

    def _tree(self, here: np.ndarray, arm: int, rng: np.random.Generator) -> Looking:
        """Grows two trees, from where the arm is and from its start joints, each led to what the other has found."""
        ours, theirs = Tree(here[arm]), Tree(self.start[arm])
        mark = self._broken(here)
        least, piece, last = (mark - BETTER, 0), -1, PIECES
        while piece + 1 < min(last, MOST_PIECES):
            piece += 1
            growing, other = (theirs, ours) if piece % 2 else (ours, theirs)
            node: Optional[int] = None
            if rng.random() < AROUND:
                best = growing is ours and rng.random() < 0.5
                node = least[1] if best else int(rng.integers(len(growing.places)))
                few = rng.random(self._lower.shape[1]) < rng.random()       # often one joint alone makes nothing worse
                wanted = growing.places[node] + NEAR_RAD[piece // 2 % len(NEAR_RAD)] * few * rng.uniform(-1.0, 1.0, few.shape)
            else:
                wanted = other.places[0] if rng.random() < TOWARDS else rng.uniform(self._lower[arm], self._upper[arm])
            yield
            new = self._grow(growing, here, arm, wanted, node)
            if new is None:
                continue
            if growing is ours:
                left = self._broken(_with(here, arm, ours.places[new]))
                if left < least[0] or left == 0.0:      # getting inside is worth it, however small the violation was
                    least = left, new
                if left < mark - BETTER:
                    mark, last = left, piece + PIECES
                if left == 0.0:
                    break
            meeting = growing.places[new]
            reached: Optional[int] = other.nearest(meeting)
            while reached is not None and np.abs(other.places[reached] - meeting).max() > 0.0:
                yield
                reached = self._grow(other, here, arm, meeting, reached)
            if reached is not None:
                mine, far = (new, reached) if growing is ours else (reached, new)
                return self._short(here, arm, ours.back(mine)[::-1] + theirs.back(far)[1:])
        return self._short(here, arm, ours.back(least[1])[::-1]) if least[1] else None

    def _grow(self, tree: Tree, here: np.ndarray, arm: int, wanted: np.ndarray, node: Optional[int] = None) -> Optional[int]:
        """Adds a free piece from a node (default: the nearest) towards wanted (dof,) rad; returns the new node, or None."""
        node = tree.nearest(wanted) if node is None else node
        way = wanted - tree.places[node]
        far = float(np.abs(way).max())
        for most in LENGTHS_RAD:
            end = wanted if far <= most else tree.places[node] + way * (most / far)
            if self._free(_with(here, arm, tree.places[node]), _with(here, arm, end)):
                return tree.add(end, node)
        return None

    def _broken(self, joints: np.ndarray) -> float:
        """Returns by how much joints (A, dof) rad break limits in total, m and rad alike; 0 inside."""
        return sum(broken(values) for _, values in self._margins(joints, joints))

    def _short(self, here: np.ndarray, arm: int, way: Legs) -> Legs:
        """Returns the places (dof,) of a way after its first, as (A, dof) each, without those that a straight piece replaces."""
        places = [_with(here, arm, place) for place in way]
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
        """Yields the smallest margins of each limit on the straight piece between joints (A, dof) rad."""
        count = max(2, int(np.ceil(np.abs(end - begin).max() / SPACING_RAD)) + 1)
        share = np.concatenate(([0.0], np.array(FIRST) / (count - 1), np.linspace(0.0, 1.0, count)[1:]))[None, :, None]
        path = begin[:, None, :] + share * (end - begin)[:, None, :]
        trajectory = Trajectory(np.concatenate((path[:, :1], path[:, :1], path), axis=1), self._dt, self._batch)
        for limit in self._limits:
            yield limit, limit.margins(trajectory)


def _with(joints: np.ndarray, arm: int, values: np.ndarray) -> np.ndarray:
    """Returns joints (A, dof) with those of one arm replaced."""
    changed = joints.copy()
    changed[arm] = values
    return changed
