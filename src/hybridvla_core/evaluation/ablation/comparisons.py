"""Whether one way is better than another, by episodes with the same seeds: how far apart, and by which test."""
from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence, Tuple

import numpy as np
from scipy.stats import binomtest

from hybridvla_core.errors import HybridVLAError

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "cannot be told with this many episodes"
LEVEL = 0.05
RESAMPLES = 4000
#: A rate that is lower by at most this counts as equal, where equality is what is claimed.
MARGIN = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two ways on the same episodes.

    Attributes:
        episodes: How many pairs.
        difference: Success rate of the first minus that of the second.
        interval: Of the difference, 95 %, by bootstrap over the pairs.
        first_only: Episodes that only the first one solved.
        second_only: Episodes that only the second one solved.
        p: Of the exact McNemar test, two-sided.
    """

    episodes: int
    difference: float
    interval: Tuple[float, float]
    first_only: int
    second_only: int
    p: float


def compare(first: Sequence[bool], second: Sequence[bool]) -> Comparison:
    """Compares two lists of outcomes, in which number i is the same episode.

    Raises:
        HybridVLAError: The lists differ in length, or are empty.
    """
    if len(first) != len(second) or not len(first):
        raise HybridVLAError(f"{len(first)} and {len(second)} episodes cannot be paired; run the same seeds for both")
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    apart = a.astype(float) - b.astype(float)
    picks = np.random.default_rng(len(apart)).integers(0, len(apart), (RESAMPLES, len(apart)))
    low, high = np.quantile(apart[picks].mean(axis=1), [0.025, 0.975])
    return Comparison(len(apart), float(apart.mean()), (float(low), float(high)), only_a, only_b, p)


def is_better(comparisons: Sequence[Comparison]) -> str:
    """Judges "better than each of these", by McNemar's test with Holm's correction.

    Returns:
        `HOLDS` where every one is significantly worse, `FAILS` where one is significantly better, `OPEN` otherwise.
    """
    significant = holm([comparison.p for comparison in comparisons])
    if all(told and comparison.difference > 0 for told, comparison in zip(significant, comparisons)):
        return HOLDS
    if any(told and comparison.difference < 0 for told, comparison in zip(significant, comparisons)):
        return FAILS
    return OPEN


def is_no_worse(comparison: Comparison, margin: float = MARGIN) -> str:
    """Judges "as good as, but for `margin`", by the bootstrap interval of the difference."""
    low, high = comparison.interval
    if low > -margin:
        return HOLDS
    return FAILS if high < -margin else OPEN


def holm(p: Sequence[float]) -> List[bool]:
    """Returns which of several tests are significant together (Holm 1979)."""
    order, told = sorted(range(len(p)), key=lambda index: p[index]), [False] * len(p)
    for rank, index in enumerate(order):
        if p[index] > LEVEL / (len(p) - rank):
            break
        told[index] = True
    return told
