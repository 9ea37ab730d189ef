"""Small rotation helpers on plain arrays; matrices (3, 3), rotation vectors (3,) rad, quaternions (4,) xyzw.

Written out because one call of a general library costs more than a whole step of the filter can spare.
"""
from __future__ import annotations

import math

import numpy as np


def log(matrix: np.ndarray) -> np.ndarray:
    """Rotation vector of a rotation matrix, length in [0, pi]."""
    quaternion = to_quaternion(matrix)
    w = quaternion[3]
    vector = quaternion[:3] if w >= 0.0 else -quaternion[:3]
    sine = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    if sine < 1e-10:
        return 2.0 * vector
    return (2.0 * math.atan2(sine, abs(w)) / sine) * vector


def exp(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix of a rotation vector (Rodrigues)."""
    x, y, z = float(vector[0]), float(vector[1]), float(vector[2])
    angle = math.sqrt(x * x + y * y + z * z)
    if angle < 1e-12:
        return np.array([[1.0, -z, y], [z, 1.0, -x], [-y, x, 1.0]])
    s, c = math.sin(angle) / angle, (1.0 - math.cos(angle)) / (angle * angle)
    return np.array([[1.0 - c * (y * y + z * z), c * x * y - s * z, c * x * z + s * y],
                     [c * x * y + s * z, 1.0 - c * (x * x + z * z), c * y * z - s * x],
                     [c * x * z - s * y, c * y * z + s * x, 1.0 - c * (x * x + y * y)]])


def to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """Unit quaternion xyzw of a rotation matrix (Shepperd's choice of the largest component)."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrix.ravel().tolist()
    trace = m00 + m11 + m22
    if trace >= m00 and trace >= m11 and trace >= m22:
        quaternion = [m21 - m12, m02 - m20, m10 - m01, 1.0 + trace]
    elif m00 >= m11 and m00 >= m22:
        quaternion = [1.0 + 2.0 * m00 - trace, m01 + m10, m02 + m20, m21 - m12]
    elif m11 >= m22:
        quaternion = [m01 + m10, 1.0 + 2.0 * m11 - trace, m12 + m21, m02 - m20]
    else:
        quaternion = [m02 + m20, m12 + m21, 1.0 + 2.0 * m22 - trace, m10 - m01]
    norm = math.sqrt(sum(value * value for value in quaternion))
    return np.array([value / norm for value in quaternion])


def to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix of a quaternion xyzw of any length but zero."""
    x, y, z, w = (np.asarray(quaternion, dtype=float) / np.linalg.norm(quaternion)).tolist()
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])
