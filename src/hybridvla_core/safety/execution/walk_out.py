"""A walk out of broken limits in small steps, each chosen from how all margins change there.

Where an arm stands at a corner of its box, or at limits of its joints too, hardly a random piece breaks nothing further, but a
direction in which everything gets better often exists. At each step a quadratic programme finds the one by which most is mended,
while every margin keeps what it has to keep: those with nothing to spare grow by more than the curvature of the step takes away.
"""
from __future__ import annotations

from typing import Callable, Generator, Iterable, List, Optional, Tuple

import daqp
import numpy as np

from hybridvla_core.safety.limits.joint_position import JointPositionLimit
from hybridvla_core.safety.limits.limit import Limit

STEPS_RAD = (0.1, 0.05, 0.02, 0.005, 0.001)     # of the fastest joint; the next one where one is not free
MOST_STEPS = 150       # of a walk
WALKS = 4              # from the same place, each drawn another way first
STANDS = (15, 0.03)    # so many steps in which no joint gets so far, rad: this walk has come to its end
SLOPE_RAD = 1e-5       # of a joint, by which slopes of margins are found
NEAR_M = 0.2           # m or rad; only what has less to spare can be reached by a step
SHARE = 0.5            # of what a margin has to spare may be used by a step
CURVED = 1.0           # m/rad^2: what the curvature of a step may take from a margin of a place
LENGTH = 0.03          # m/rad of slope for which a joint turns as fast as the step lets it
WORSE = 1e-9           # m or rad that a broken limit may be broken further by rounding
INSIDE = 0.003         # m or rad, as far inside as a walk goes on to mend
Walking = Generator[None, None, Optional[List[np.ndarray]]]
Margins = Callable[[np.ndarray, np.ndarray], Iterable[Tuple[Limit, np.ndarray]]]


