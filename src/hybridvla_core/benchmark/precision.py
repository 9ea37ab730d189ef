"""Effect of weights in fewer bits on actions, tokens and the gate's decisions, for the same observations and noises."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Tuple

import numpy as np

from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.errors import ObservationError
from hybridvla_core.model.shrunk.choose import size_of
from hybridvla_core.policy.inference.ensemble import disagreement
from hybridvla_core.report.statistics import quantiles
from hybridvla_core.transforms.conventions import DOF_PER_ARM

if TYPE_CHECKING:
    from hybridvla_core.policy.predictor import Policy

#: Middle between 0 and 1; a gripper command on its other side is a different command.
HALF = 0.5


def predictions_of(policy: Policy, observations: Sequence[Observation], seed: int = 0) -> List[Prediction]:
    """Predicts every observation with all tokens, one at a time; with diffusion alone if the tokens were never trained.

    Args:
        policy: Policy that predicts.
        observations: Observations in order.
        seed: Seed of the noise.

    Returns:
        One prediction for each observation.

    Raises:
        ObservationError: There are no observations to compare on.
    """
    if not observations:
        raise ObservationError("there is no observation to compare on; name more episodes, or a data set that has frames")
    mode = Mode.ENSEMBLE if "autoregressive" in policy.config.trained else Mode.DIFFUSION
    return [policy.predict(observation, mode=mode, seed=seed) for observation in observations]


def decoder_size(policy: Policy) -> Dict[str, float]:
    """Returns the megabytes of the decoder's blocks, and their bits per number."""
    numbers, held = size_of(policy.model.llm.model.layers)
    return {"blocks_mb": round(held / 1e6, 2), "bits": round(8 * held / numbers, 2)}


def change(before: Sequence[Prediction], after: Sequence[Prediction]) -> Dict[str, Any]:
    """Computes how far the predictions are apart, pair by pair.

    Args:
        before: Predictions to compare with.
        after: Predictions of the same observations.

    Returns:
        Quantiles of distance (mm) and angle (degrees) of executed actions, the largest over steps and arms; the same for the
        diffusion paths; shares of predictions whose gripper command, gate or tokens differ, and of all tokens that differ.
    """
    moved = np.array([_apart(one.action, other.action) for one, other in zip(before, after)])
    drawn = [_apart(one.diffusion, other.diffusion) for one, other in zip(before, after)
             if one.diffusion is not None and other.diffusion is not None]
    grips = [_grips(one.action) != _grips(other.action) for one, other in zip(before, after)]
    tokens = np.array([_tokens(one, other) for one, other in zip(before, after)])
    found: Dict[str, Any] = {"predictions": len(before), **_quantiles("", moved), **_quantiles("diffusion_", np.array(drawn)),
                             "grippers_differ": _share(grips),
                             "gates_flip": _share([one.fused != other.fused for one, other in zip(before, after)]),
                             "fused_before": _share([one.fused for one in before])}
    if tokens.size:
        found.update(tokens_differ=round(float(tokens.mean()), 4), with_another_token=_share(list(tokens.any(axis=1))),
                     passes=round(float(np.mean([one.passes for one in after])), 3))
    return found


def _apart(one: np.ndarray, other: np.ndarray) -> Tuple[float, float]:
    """Returns the difference (mm, degrees) between two chunks (K, A)."""
    steps = [disagreement(*pair) for pair in zip(one, other)]
    return max(step[0] for step in steps) * 1e3, float(np.degrees(max(step[1] for step in steps)))


def _quantiles(prefix: str, moved: np.ndarray) -> Dict[str, float]:
    """Returns the quantiles of (N, 2) mm and degrees."""
    found: Dict[str, float] = {}
    for column, unit in enumerate(("mm", "degrees") if len(moved) else ()):
        found.update(quantiles(list(moved[:, column]), {f"{prefix}median_{unit}": 50.0, f"{prefix}p99_{unit}": 99.0,
                                                        f"{prefix}largest_{unit}": 100.0}, 4))
    return found


def _grips(action: np.ndarray) -> Tuple[bool, ...]:
    return tuple((action[:, DOF_PER_ARM - 1::DOF_PER_ARM] > HALF).ravel().tolist())


def _tokens(one: Prediction, other: Prediction) -> List[bool]:
    """Returns which tokens differ, judged by the bins that they stand for."""
    if one.autoregressive is None or other.autoregressive is None:
        return []
    return [not bool(same) for same in np.isclose(one.autoregressive[0], other.autoregressive[0], atol=1e-9)]


def _share(values: Sequence[bool]) -> float:
    return round(float(np.mean(values)), 4)
