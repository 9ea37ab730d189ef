"""Fusion of the two paths (paper, section 3.3), and a measure of how far they disagree."""
from __future__ import annotations

from typing import Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.checkpoints.config import EnsembleConfig
from hybridvla_core.transforms.conventions import DOF_PER_ARM


def fuse(diffusion: np.ndarray, autoregressive: np.ndarray, config: EnsembleConfig) -> np.ndarray:
    """Returns the average of two un-normalised actions (A,): translations, rotations and grippers each by their own rule."""
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
    """Returns the largest distance (m) and rotation angle (rad, on SO(3)) between two actions (A,) over the arms."""
    distances, angles = [], []
    for start in range(0, len(diffusion), DOF_PER_ARM):
        place, turn = slice(start, start + 3), slice(start + 3, start + 6)
        distances.append(np.linalg.norm(diffusion[place] - autoregressive[place]))
        first, second = (Rotation.from_euler("xyz", action[turn]) for action in (diffusion, autoregressive))
        angles.append((first.inv() * second).magnitude())
    return float(max(distances)), float(max(angles))


def _mean_rotation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the Euler angles (xyz, fixed axes) half-way along the geodesic from the first to the second."""
    start, end = Rotation.from_euler("xyz", first), Rotation.from_euler("xyz", second)
    half = Rotation.from_rotvec((start.inv() * end).as_rotvec() / 2.0)
    return (start * half).as_euler("xyz")
