"""Whether confidence is calibrated: predicted against observed, token by token, and the success of the more confident half."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Protocol, Sequence, runtime_checkable

import numpy as np

from hybridvla_core.contracts import Prediction
from hybridvla_core.report.statistics import rate, wilson

if TYPE_CHECKING:
    from hybridvla_core.checkpoints.config import CheckpointConfig
    from hybridvla_core.transforms.normalise import Normaliser

#: Largest number of dots in a reliability diagram.
BINS = 10


@runtime_checkable
class ModelPolicy(Protocol):
    """What a policy with a checkpoint offers in addition; scripted and recorded ones do not."""

    @property
    def config(self) -> CheckpointConfig:
        """The checkpoint's own configuration."""

    @property
    def normaliser(self) -> Normaliser:
        """Converts between the policy's numbers and physical units."""


def hits(policy: object, wanted: np.ndarray, prediction: Prediction) -> Optional[np.ndarray]:
    """Returns (A,) whether each token is right: the wanted value is in its bin, or within the checkpoint's window around it.

    Args:
        policy: Policy that made the prediction.
        wanted: (A,) wanted action, m, rad, gripper.
        prediction: Prediction of the policy.

    Returns:
        None if the tokens were not all decoded, or if the policy has no bins (it is not one of our checkpoints).
    """
    told, decoded = prediction.token_confidence, prediction.autoregressive
    if not isinstance(policy, ModelPolicy) or told is None or decoded is None or not np.isfinite(told).all():
        return None
    scale, config = policy.normaliser.action, policy.config
    reach = (config.ensemble.confidence_window_bins + 0.5) * 2.0 / config.model.bins
    right: np.ndarray = np.abs(scale.normalise(wanted) - scale.normalise(decoded[0])) <= reach
    return right


def binned(told: np.ndarray, right: np.ndarray) -> List[List[float]]:
    """Returns counts that can be added up over episodes: `[bin, tokens, sum of their confidences, how many were right]` for each
    bin with tokens.

    Args:
        told: (N,) confidences in [0, 1].
        right: (N,) whether each token was right.
    """
    bins = np.minimum((np.asarray(told, dtype=float) * BINS).astype(int), BINS - 1)
    return [[number, int((bins == number).sum()), float(told[bins == number].sum()), int(right[bins == number].sum())]
            for number in range(BINS) if (bins == number).any()]


def of_bins(counts: Iterable[Sequence[float]]) -> Dict[str, Any]:
    """Returns the table of a reliability diagram, and the expected calibration error.

    Args:
        counts: Counts as `binned` returns them, of any number of episodes.
    """
    sums: Dict[int, np.ndarray] = {}
    for number, *values in counts:
        sums[int(number)] = sums.get(int(number), np.zeros(3)) + np.asarray(values, dtype=float)
    if not sums:
        return {}
    table: List[Dict[str, Any]] = [
        {"told": round(float(told / tokens), 5), "right": round(float(right / tokens), 5), "tokens": int(tokens)}
        for _, (tokens, told, right) in sorted(sums.items())]
    error = sum(row["tokens"] * abs(row["told"] - row["right"]) for row in table) / sum(row["tokens"] for row in table)
    return {"tokens": table, "expected_calibration_error": round(float(error), 5)}


def of_tokens(told: np.ndarray, right: np.ndarray) -> Dict[str, Any]:
    """Returns the table of a reliability diagram, and the expected calibration error.

    Args:
        told: (N,) confidences in [0, 1].
        right: (N,) whether each token was right.
    """
    return of_bins(binned(told, right)) if len(told) else {}


def of_episodes(confidence: Sequence[float], success: Sequence[bool]) -> Dict[str, Any]:
    """Returns how often the more confident half of the episodes succeeded, and how often the other half.

    Args:
        confidence: Mean confidence over the predictions of each episode; episodes with NaN are left out.
        success: Whether each episode succeeded.
    """
    told, won = np.asarray(confidence, dtype=float), np.asarray(success, dtype=bool)
    told, won = told[np.isfinite(told)], won[np.isfinite(told)]
    if len(told) < 2:
        return {}
    order = np.argsort(-told, kind="stable")
    half = len(told) // 2
    found: Dict[str, Any] = {}
    for name, chosen in (("confident_half", order[:half]), ("other_half", order[-half:])):
        wins = int(won[chosen].sum())
        found[name] = {"episodes": half, "successes": wins, "success_rate": rate(wins, half), "interval": wilson(wins, half),
                       "mean_confidence": round(float(told[chosen].mean()), 4)}
    return found
