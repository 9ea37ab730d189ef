"""Capsules around links: their segments at every sample, and distances between many of them at once."""
from __future__ import annotations

from typing import List, Tuple

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.kinematics import Frames
from hybridvla_core.robots.limits import Capsule
from hybridvla_core.safety.limits.limit import Trajectory

STRIDE = 6      # distances along a braking trajectory are measured every so many ticks


def reach(arm: ArmConfig, capsule: Capsule, beyond: int = 0) -> np.ndarray:
    """Computes how far a point of a capsule moves, at most, for each radian of each joint.

    Args:
        arm: The arm with its table of joints.
        capsule: A capsule on one of the arm's links.
        beyond: Number of a joint up to which joints do not count: seen from link `beyond` they do not move the capsule.

    Returns:
        (dof,) reach, m/rad.
    """
    table = arm.kinematics
    extent = max(float(np.linalg.norm(capsule.start_m)), float(np.linalg.norm(capsule.end_m)))
    lengths = np.abs(table.a_m) + np.abs(table.d_m)
    result = np.zeros(arm.dof)
    for joint in range(beyond, capsule.link):
        result[joint] = extent + lengths[joint + 1:capsule.link].sum()
    return result


class ArmCapsules:
    """The capsules of one arm. segments: (samples, capsules, 3) each for start and end, in the arm's base frame."""

    def __init__(self, arm: ArmConfig, index: int) -> None:
        self.names = [capsule.name for capsule in arm.collision.capsules]
        self.radii = np.array([capsule.radius_m for capsule in arm.collision.capsules])
        self._index = index
        self._links = [capsule.link for capsule in arm.collision.capsules]
        ends = np.array([(capsule.start_m, capsule.end_m) for capsule in arm.collision.capsules]).reshape(-1, 2, 3)
        self._ends = ends.transpose(1, 2, 0)[:, :, None, :, None]         # start and end, (3, 1, capsules, 1) each

    def segments(self, links: List[Frames], samples: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        # All capsules at once: (samples, capsules, 3) each, in that memory order too: it decides how matrix products round.
        position, xy, z = (np.ascontiguousarray(np.array([part[self._index][:, samples] for part in parts]).transpose(2, 0, 1))
                           for parts in zip(*(links[link] for link in self._links)))
        start, end = (position + x * xy.real + y * xy.imag + h * z for x, y, h in self._ends)
        return start, end


class Clearance:
    """Skips distance computations while the arms cannot have covered the clearance measured last.

    A point of an arm moves by at most the sum of reach times joint step. A clearance therefore bounds how far the joints may
    move before it has to be measured again.
    """

    def __init__(self, reaches: np.ndarray) -> None:
        """Takes reaches (k, A, dof), m/rad, for each of the k clearances."""
        self._reach = reaches.reshape(len(reaches), reaches.shape[1] * reaches.shape[2])
        self._by_arm = reaches.max(axis=0) if len(reaches) else np.zeros(reaches.shape[1:])
        self._joints = np.zeros(reaches.shape[1:])
        self._rooms = np.full(len(reaches), -np.inf)

    def remember(self, joints: np.ndarray, rooms: np.ndarray) -> None:
        """Remembers clearances (k,) m that were measured at joints (A, dof)."""
        self._joints, self._rooms = joints.copy(), rooms

    def suffices(self, trajectory: Trajectory) -> bool:
        ahead = trajectory.joints[:, trajectory.SENT:] - self._joints[:, None]
        return bool((self._reach @ np.abs(ahead).max(axis=1).ravel() < self._rooms).all())

    def samples(self, trajectory: Trajectory) -> Tuple[np.ndarray, np.ndarray]:
        """Chooses which samples to measure.

        If the motion between samples leaves no room, every tick has to be measured: arms that move together side by side come
        no nearer.

        Args:
            trajectory: Trajectory of all arms.

        Returns:
            Indices of the samples, and the largest distance (A,) m that any point moves from the nearest sample.
        """
        count = trajectory.joints.shape[1]
        picks = np.unique(np.append(np.arange(trajectory.SENT, count, STRIDE), count - 1))
        if len(picks) == count - trajectory.SENT:
            return picks, np.zeros(len(self._by_arm))
        path = np.abs(np.diff(trajectory.joints, axis=1)).cumsum(axis=1)
        gaps = np.diff(path[:, picks - 1], axis=1)
        return picks, 0.5 * np.einsum("aj,agj->ag", self._by_arm, gaps).max(axis=1)


def segment_distance(p1: np.ndarray, q1: np.ndarray, p2: np.ndarray, q2: np.ndarray) -> np.ndarray:
    """Returns distances (...) between segments p1 q1 and p2 q2, each (..., 3). Ericson, Real-Time Collision Detection 5.1.9."""
    d1, d2, r = q1 - p1, q2 - p2, p1 - p2
    a, e, f = (d1 * d1).sum(-1), (d2 * d2).sum(-1), (d2 * r).sum(-1)
    b, c = (d1 * d2).sum(-1), (d1 * r).sum(-1)
    a, e = np.maximum(a, 1e-12), np.maximum(e, 1e-12)
    denominator = a * e - b * b
    s = np.where(denominator > 1e-12, (b * f - c * e) / np.maximum(denominator, 1e-12), 0.0)
    s = np.minimum(np.maximum(s, 0.0), 1.0)
    t = np.minimum(np.maximum((b * s + f) / e, 0.0), 1.0)
    s = np.minimum(np.maximum((b * t - c) / a, 0.0), 1.0)
    gap = r + s[..., None] * d1 - t[..., None] * d2
    return np.sqrt((gap * gap).sum(-1))
