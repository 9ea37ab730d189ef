"""Small rotation helpers on plain arrays; matrices (3, 3), rotation vectors (3,) rad, quaternions (4,) xyzw.

Logarithm and exponential are Pinocchio's. The quaternion functions are written out because one call of a general library
costs more than a whole step of the filter can spare.
"""
from __future__ import annotations

import math

import numpy as np
import pinocchio as pin


def log(matrix: np.ndarray) -> np.ndarray:
    """Returns the rotation vector (3,) of a rotation matrix (3, 3), length in [0, pi]."""
    return pin.log3(matrix)


def exp(vector: np.ndarray) -> np.ndarray:
    """Returns the rotation matrix (3, 3) of a rotation vector (3,) rad."""
    return pin.exp3(vector)


def length(vector: np.ndarray) -> float:
    """Returns the length of a vector (n,); `np.linalg.norm` takes four times as long."""
    return math.sqrt(vector @ vector)


def to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """Returns the unit quaternion xyzw of a rotation matrix (Shepperd's choice of the largest component)."""
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
    """Returns the rotation matrix (3, 3) of a quaternion xyzw of any length but zero."""
    quaternion = np.asarray(quaternion, dtype=float)
    x, y, z, w = (quaternion / length(quaternion)).tolist()
    return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])
