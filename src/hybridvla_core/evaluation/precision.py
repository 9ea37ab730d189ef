"""How much a shorter number format changes, in millimetres and degrees."""
from __future__ import annotations

from typing import Dict, Optional

import numpy as np

from hybridvla_core.contracts import Prediction
from hybridvla_core.policy.inference.ensemble import disagreement


def action_difference(first: np.ndarray, second: np.ndarray) -> Dict[str, float]:
    """Computes the largest differences between two actions, over the chunk and the arms.

    Args:
        first: (K, A) action in physical units.
        second: (K, A) action in physical units.

    Returns:
        `position_mm`, `rotation_deg` (on SO(3)) and `gripper`.
    """
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    pairs = [disagreement(a, b) for a, b in zip(first, second)]
    grippers = np.abs(first[:, 6::7] - second[:, 6::7])
    return {"position_mm": max(distance for distance, _ in pairs) * 1e3,
            "rotation_deg": float(np.degrees(max(angle for _, angle in pairs))), "gripper": float(grippers.max())}


def prediction_difference(first: Prediction, second: Prediction) -> Dict[str, Optional[Dict[str, float]]]:
    """Computes the same for the parts of two `Prediction`s; None where a path did not run to its end in both."""
    result: Dict[str, Optional[Dict[str, float]]] = {}
    for name in ("action", "diffusion", "autoregressive"):
        a, b = getattr(first, name), getattr(second, name)
        usable = a is not None and b is not None and np.isfinite(a).all() and np.isfinite(b).all()
        result[name] = action_difference(a, b) if usable else None
    return result


def sentence(name: str, difference: Dict[str, float]) -> str:
    return (f"{name}: {difference['position_mm']:.3f} mm, {difference['rotation_deg']:.3f} degrees, gripper "
            f"{difference['gripper']:.2f}")
