"""A walk out of broken limits in small steps, each chosen from the local change of all margins.

If an arm is at a corner of its box, or also at limits of its joints, almost every random piece breaks something further, but a
direction in which everything improves often exists. At each step a quadratic programme finds the direction that improves most,
while every margin keeps its bound: margins with nothing to spare grow by more than the curvature of the step takes away.
"""
from __future__ import annotations

from typing import Callable, Generator, Iterable, List, Optional, Tuple

import daqp
import numpy as np

from hybridvla_core.safety.limits.joint_position import JointPositionLimit
from hybridvla_core.safety.limits.limit import Limit

STEPS_RAD = (0.1, 0.05, 0.02, 0.005, 0.001)     # steps of the fastest joint; if one is not free, the next is tried
MOST_STEPS = 150       # largest number of steps of a walk
WALKS = 4              # number of walks from the same place, each drawn another way first
STANDS = (15, 0.03)    # a walk is at its end after so many steps in which no joint moves this far, rad
SLOPE_RAD = 1e-5       # change of a joint by which slopes of margins are found
NEAR_M = 0.2           # m or rad; a step can only reach margins with less than this to spare
SHARE = 0.5            # share of a margin's spare room that a step may use
CURVED = 1.0           # m/rad^2 that the curvature of a step may take from a margin of place
LENGTH = 0.03          # slope, m/rad, for which a joint turns as fast as the step allows
WORSE = 1e-9           # m or rad by which rounding may break a broken limit further
INSIDE = 0.003         # m or rad inside a limit up to which a walk keeps improving a margin
Walking = Generator[None, None, Optional[List[np.ndarray]]]
Margins = Callable[[np.ndarray, np.ndarray], Iterable[Tuple[Limit, np.ndarray]]]


class WalkOut:
    """Walks among limits that are given by two functions of a straight piece between joints (A, dof) rad.

    Args:
        margins: Returns the smallest margins of each limit on a piece.
        free: Returns whether a piece breaks nothing further than the search allows.
        towards: (A, dof) start joints, rad.
        lower: (A, dof) lower bounds of the joints to which walks are drawn, rad.
        upper: (A, dof) upper bounds of the joints to which walks are drawn, rad.
    """

    def __init__(self, margins: Margins, free: Callable[[np.ndarray, np.ndarray], bool], towards: np.ndarray,
                 lower: np.ndarray, upper: np.ndarray) -> None:
        self._margins, self._free, self._towards, self._lower, self._upper = margins, free, towards, lower, upper

    def find(self, here: np.ndarray, rng: np.random.Generator, anew: bool = False) -> Walking:
        """Walks from joints (A, dof) rad, all arms at once, until nothing is broken.

        Args:
            here: Joints at which the walk begins; no limit is broken further than here.
            rng: Draws the joints to which walks are drawn.
            anew: Whether to leave out the walks that need no `rng`, because they have been tried.

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
        """Returns the places of a walk drawn to joints (A, dof) rad, or up to the least violation, and that violation."""
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
        """Returns the change of joints (A, dof) rad, at most `size` each, that improves most; None if margins cannot be kept."""
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
        """Computes how all margins (k,) change with each joint, (k, A * dof) m or rad over rad."""
        rows = []
        for change in np.eye(joints.size) * SLOPE_RAD:
            rows.append((self._values(joints + change.reshape(joints.shape)) - values) / SLOPE_RAD)
            yield
        return np.stack(rows, axis=1)

    def _values(self, joints: np.ndarray) -> np.ndarray:
        """Returns the margins (k,) of all limits at joints (A, dof) rad."""
        found = [(limit.name == JointPositionLimit.name, values.ravel()) for limit, values in self._margins(joints, joints)]
        self._straight_rows = np.concatenate([np.full(values.size, straight) for straight, values in found])
        return np.concatenate([values for _, values in found])

    def straight(self, places: List[np.ndarray]) -> Generator[None, None, List[np.ndarray]]:
        """Leaves out places that a straight free piece can replace.

        Args:
            places: Joints (A, dof) rad, one after the other.

        Returns:
            At the end, the remaining places after the first.

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
    """Returns by how much margins (k,) are below zero in total, m and rad alike."""
    return float(np.maximum(-values - WORSE, 0.0).sum())
