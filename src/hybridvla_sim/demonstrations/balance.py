"""Selects the step of a task to sample next: each step occurs about equally often, however long the hand stays in it."""
from __future__ import annotations

from collections import Counter
from typing import Sequence, Tuple

import numpy as np

#: Weight of a failed try relative to a successful one, so that a step that hardly ever fits does not use up all tries.
FAILED = 0.1
#: Weight of a step that the expert itself did not pass through (it opens a hand again): half as many of these are enough.
ASIDE = 2.0
STAY = "stay"


class Balance:
    """Counts steps, and says which step is wanted and whether another one will do.

    The label of two arms that do different things has both names (`grasp/pregrasp`) and counts for both.

    Args:
        labels: Labels of the states around which states are sampled, one per state.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._around = [steps(label) for label in labels]
        self._passed = tuple(dict.fromkeys(step for found in self._around for step in found))
        self._counts: Counter = Counter()
        self._failed: Counter = Counter()

    def wanted(self, rng: np.random.Generator) -> Tuple[str, int]:
        """Returns the step seen least so far, and the number of a state at which it begins."""
        step = min(self._passed, key=lambda name: (self._counts[name] + FAILED * self._failed[name], self._passed.index(name)))
        numbers = [number for number, found in enumerate(self._around) if step in found]
        return step, numbers[int(rng.integers(len(numbers)))]

    def failed(self, step: str) -> None:
        """Records that a try for a step did not fit."""
        self._failed[step] += 1

    def takes(self, label: str, wanted: str, rng: np.random.Generator) -> bool:
        """Tells whether to take a state: it shows the wanted step, or another one that is about as rare."""
        found = steps(label)
        excess = min(self._weighed(step) for step in found) - self._counts[wanted]
        return wanted in found or bool(rng.random() < 1.0 / (1.0 + max(excess, 0.0)))

    def count(self, label: str) -> None:
        """Records that a state was taken."""
        self._counts.update(steps(label))

    def _weighed(self, step: str) -> float:
        return self._counts[step] if step in self._passed else ASIDE * self._counts[step]


def steps(label: str) -> Tuple[str, ...]:
    """Returns the steps of a label, one per arm; an arm that only waits does not count if the other one acts."""
    found = tuple(dict.fromkeys(label.split("/")))
    return tuple(step for step in found if step != STAY) or found
