"""The contents of requests and replies, read from maps of the wire; nothing is taken on trust."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.errors import WireError
from hybridvla_core.transforms.conventions import ActionConvention

#: Longest chunk of actions, and longest instruction, that are accepted.
MAX_CHUNK, MAX_PROMPT = 256, 4096
NUMBERS = ("mean_confidence", "path_distance", "path_angle", "spread_distance", "spread_angle")


@dataclass(frozen=True)
class Request:
    """One observation to predict from.

    Attributes:
        observation: Images, state, instruction and stamp.
        mode: Mode to use instead of the policy's own.
        seed: Seed of the noise.
    """

    observation: Observation
    mode: Optional[Mode]
    seed: int


def array_of(message: Mapping[str, object], key: str, kind: type, axes: int) -> np.ndarray:
    """Reads an array of a message.

    Args:
        message: The message as received.
        key: Key of the array.
        kind: np.uint8 means exactly that, float any number.
        axes: Number of axes.

    Returns:
        The array, uint8 or float64.

    Raises:
        WireError: The array is missing, is no array, or has another type or number of axes.
    """
    value = message.get(key)
    if value is None:
        there = ", ".join(sorted(message))[:200] or "nothing"
        raise WireError(f"{key} is missing; the message has {there}")
    if not isinstance(value, np.ndarray) or value.ndim != axes:
        found = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise WireError(f"{key} must be an array of {axes} axes, and is {found}")
    if kind is np.uint8 and value.dtype != np.uint8:
        raise WireError(f"{key} has elements of type {value.dtype}; send uint8")
    return value if kind is np.uint8 else value.astype(np.float64)


def text_of(message: Mapping[str, object], key: str) -> str:
    """Returns the text at `key`, or raises WireError."""
    value = message.get(key)
    if not isinstance(value, str) or len(value) > MAX_PROMPT:
        raise WireError(f"{key} must be a text of at most {MAX_PROMPT} characters")
    return value


def whole(message: Mapping[str, object], key: str, default: int) -> int:
    """Returns the whole number at `key`, from 0 to below 2^63, or raises WireError; the default if there is none."""
    value = message.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2 ** 63:
        raise WireError(f"{key} must be a whole number from 0 below 2^63")
    return value


def number(value: object, name: str) -> float:
    """Returns a value as a number, or raises WireError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WireError(f"{name} must be a number")
    return float(value)


def reply_of(prediction: Prediction, stamp_ns: int) -> Dict[str, Any]:
    """Returns the map that carries a prediction; plain openpi clients read its `actions`."""
    return {"actions": np.atleast_2d(prediction.action), "stamp_ns": stamp_ns, "mode": int(prediction.mode),
            "fused": bool(prediction.fused), "diffusion": prediction.diffusion, "autoregressive": prediction.autoregressive,
            "ar_complete": bool(prediction.ar_complete), "token_confidence": prediction.token_confidence,
            "noise_seed": int(prediction.noise_seed), "passes": int(prediction.passes),
            "noise_samples": int(prediction.noise_samples),
            "stage_ms": {str(name): float(ms) for name, ms in prediction.stage_ms.items()},
            **{name: float(getattr(prediction, name)) for name in NUMBERS}}


def prediction_of(message: Mapping[str, object], convention: ActionConvention) -> Prediction:
    """Reads the prediction that a reply carries.

    Args:
        message: The reply.
        convention: Convention of the policy.

    Returns:
        The prediction.

    Raises:
        WireError: Actions are missing, not finite or not of this convention, or a field is of the wrong kind.
    """
    action = array_of(message, "actions", float, 2)
    if not 1 <= action.shape[0] <= MAX_CHUNK or action.shape[1] != convention.action_dim:
        raise WireError(f"the server answered actions of shape {action.shape}; (1 to {MAX_CHUNK}, {convention.action_dim}) is "
                        f"what the arms {', '.join(convention.arms)} need")
    if not np.isfinite(action).all():
        raise WireError("the server answered actions that are not finite")
    mode = whole(message, "mode", int(Mode.DIFFUSION))
    if mode not in list(Mode):
        raise WireError(f"the server answered the mode {mode}, which there is not")
    # Tokens describe one step, however long the chunk is.
    parts = {name: _part(message, name, shape) for name, shape in (
        ("diffusion", action.shape), ("autoregressive", (1, convention.action_dim)),
        ("token_confidence", (convention.action_dim,)))}
    stages = message.get("stage_ms", {})
    if not isinstance(stages, dict):
        raise WireError("stage_ms must be a map")
    said = {name: number(message.get(name, math.nan), name) for name in NUMBERS}
    return Prediction(
        action=action, mode=Mode(mode), fused=bool(message.get("fused", False)), diffusion=parts["diffusion"],
        autoregressive=parts["autoregressive"], ar_complete=bool(message.get("ar_complete", True)),
        token_confidence=parts["token_confidence"],
        stage_ms={str(name): number(ms, f"stage_ms of {name}") for name, ms in stages.items()},
        noise_seed=whole(message, "noise_seed", 0), passes=whole(message, "passes", 0),
        noise_samples=whole(message, "noise_samples", 1), mean_confidence=said["mean_confidence"],
        path_distance=said["path_distance"], path_angle=said["path_angle"], spread_distance=said["spread_distance"],
        spread_angle=said["spread_angle"])


def _part(message: Mapping[str, object], name: str, shape: Tuple[int, ...]) -> Optional[np.ndarray]:
    """Returns the output of a path, if it ran; raises WireError for a shape other than the contract's."""
    if message.get(name) is None:
        return None
    found = array_of(message, name, float, len(shape))
    if found.shape != shape:
        raise WireError(f"the server answered {name} of shape {found.shape}; {shape} is what belongs to its actions")
    return found
