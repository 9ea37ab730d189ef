"""Fusing the two paths (paper, section 3.3) and measuring how far they disagree."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.transforms.conventions import DOF_PER_ARM

RULES = ("mean", "released")
ROTATION_MEANS = ("so3", "euler")
GRIPPER_RULES = ("diffusion", "mean_above_half")


@dataclass(frozen=True)
class EnsembleConfig:
    """When and how the paths are averaged.

    rule: `mean`: the mean confidence of all tokens exceeds theta (paper); `released`: the sum of the first arm's first
    six exceeds 5.8, deciding for both arms. confidence_window_bins: a token's confidence is the probability within this
    many bins of the decoded one; 0 is the paper. rotation_mean: on SO(3), or of Euler angles as released (wrong at the
    wrap-around). gripper: where the paths differ, `diffusion` decides, or `mean_above_half` as released (then 0).
    """

    rule: str
    theta: float
    confidence_window_bins: int
    rotation_mean: str
    gripper: str

    def __post_init__(self) -> None:
        for name, allowed in (("rule", RULES), ("rotation_mean", ROTATION_MEANS), ("gripper", GRIPPER_RULES)):
            if getattr(self, name) not in allowed:
                raise ConfigurationError(f"ensemble: {name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}")
        if not 0.0 < self.theta <= 6.0 or self.confidence_window_bins < 0:
            raise ConfigurationError("ensemble: theta must be positive and confidence_window_bins not negative")

    def passes(self, confidence: np.ndarray) -> bool:
        """Whether the gate opens for token confidences (A,)."""
        if self.rule == "released":
            return float(np.sum(confidence[:6])) > self.theta
        return float(np.mean(confidence)) > self.theta


def fuse(diffusion: np.ndarray, autoregressive: np.ndarray, config: EnsembleConfig) -> np.ndarray:
    """The average of two un-normalised actions (A,): translations, rotations and grippers each by their rule."""
    result = (diffusion + autoregressive) / 2.0
    for start in range(0, len(result), DOF_PER_ARM):
        turn = slice(start + 3, start + 6)
        if config.rotation_mean == "so3":
            result[turn] = _mean_rotation(diffusion[turn], autoregressive[turn])
        gripper = start + 6
        if config.gripper == "mean_above_half":
            result[gripper] = 1.0 if result[gripper] > 0.5 else 0.0
        elif (diffusion[gripper] > 0.5) != (autoregressive[gripper] > 0.5):
            result[gripper] = diffusion[gripper]
    return result


def disagreement(diffusion: np.ndarray, autoregressive: np.ndarray) -> Tuple[float, float]:
    """Largest distance (m) and rotation angle (rad, on SO(3)) between two actions (A,) over the arms."""
    distances, angles = [], []
    for start in range(0, len(diffusion), DOF_PER_ARM):
        place, turn = slice(start, start + 3), slice(start + 3, start + 6)
        distances.append(np.linalg.norm(diffusion[place] - autoregressive[place]))
        first, second = (Rotation.from_euler("xyz", action[turn]) for action in (diffusion, autoregressive))
        angles.append((first.inv() * second).magnitude())
    return float(max(distances)), float(max(angles))


def _mean_rotation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Euler angles (xyz, fixed axes) half-way along the geodesic from the first to the second."""
    start, end = Rotation.from_euler("xyz", first), Rotation.from_euler("xyz", second)
    half = Rotation.from_rotvec((start.inv() * end).as_rotvec() / 2.0)
    return (start * half).as_euler("xyz")
