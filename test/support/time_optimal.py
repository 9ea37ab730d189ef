"""The fastest motion along a path that joint and tool limits allow, by TOPP-RA: the yardstick for free motion.

Pham & Pham, "A New Approach to Time-Optimal Path Parameterization based on Reachability Analysis", T-RO 2018.
"""
from __future__ import annotations

import logging
import sys
import types

import numpy as np
from scipy.spatial.transform import Rotation

# toppra imports matplotlib for a plotting helper that is never called here.
for _name in ("matplotlib", "matplotlib.pyplot"):
    sys.modules.setdefault(_name, types.ModuleType(_name))
import toppra  # noqa: E402  # after the stand-in for matplotlib
import toppra.algorithm as algorithm  # noqa: E402  # after the stand-in for matplotlib
import toppra.constraint as constraint  # noqa: E402  # after the stand-in for matplotlib

logging.getLogger("toppra").setLevel(logging.ERROR)
KNOTS = 40


def seconds(arms, joints: np.ndarray, positions: np.ndarray, rotations: np.ndarray, scale: float = 1.0) -> float:
    """Return the duration of the time-optimal motion from rest to rest along a path of all arms, s.

    joints (n, A, dof) rad, positions (n, A, 3) m and rotations (n, A, 3, 3) at n points in order; scale multiplies speeds.
    The travel and rotation of each tool are axes beside the joints, so that their speed and acceleration bind as well.
    """
    ways = np.linalg.norm(np.diff(positions, axis=0), axis=2)
    turns = np.array([[Rotation.from_matrix(b @ a.T).magnitude() for a, b in zip(before, after)]
                      for before, after in zip(rotations[:-1], rotations[1:])])
    axes, speeds, accelerations = [], [], []
    for index, arm in enumerate(arms):
        axes += [joints[:, index, joint] for joint in range(arm.dof)]
        speeds += [scale * v for v in arm.joint_limits.velocity_rad_s]
        accelerations += list(arm.joint_limits.acceleration_rad_s2)
        limits = arm.cartesian_limits
        axes += [np.append(0.0, np.cumsum(ways[:, index])), np.append(0.0, np.cumsum(turns[:, index]))]
        speeds += [scale * limits.speed_m_s, scale * limits.rotation_speed_rad_s]
        accelerations += [limits.acceleration_m_s2, limits.rotation_acceleration_rad_s2]
    values = np.stack(axes, axis=1)
    progress = np.append(0.0, np.cumsum(np.abs(np.diff(values, axis=0)).sum(axis=1)))
    kept = np.append(True, np.diff(progress) > 1e-9)
    progress, values = progress[kept] / progress[-1], values[kept]
    knots = np.linspace(0.0, 1.0, KNOTS)
    path = toppra.SplineInterpolator(knots, np.stack([np.interp(knots, progress, column) for column in values.T], 1))
    bounds = [constraint.JointVelocityConstraint(np.array(speeds)),
              constraint.JointAccelerationConstraint(np.array(accelerations))]
    profile = algorithm.TOPPRA(bounds, path, gridpoints=np.linspace(0.0, 1.0, 201), solver_wrapper="seidel")
    trajectory = profile.compute_trajectory()
    assert trajectory is not None, "TOPP-RA found no profile"
    return float(trajectory.duration)
