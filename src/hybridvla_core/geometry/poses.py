"""Distances, angles and interpolation between tool poses: the one place where two poses are compared."""
from __future__ import annotations

import numpy as np

from hybridvla_core.contracts import Pose
from hybridvla_core.geometry import rotations


def distance(first: Pose, second: Pose) -> float:
    """Returns the distance between the positions of two poses in one frame, m."""
    return float(np.linalg.norm(np.asarray(first.position, float) - np.asarray(second.position, float)))


def angle(first: Pose, second: Pose) -> float:
    """Returns the angle between the orientations of two poses, rad in [0, pi]."""
    return turn(rotations.to_matrix(first.quaternion), rotations.to_matrix(second.quaternion))


def turn(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the angle between two rotation matrices (3, 3), rad in [0, pi]."""
    return rotations.length(rotations.log(first @ second.T))


def between(first: Pose, second: Pose, share: float) -> Pose:
    """Returns the pose at `share` (0 to 1) of the way: linear in position, along the shortest rotation in orientation."""
    position = (1.0 - share) * np.asarray(first.position, float) + share * np.asarray(second.position, float)
    begin = rotations.to_matrix(first.quaternion)
    way = rotations.log(rotations.to_matrix(second.quaternion) @ begin.T)
    return Pose(position, rotations.to_quaternion(rotations.exp(share * way) @ begin))
