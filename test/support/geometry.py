"""Rotations and distances of segments for the checker, many at a time. It uses nothing of the package under test."""
from __future__ import annotations

import numpy as np


def matrix(quaternion: np.ndarray) -> np.ndarray:
    """Return rotation matrices (..., 3, 3) of unit quaternions xyzw (..., 4)."""
    v, w = quaternion[..., :3], quaternion[..., 3, None, None]
    cross = np.zeros(quaternion.shape[:-1] + (3, 3))
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    cross[..., 1, 0], cross[..., 2, 0], cross[..., 2, 1] = v[..., 2], -v[..., 1], v[..., 0]
    return np.eye(3) + 2.0 * w * cross + 2.0 * cross @ cross


def rotation_vectors(turns: np.ndarray) -> np.ndarray:
    """Return rotation vectors (n, 3) of rotations (n, 3, 3) below half a turn, from their antisymmetric parts."""
    half = 0.5 * np.stack((turns[:, 2, 1] - turns[:, 1, 2], turns[:, 0, 2] - turns[:, 2, 0],
                           turns[:, 1, 0] - turns[:, 0, 1]), axis=1)
    sine = np.linalg.norm(half, axis=1)
    angle = np.arctan2(sine, 0.5 * (np.trace(turns, axis1=1, axis2=2) - 1.0))
    return half * np.where(sine < 1e-9, 1.0, angle / np.maximum(sine, 1e-9))[:, None]


def apart_many(first: np.ndarray, second: np.ndarray, near: float) -> np.ndarray:
    """Return distances of segments (..., 2, 3) and (..., 2, 3); beyond `near`, a lower bound that is at least `near`.

    Midpoints and half lengths bound every distance from below; the exact distance is computed only for near segments.
    """
    first, second = np.broadcast_arrays(first, second)
    middle = 0.5 * (first.sum(axis=-2) - second.sum(axis=-2))
    halves = 0.5 * (np.linalg.norm(first[..., 1, :] - first[..., 0, :], axis=-1)
                    + np.linalg.norm(second[..., 1, :] - second[..., 0, :], axis=-1))
    away = np.linalg.norm(middle, axis=-1) - halves
    close = away < near
    if close.any():
        away[close] = apart(first[close], second[close])
    return away


def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return distances (n,) of segments (n, 2, 3) and (n, 2, 3).

    Either an end of one segment is nearest to the other segment, or both nearest points are inner points on the common
    perpendicular of the two lines. The distance is the smallest of the four end distances and, if it exists, that
    perpendicular.
    """
    (a, b), (c, d) = (np.moveaxis(segment, 1, 0) for segment in (first, second))
    ends = np.minimum(np.minimum(_point(a, c, d), _point(b, c, d)), np.minimum(_point(c, a, b), _point(d, a, b)))
    u, v, w = b - a, d - c, c - a
    normal = np.cross(u, v)
    square = (normal * normal).sum(axis=1)
    crossing = square > 1e-14
    safe = np.where(crossing, square, 1.0)
    s = (np.cross(w, v) * normal).sum(axis=1) / safe
    t = (np.cross(w, u) * normal).sum(axis=1) / safe
    inner = crossing & (s >= 0.0) & (s <= 1.0) & (t >= 0.0) & (t <= 1.0)
    return np.where(inner, np.minimum(ends, np.abs((w * normal).sum(axis=1)) / np.sqrt(safe)), ends)


def _point(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    way = end - start
    square = np.maximum((way * way).sum(axis=1), 1e-15)
    share = np.clip(((point - start) * way).sum(axis=1) / square, 0.0, 1.0)
    return np.linalg.norm(point - start - share[:, None] * way, axis=1)
