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
WALKS = 4              # from the same place, each drawn another way
STANDS = (15, 0.03)    # so many steps in which no joint gets so far, rad: this walk has come to its end
SLOPE_RAD = 1e-5       # of a joint, by which slopes of margins are found
NEAR_M = 0.2           # m or rad; only what has less to spare can be reached by a step
SHARE = 0.5            # of what a margin has to spare may be used by a step
CURVED = 1.0           # m/rad^2: what the curvature of a step may take from a margin of a place
DRAWN = 0.03           # weight of where a walk is drawn to, beside what it mends
INSIDE = 0.003         # m or rad, as far inside as a walk goes on to mend
Walking = Generator[None, None, Optional[List[np.ndarray]]]
Margins = Callable[[np.ndarray, np.ndarray], Iterable[Tuple[Limit, np.ndarray]]]


class WalkOut:
    """Walks among limits that are told by two functions of a straight piece between joints (A, dof) rad.

    Args:
        margins: The smallest margins of each limit on a piece.
        free: Whether a piece breaks nothing further than the search allows.
        towards: (A, dof) rad, the start joints.
    """

    def __init__(self, margins: Margins, free: Callable[[np.ndarray, np.ndarray], bool], towards: np.ndarray) -> None:
        self._margins, self._free, self._towards = margins, free, towards

    def find(self, here: np.ndarray, rng: np.random.Generator) -> Walking:
        """Walks from joints (A, dof) rad, all arms at once, until nothing is broken.

        Args:
            here: Where it begins; no limit is broken further than here.
            rng: Draws the walks after the first.

        Returns:
            At the end, joints (A, dof) rad to go to one after the other, inside or where least is broken, or None.

        Yields:
            Nothing, after each look at the margins.
        """
        floor = np.minimum(self._values(here), 0.0)
        best: List[np.ndarray] = [here]
        least = _broken(self._values(here))
        for walk in range(WALKS):
            drawn = self._towards if walk == 1 else here + (rng.uniform(-2.0, 2.0, here.shape) if walk else 0.0)
            begin = best if walk % 2 else [here]
            places, broken = yield from self._walk(begin, floor, drawn)
            if broken < least:
                best, least = places, broken
            if least == 0.0:
                break
        return (yield from self._straight(best)) if len(best) > 1 else None

    def _walk(self, places: List[np.ndarray], floor: np.ndarray,
              drawn: np.ndarray) -> Generator[None, None, Tuple[List[np.ndarray], float]]:
        """The places of one walk up to where least was broken, and how much that is."""
        places = list(places)
        values = self._values(places[-1])
        best, least, size = len(places), _broken(values), 0
        for count in range(MOST_STEPS):
            slopes = yield from self._slopes(places[-1])
            for size in range(max(0, size - 1), len(STEPS_RAD)):
                change = self._step(places[-1], values, slopes, floor, drawn, STEPS_RAD[size])
                if change is None:
                    continue
                yield
                if self._free(places[-1], places[-1] + change):
                    break
            else:
                break
            places.append(places[-1] + change)
            values = self._values(places[-1])
            broken = _broken(values)
            if broken < least:
                best, least = len(places), broken
            if broken == 0.0 or count >= STANDS[0] and np.abs(places[-1] - places[-1 - STANDS[0]]).max() < STANDS[1]:
                break
        return places[:best], least

    def _step(self, joints: np.ndarray, values: np.ndarray, slopes: np.ndarray, floor: np.ndarray, drawn: np.ndarray,
              size: float) -> Optional[np.ndarray]:
        """Change of joints (A, dof) rad, at most `size` each, by which most is mended; None where all margins cannot be kept."""
        count = joints.size
        spare = values - floor
        near = spare < NEAR_M
        mended = np.where(values < INSIDE, 1.0, 0.0) @ slopes
        way = (drawn - joints).ravel()
        pull = way / max(1.0, float(np.abs(way).max()))
        lower = (np.where(self._straight_rows, 0.0, CURVED * size) - SHARE * spare / size)[near]
        solution, _, flag, _ = daqp.solve(DRAWN * np.eye(count), np.ascontiguousarray(-mended - DRAWN * pull),
                                          np.ascontiguousarray(slopes[near]),
                                          np.concatenate((np.ones(count), np.full(int(near.sum()), 1e3))),
                                          np.concatenate((-np.ones(count), lower)),
                                          np.zeros(count + int(near.sum()), dtype=np.int32))
        found = np.asarray(solution)
        if flag <= 0 or not np.isfinite(found).all() or np.abs(found).max() < 1e-6:
            return None
        return size * np.clip(found, -1.0, 1.0).reshape(joints.shape)

    def _slopes(self, joints: np.ndarray) -> Generator[None, None, np.ndarray]:
        """How all margins change (k, A * dof) with each joint, m or rad over rad."""
        rows = []
        for change in np.eye(joints.size) * SLOPE_RAD:
            more, less = (self._values(joints + sign * change.reshape(joints.shape)) for sign in (1.0, -1.0))
            rows.append((more - less) / (2.0 * SLOPE_RAD))
            yield
        return np.stack(rows, axis=1)

    def _values(self, joints: np.ndarray) -> np.ndarray:
        """Margins (k,) of all limits at joints (A, dof) rad."""
        found = [(limit.name == JointPositionLimit.name, values.ravel()) for limit, values in self._margins(joints, joints)]
        self._straight_rows = np.concatenate([np.full(values.size, straight) for straight, values in found])
        return np.concatenate([values for _, values in found])

    def _straight(self, places: List[np.ndarray]) -> Generator[None, None, List[np.ndarray]]:
        """The places of a way after its first, those left out that a straight free piece replaces."""
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


def _broken(values: np.ndarray) -> float:
    """By how much margins (k,) are below zero, all of it together."""
    return float(np.maximum(-values - 1e-9, 0.0).sum())