class WalkOut:
    """Walks among limits that are told by two functions of a straight piece between joints (A, dof) rad.

    Args:
        margins: The smallest margins of each limit on a piece.
        free: Whether a piece breaks nothing further than the search allows.
        towards: (A, dof) rad, the start joints.
        lower: (A, dof) rad, between this and `upper` are the joints that walks are drawn to.
        upper: (A, dof) rad.
    """

    def __init__(self, margins: Margins, free: Callable[[np.ndarray, np.ndarray], bool], towards: np.ndarray,
                 lower: np.ndarray, upper: np.ndarray) -> None:
        self._margins, self._free, self._towards, self._lower, self._upper = margins, free, towards, lower, upper

    def find(self, here: np.ndarray, rng: np.random.Generator, anew: bool = False) -> Walking:
        """Walks from joints (A, dof) rad, all arms at once, until nothing is broken.

        Args:
            here: Where it begins; no limit is broken further than here.
            rng: Draws the joints that walks are drawn to.
            anew: Leaves out the walks that need no `rng`, since they have been tried.

        Returns:
            At the end, joints (A, dof) rad to go to one after the other, the last of them inside, or None.

        Yields:
            Nothing, after each look at the margins.
        """
        floor = np.minimum(self._values(here), 0.0)
        for walk in range(2 if anew else 0, (2 if anew else 0) + WALKS):
            places = [here]
            for drawn in ([], [self._towards], [rng.uniform(self._lower, self._upper)],
                          [rng.uniform(self._lower, self._upper), self._towards])[min(walk, 2 + walk % 2)]:
                places, _ = yield from self._walk(places, floor, drawn)
            places, left = yield from self._walk(places, floor)
            if left == 0.0 and len(places) > 1:
                return (yield from self.straight(places))
        return None

    def _walk(self, places: List[np.ndarray], floor: np.ndarray,
              drawn: Optional[np.ndarray] = None) -> Generator[None, None, Tuple[List[np.ndarray], float]]:
        """The places of a walk drawn to joints (A, dof) rad, or up to where least is broken, and how much that is."""
        places = list(places)
        values = self._values(places[-1])
        best, least, size = len(places), broken(values), 0
        for count in range(MOST_STEPS):
            slopes = yield from self._slopes(places[-1], values)
            for wanted in range(max(0, size - 1), len(STEPS_RAD)):
                yield
                change, size = self._step(places[-1], values, slopes, floor, drawn, STEPS_RAD[wanted]), wanted
                if change is None:
                    continue
                yield
                if self._free(places[-1], places[-1] + change):
                    break
            else:
                break
            places.append(places[-1] + change)
            values = self._values(places[-1])
            left = broken(values)
            if left < least or drawn is not None:
                best, least = len(places), left
            if left == 0.0 or count >= STANDS[0] and np.abs(places[-1] - places[-1 - STANDS[0]]).max() < STANDS[1]:
                break
        return places[:best], least

    def _step(self, joints: np.ndarray, values: np.ndarray, slopes: np.ndarray, floor: np.ndarray,
              drawn: Optional[np.ndarray], size: float) -> Optional[np.ndarray]:
        """Change of joints (A, dof) rad, at most `size` each, by which most is mended; None where all margins cannot be kept."""
        count = joints.size
        spare = values - floor
        near = spare < NEAR_M
        if drawn is None:
            wanted = np.where(values < INSIDE, 1.0, 0.0) @ slopes / LENGTH
        else:
            way = (drawn - joints).ravel()
            wanted = way / max(size, float(np.abs(way).max()))
        lower = (np.where(self._straight_rows, 0.0, CURVED * size) - SHARE * spare / size)[near]
        solution, _, flag, _ = daqp.solve(np.eye(count), np.ascontiguousarray(-wanted),
                                          np.ascontiguousarray(slopes[near]),
                                          np.concatenate((np.ones(count), np.full(int(near.sum()), 1e3))),
                                          np.concatenate((-np.ones(count), lower)),
                                          np.zeros(count + int(near.sum()), dtype=np.int32))
        found = np.asarray(solution)
        if flag <= 0 or not np.isfinite(found).all() or np.abs(found).max() < 1e-6:
            return None
        return size * np.clip(found, -1.0, 1.0).reshape(joints.shape)

    def _slopes(self, joints: np.ndarray, values: np.ndarray) -> Generator[None, None, np.ndarray]:
        """How all margins (k,) change with each joint, (k, A * dof) m or rad over rad."""
        rows = []
        for change in np.eye(joints.size) * SLOPE_RAD:
            rows.append((self._values(joints + change.reshape(joints.shape)) - values) / SLOPE_RAD)
            yield
        return np.stack(rows, axis=1)

    def _values(self, joints: np.ndarray) -> np.ndarray:
        """Margins (k,) of all limits at joints (A, dof) rad."""
        found = [(limit.name == JointPositionLimit.name, values.ravel()) for limit, values in self._margins(joints, joints)]
        self._straight_rows = np.concatenate([np.full(values.size, straight) for straight, values in found])
        return np.concatenate([values for _, values in found])

    def straight(self, places: List[np.ndarray]) -> Generator[None, None, List[np.ndarray]]:
        """Leaves out places that a straight free piece replaces.

        Args:
            places: Joints (A, dof) rad, one after the other.

        Returns:
            At the end, those that are left after the first.

        Yields:
            Nothing, after each look at a piece.
        """
        legs: List[np.ndarray] = []
        begin = 0
        while begin < len(places) - 1:
            far = len(places) - 1 - begin
            while far > 1:
                yield
                if self._free(places[begin], places[begin + far]):
                    break
                far = (2 * far) // 3
            begin += far
            legs.append(places[begin])
        return legs


def broken(values: np.ndarray) -> float:
    """Returns by how much margins (k,) are below zero, all of it together, m and rad alike."""
    return float(np.maximum(-values - WORSE, 0.0).sum())
