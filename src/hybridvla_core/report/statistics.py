"""Intervals and summaries of episodes."""
from __future__ import annotations

from typing import Any, Dict, List, Sequence

import numpy as np
from scipy.stats import binomtest


def wilson(successes: int, episodes: int) -> List[float]:
    """The Wilson interval of a success rate at 95 %; [0, 1] without episodes."""
    if episodes == 0:
        return [0.0, 1.0]
    interval = binomtest(successes, episodes).proportion_ci(confidence_level=0.95, method="wilson")
    return [round(float(interval.low), 4), round(float(interval.high), 4)]


def rate(successes: int, episodes: int) -> float:
    return round(successes / episodes, 4) if episodes else 0.0


def correlation(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """Pearson correlation of two lists of error vectors, all coordinates together; NaN with fewer than three."""
    a, b = np.concatenate(first) if len(first) else np.zeros(0), np.concatenate(second) if len(second) else np.zeros(0)
    if a.size < 3 or a.std() < 1e-12 or b.std() < 1e-12:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def calibration(confidence: Sequence[float], error: Sequence[float]) -> Dict[str, Any]:
    """Median error (mm) of the more and the less confident half."""
    if len(confidence) < 2:
        return {}
    confidence, error = np.asarray(confidence), np.asarray(error)
    middle = np.median(confidence)
    high, low = error[confidence >= middle], error[confidence < middle]
    return {"median_confidence": round(float(middle), 4),
            "confident_half_median_mm": round(float(np.median(high)) * 1e3, 2),
            "other_half_median_mm": round(float(np.median(low)) * 1e3, 2) if low.size else None}


def percentiles(values: Sequence[float]) -> Dict[str, float]:
    """Median and p99."""
    if not len(values):
        return {"median": 0.0, "p99": 0.0}
    return {"median": round(float(np.median(values)), 3), "p99": round(float(np.percentile(values, 99)), 3)}
