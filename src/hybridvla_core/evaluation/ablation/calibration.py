"""Tests on the records of episodes whether confidence is calibrated and whether the second path knows what the first does not."""
from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from scipy.stats import spearmanr

from hybridvla_core.evaluation.ablation.cells import Outcome
from hybridvla_core.report.comparisons import FAILS, HOLDS, OPEN
from hybridvla_core.report.statistics import wilson

#: Number of equal parts into which the predictions are divided after sorting by confidence.
PARTS = 5
#: A target within this distance of the expert's counts as good, mm.
NEAR_MM = 5.0
#: The paper's figures for successful samples: the share whose mean confidence exceeds the threshold, and the threshold.
PAPER_SHARE, THRESHOLD = 0.8, 0.96


def calibration_sheet(outcomes: Sequence[Outcome]) -> Dict[str, Any]:
    """Returns the sheet of outcomes in ensemble mode; it has no rows if no token was decoded."""
    pairs = np.array([pair for outcome in outcomes for pair in zip(outcome.confidence, outcome.errors_mm) if pair[0] is not None],
                     dtype=float).reshape(-1, 2)
    rows, bars = [], []
    ordered = pairs[np.argsort(pairs[:, 0], kind="stable")]
    for part in np.array_split(ordered, PARTS) if len(ordered) >= PARTS else []:
        told, errors = part[:, 0], part[:, 1]
        name, median = f"{told.min():.3f} to {told.max():.3f}", round(float(np.median(errors)), 2)
        near = int((errors < NEAR_MM).sum())
        rows.append([name, len(part), f"{median:.1f}", f"{near / len(part):.2f}",
                     "{:.3f} to {:.3f}".format(*wilson(near, len(part)))])
        bars.append([name, median, f"{median:.1f} mm", None])
    remarks = []
    if len(pairs) > 2 and np.ptp(pairs, axis=0).min() > 0:
        related = spearmanr(pairs[:, 0], pairs[:, 1])
        remarks.append(f"Rank correlation of confidence and error over {len(pairs)} predictions: {related.statistic:.2f}, "
                       f"p {related.pvalue:.2g} (Spearman; below 0: the more confident, the nearer).")
    correlations = [outcome.correlation for outcome in outcomes if outcome.correlation is not None]
    if correlations:
        remarks.append(f"The errors of the two paths correlate with {sum(correlations) / len(correlations):.2f} (mean of "
                       f"{len(correlations)} runs, Pearson; at 1 the second path adds nothing).")
    return {"name": "calibration", "title": "Calibration (section 3.3)", "unit": "median error of a target, mm",
            "about": "Predictions in ensemble mode, sorted into five equal parts by the mean confidence of their tokens. Near is "
                     f"a target within {NEAR_MM:g} mm of the expert's.",
            "head": ["confidence", "predictions", "median error, mm", "near", "95 %"], "rows": rows, "bars": bars,
            "remarks": remarks, "claims": [_claim(outcomes)]}


def _claim(outcomes: Sequence[Outcome]) -> Dict[str, Any]:
    means = episode_means(outcomes)
    sure = sum(mean > THRESHOLD for mean, won in means if won)
    count = sum(won for _, won in means)
    low, high = wilson(sure, count)
    verdict = HOLDS if low > PAPER_SHARE else FAILS if high < PAPER_SHARE else OPEN
    return {"text": f"in over {PAPER_SHARE:.0%} of successful episodes the mean confidence exceeds {THRESHOLD}",
            "verdict": verdict,
            "test": f"{sure} of {count} successful episodes, Wilson interval {low:.3f} to {high:.3f} against {PAPER_SHARE}",
            "compared": {}}


def episode_means(outcomes: Sequence[Outcome]) -> List[Tuple[float, bool]]:
    """Returns the mean confidence of each episode that has one, and whether it succeeded."""
    found = []
    for outcome in outcomes:
        begin = 0
        for count, won in zip(outcome.predictions, outcome.success):
            told = [value for value in outcome.confidence[begin:begin + count] if value is not None]
            begin += count
            if told:
                found.append((sum(told) / len(told), won))
    return found
