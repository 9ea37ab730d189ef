"""Whether one way is better than another on episodes with the same seeds: the difference, and the test."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import numpy as np
from scipy.stats import binomtest

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.report.statistics import wilson_bounds

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "cannot be told with this many episodes"
LEVEL = 0.05
#: A rate that is lower by at most this counts as equal, if the claim is equality.
MARGIN = 0.05


@dataclass(frozen=True)
class Comparison:
    """Comparison of two ways on the same episodes.

    Attributes:
        episodes: Number of pairs.
        difference: Success rate of the first minus that of the second.
        interval: 95 % interval of the difference, by Newcombe's method for pairs.
        first_only: Number of episodes that only the first one solved.
        second_only: Number of episodes that only the second one solved.
        p: p-value of the exact McNemar test, two-sided.
    """

    episodes: int
    difference: float
    interval: Tuple[float, float]
    first_only: int
    second_only: int
    p: float


def compare(first: Sequence[bool], second: Sequence[bool]) -> Comparison:
    """Compares two lists of outcomes in which entry i is the same episode.

    Args:
        first: Success of the first way by episode.
        second: Success of the second way by episode.

    Returns:
        The difference of the rates with its interval, and how likely it is by chance.

    Raises:
        HybridVLAError: The lists differ in length, or are empty.
    """
    if len(first) != len(second) or not len(first):
        raise HybridVLAError(f"{len(first)} and {len(second)} episodes cannot be paired; run the same seeds for both")
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    low, high = newcombe(int((a & b).sum()), only_a, only_b, int((~a & ~b).sum()))
    return Comparison(len(a), round(float(a.mean() - b.mean()), 4), (low, high), only_a, only_b, p)


def newcombe(both: int, first: int, second: int, neither: int) -> Tuple[float, float]:
    """Returns the 95 % interval of the difference of two paired rates (Newcombe 1998, method 10).

    Unlike a bootstrap, it does not conclude that pairs which never differed never will.
    """
    count = both + first + second + neither
    rates = [(both + first) / count, (both + second) / count]
    margins = float((both + first) * (second + neither) * (both + second) * (first + neither))
    apart = float(both * neither - first * second)
    related = (max(apart - count / 2, 0.0) if apart > 0 else apart) / math.sqrt(margins) if margins else 0.0
    (low_a, high_a), (low_b, high_b) = wilson_bounds(both + first, count), wilson_bounds(both + second, count)
    difference = rates[0] - rates[1]

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one ** 2 - 2 * related * one * other + other ** 2))
    return (round(difference - reach(rates[0] - low_a, high_b - rates[1]), 4),
            round(difference + reach(high_a - rates[0], rates[1] - low_b), 4))


def is_better(comparisons: Sequence[Comparison]) -> str:
    """Judges "better than each of these", by McNemar's test with Holm's correction.

    Returns:
        `HOLDS` if every other is significantly worse, `FAILS` if one is significantly better, `OPEN` otherwise.
    """
    significant = holm([comparison.p for comparison in comparisons])
    if all(told and comparison.difference > 0 for told, comparison in zip(significant, comparisons)):
        return HOLDS
    if any(told and comparison.difference < 0 for told, comparison in zip(significant, comparisons)):
        return FAILS
    return OPEN


def is_no_worse(comparison: Comparison, margin: float = MARGIN) -> str:
    """Judges "no worse by more than `margin`", by the interval of the difference."""
    low, high = comparison.interval
    if low > -margin:
        return HOLDS
    return FAILS if high < -margin else OPEN


def holm(p: Sequence[float]) -> List[bool]:
    """Returns which of several tests are jointly significant (Holm 1979)."""
    order, told = sorted(range(len(p)), key=lambda index: p[index]), [False] * len(p)
    for rank, index in enumerate(order):
        if p[index] > LEVEL / (len(p) - rank):
            break
        told[index] = True
    return told
