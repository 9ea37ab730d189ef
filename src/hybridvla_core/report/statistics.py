"""Intervals and summaries of episodes."""
from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
from scipy.stats import binomtest

#: Numbers of any length, as a list or as an array.
Numbers = Union[Sequence[float], np.ndarray]


def wilson(successes: int, episodes: int) -> List[float]:
    """Returns the Wilson interval of a success rate at 95 %; [0, 1] without episodes."""
    return [round(bound, 4) for bound in wilson_bounds(successes, episodes)] if episodes else [0.0, 1.0]


def wilson_bounds(successes: int, episodes: int) -> Tuple[float, float]:
    """Returns the same interval without rounding, for at least one episode."""
    interval = binomtest(successes, episodes).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def rate(successes: int, episodes: int) -> float:
    """Returns a share, rounded; 0 without episodes."""
    return round(successes / episodes, 4) if episodes else 0.0


def correlation(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """Returns the Pearson correlation of two lists of error vectors over all coordinates; NaN with fewer than three."""
    a, b = np.concatenate(first) if len(first) else np.zeros(0), np.concatenate(second) if len(second) else np.zeros(0)
    if a.size < 3 or a.std() < 1e-12 or b.std() < 1e-12:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def calibration(confidence: Sequence[float], error: Sequence[float]) -> Dict[str, Optional[float]]:
    """Returns the median error (mm) of the more and of the less confident half; nothing for fewer than two.

    Args:
        confidence: Confidence of each prediction.
        error: Error of each prediction, m.
    """
    if len(confidence) < 2:
        return {}
    told, errors = np.asarray(confidence), np.asarray(error)
    middle = np.median(told)
    high, low = errors[told >= middle], errors[told < middle]
    return {"median_confidence": round(float(middle), 4),
            "confident_half_median_mm": round(float(np.median(high)) * 1e3, 2),
            "other_half_median_mm": round(float(np.median(low)) * 1e3, 2) if low.size else None}


def quantiles(values: Numbers, percents: Mapping[str, float], digits: Optional[int] = None) -> Dict[str, float]:
    """Returns quantiles by name.

    Args:
        values: Any numbers.
        percents: Percent of each name, e.g. {"median": 50.0, "p99": 99.0}; interpolated between two values.
        digits: Decimals to round to; None: not rounded.

    Returns:
        The quantile of each name; 0 without values.
    """
    if not len(values):
        return dict.fromkeys(percents, 0.0)
    found = [float(value) for value in np.percentile(np.asarray(values, dtype=float), list(percents.values()))]
    return {name: value if digits is None else round(value, digits) for name, value in zip(percents, found)}


def percentiles(values: Numbers, digits: int = 3) -> Dict[str, float]:
    """Returns median and p99, rounded; 0 without values."""
    return quantiles(values, {"median": 50.0, "p99": 99.0}, digits)
