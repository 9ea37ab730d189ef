"""Selects the pictures of a replay to keep: a filmstrip over the recording, and the worst moments."""
from __future__ import annotations

import heapq
from typing import List, Set, Tuple

import numpy as np

from hybridvla_core.evaluation.replay.report import filmstrip
from hybridvla_core.evaluation.replay.rows import Frame, Row

SAME_MOMENT_S = 0.5      # worst moments closer together than this show the same thing


class Gallery:
    """Keeps JPEGs in the rows they belong to; drops those that worse moments displace.

    Args:
        worst: Number of worst moments whose pictures are kept.
        every_s: Spacing of the filmstrip, s of the recording.
        radius_m: Radius at which an angle counts as a distance, m (`Row.badness`).
        gripper_m: Distance that a wrong gripper counts as, m.
    """

    def __init__(self, worst: int, every_s: float, radius_m: float, gripper_m: float) -> None:
        self._count, self._every, self._radius, self._gripper = worst, every_s, radius_m, gripper_m
        self._worst: List[Tuple[float, int, Row]] = []
        self._at = -np.inf
        self._strip: Set[int] = set()

    def begin(self) -> None:
        """Begins the filmstrip of another recording."""
        self._at = -np.inf

    def add(self, row: Row, frame: Frame) -> None:
        """Keeps the frame's pictures in `row` if they belong to the filmstrip or to the worst moments so far."""
        images = frame.inference.observation.images
        if frame.time - self._at >= self._every:
            self._at = frame.time
            self._strip.add(row.index)
            row.pictures = filmstrip.thumbnails(images)
        bad = row.badness(self._radius, self._gripper)
        if bad <= 0.0 or not self._count:
            return
        near = next((entry for entry in self._worst if entry[2].recording == row.recording
                     and abs(entry[2].time - row.time) < SAME_MOMENT_S), None)
        if near is not None:
            if near[0] >= bad:
                return
            self._worst.remove(near)
            heapq.heapify(self._worst)
            self._forget(near[2])
        if len(self._worst) < self._count or bad > self._worst[0][0]:
            row.pictures = row.pictures or filmstrip.thumbnails(images)
            heapq.heappush(self._worst, (bad, row.index, row))
        if len(self._worst) > self._count:
            self._forget(heapq.heappop(self._worst)[2])

    def _forget(self, row: Row) -> None:
        if row.index not in self._strip:
            row.pictures = {}

    @property
    def worst(self) -> List[Row]:
        """Returns the worst moments, the worst first."""
        return [row for _, _, row in sorted(self._worst, key=lambda entry: -entry[0])]
