"""A last check of what is about to be sent: scalar code of its own, no solver, no batch kinematics, no trajectories.

It checks the limits of one step: numbers, box and planes, joint positions, speeds and accelerations of tool and joints,
and that the pose matches the joints. When in doubt it objects, and nothing is sent.
"""
from __future__ import annotations

import math
from typing import List, Sequence, Tuple

import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.config import RobotConfig

TOLERANCE = 1e-6
Step = Tuple[List[float], List[List[float]], List[float]]      # position (3,), tool axes 3 x (3,), joints (dof,)


class LastCheck:
    """Compares a command with the two commands before it. `objection` names what was wrong."""

    def __init__(self, config: RobotConfig) -> None:
        self._arms = [ArmCheck(arm, config.dt) for arm in config.arms]
        self._before: List[Step] = []
        self._last: List[Step] = []
        self.objection = ""

    def restart(self, positions: np.ndarray, rotations: np.ndarray, joints: np.ndarray) -> None:
        """Begins anew with a command at rest here."""
        self._before = self._last = _steps(positions, rotations, joints)

    def sent(self, positions: np.ndarray, rotations: np.ndarray, joints: np.ndarray) -> None:
        self._before, self._last = self._last, _steps(positions, rotations, joints)

    def passes(self, positions: np.ndarray, rotations: np.ndarray, joints: np.ndarray, relaxed: bool = False) -> bool:
        """Checks positions (A, 3) m, rotations (A, 3, 3), joints (A, dof) rad. relaxed: re-entering, positions are not judged."""
        for arm, before, last, step in zip(self._arms, self._before, self._last, _steps(positions, rotations, joints)):
            self.objection = arm.objection(before, last, step, relaxed)
            if self.objection:
                return False
        return True


class ArmCheck:
    """The checks of one arm."""

    def __init__(self, arm: ArmConfig, dt: float) -> None:
        limits, cartesian, table = arm.joint_limits, arm.cartesian_limits, arm.kinematics
        self._name, self._dt = arm.name, dt
        self._box = list(zip(arm.workspace.lower_m, arm.workspace.upper_m))
        self._planes = [(plane.normal, plane.offset_m) for plane in arm.workspace.planes]
        self._joints = [(low + limits.margin_rad - TOLERANCE, high - limits.margin_rad + TOLERANCE,
                         (speed + TOLERANCE) * dt, (acceleration + TOLERANCE) * dt * dt)
                        for low, high, speed, acceleration in zip(limits.lower_rad, limits.upper_rad,
                                                                  limits.velocity_rad_s, limits.acceleration_rad_s2)]
        self._step = (cartesian.speed_m_s + TOLERANCE) * dt
        self._change = (cartesian.acceleration_m_s2 + TOLERANCE) * dt * dt
        # The squared steps of the three axes of a turn w add up to 2 |w|^2, second differences to 2 (|change|^2 + |w|^4) at most.
        self._turn = math.sqrt(2.0) * (cartesian.rotation_speed_rad_s + TOLERANCE) * dt
        self._turn_change = math.sqrt(2.0) * math.hypot(
            (cartesian.rotation_acceleration_rad_s2 + TOLERANCE) * dt * dt, self._turn * self._turn / 2.0)
        self._table = [(a, d, math.cos(alpha), math.sin(alpha), offset) for a, d, alpha, offset
                       in zip(table.a_m, table.d_m, table.alpha_rad, table.theta_offset_rad)]
        x, y, z, w = arm.tool.quaternion_xyzw
        self._tool = ([1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)],
                      [2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)],
                      [2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)])
        px, py, pz = arm.tool.position_m
        self._offset = [px, py, pz + table.flange_m]

    def objection(self, before: Step, last: Step, step: Step, relaxed: bool) -> str:
        """Returns the objection to `step` after `before` and `last`; empty if there is none."""
        (p0, axes0, q0), (p1, axes1, q1), (p2, axes2, q2) = before, last, step
        if not all(math.isfinite(value) for value in p2 + q2 + axes2[0] + axes2[1] + axes2[2]):
            return self._because("not finite")
        if not relaxed:
            if any(not low - TOLERANCE <= value <= high + TOLERANCE for value, (low, high) in zip(p2, self._box)):
                return self._because("workspace")
            if any(_dot(normal, p2) < offset - TOLERANCE for normal, offset in self._planes):
                return self._because("plane")
        if math.dist(p1, p2) > self._step:
            return self._because("speed")
        if _bent(p0, p1, p2) > self._change:
            return self._because("acceleration")
        if math.sqrt(sum(math.dist(a, b) ** 2 for a, b in zip(axes1, axes2))) > self._turn:
            return self._because("rotation speed")
        if math.sqrt(sum(_bent(a, b, c) ** 2 for a, b, c in zip(axes0, axes1, axes2))) > self._turn_change:
            return self._because("rotation acceleration")
        for (low, high, speed, change), a, b, c in zip(self._joints, q0, q1, q2):
            if not relaxed and not low <= c <= high:
                return self._because("joint position")
            if abs(c - b) > speed:
                return self._because("joint velocity")
            if abs(c - 2.0 * b + a) > change:
                return self._because("joint acceleration")
        position, axes = self.tool(q2)
        if math.dist(position, p2) > TOLERANCE or max(math.dist(a, b) for a, b in zip(axes, axes2)) > TOLERANCE:
            return self._because("pose is not that of the joints")
        return ""

    def tool(self, joints: Sequence[float]) -> Tuple[List[float], List[List[float]]]:
        """Computes position and axes of the tool centre point at joints (dof,) rad, one joint after the other."""
        p, x, y, z = [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
        for (a, d, ca, sa, offset), q in zip(self._table, joints):
            y, z = [ca * v + sa * w for v, w in zip(y, z)], [ca * w - sa * v for v, w in zip(y, z)]
            p = [v + a * i + d * k for v, i, k in zip(p, x, z)]
            c, s = math.cos(q + offset), math.sin(q + offset)
            x, y = [c * v + s * w for v, w in zip(x, y)], [c * w - s * v for v, w in zip(x, y)]
        turned = [[i * u + j * v + k * w for u, v, w in zip(x, y, z)] for i, j, k in self._tool]
        i, j, k = self._offset
        return [v + i * a + j * b + k * c for v, a, b, c in zip(p, x, y, z)], turned

    def _because(self, what: str) -> str:
        return f"{self._name}/{what}"


def _steps(positions: np.ndarray, rotations: np.ndarray, joints: np.ndarray) -> List[Step]:
    return list(zip(positions.tolist(), rotations.transpose(0, 2, 1).tolist(), joints.tolist()))


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b))


def _bent(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> float:
    """Returns the length of the second difference."""
    return math.sqrt(sum((z - 2.0 * y + x) ** 2 for x, y, z in zip(a, b, c)))
