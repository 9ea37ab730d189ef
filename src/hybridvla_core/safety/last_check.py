"""A last look at what is about to be sent: scalar code of its own, no solver, no batch kinematics, no trajectories."""
from __future__ import annotations

import math

import numpy as np

from hybridvla_core.safety.config import RobotConfig

TOLERANCE = 1e-6


class LastCheck:
    """Compares a command with the two before it. `objection` names what was wrong."""

    def __init__(self, config: RobotConfig) -> None:
        self._config = config
        self.objection = ""

    def restart(self, positions: np.ndarray, rotations: np.ndarray, joints: np.ndarray) -> None:
        """The command begins anew, at rest, here."""
        self._positions = [positions.tolist()] * 2
        self._joints = [joints.tolist()] * 2
        self._rotations = [rotations] * 2

    def sent(self, positions: np.ndarray, rotations: np.ndarray, joints: np.ndarray) -> None:
        self._positions = [self._positions[1], positions.tolist()]
        self._joints = [self._joints[1], joints.tolist()]
        self._rotations = [self._rotations[1], rotations]

    def passes(self, positions: np.ndarray, rotations: np.ndarray, joints: np.ndarray, relaxed: bool = False) -> bool:
        """positions (A, 3) m, rotations (A, 3, 3), joints (A, dof) rad. relaxed: re-entering, positions not judged."""
        dt = self._config.dt
        for index, arm in enumerate(self._config.arms):
            values = positions[index].tolist() + joints[index].tolist() + rotations[index].ravel().tolist()
            if not all(math.isfinite(value) for value in values):
                return self._object(arm.name, "not finite")
            limits, cartesian = arm.joint_limits, arm.cartesian_limits
            p0, p1, p2 = self._positions[0][index], self._positions[1][index], positions[index].tolist()
            if not relaxed and any(not low - TOLERANCE <= value <= high + TOLERANCE for low, value, high
                                   in zip(arm.workspace.lower_m, p2, arm.workspace.upper_m)):
                return self._object(arm.name, "workspace")
            if _length(p1, p2) > cartesian.speed_m_s * dt + TOLERANCE * dt:
                return self._object(arm.name, "speed")
            bend = [c - 2.0 * b + a for a, b, c in zip(p0, p1, p2)]
            if math.sqrt(sum(x * x for x in bend)) > (cartesian.acceleration_m_s2 + TOLERANCE) * dt * dt:
                return self._object(arm.name, "acceleration")
            cosine = 0.5 * (float(np.vdot(rotations[index], self._rotations[1][index])) - 1.0)
            if cosine < math.cos(cartesian.rotation_speed_rad_s * dt) - 1e-9:
                return self._object(arm.name, "rotation speed")
            q1, q2 = self._joints[1][index], joints[index].tolist()
            for low, high, speed, before, value in zip(limits.lower_rad, limits.upper_rad, limits.velocity_rad_s,
                                                       q1, q2):
                if not relaxed and not low - TOLERANCE <= value <= high + TOLERANCE:
                    return self._object(arm.name, "joint position")
                if abs(value - before) > (speed + TOLERANCE) * dt:
                    return self._object(arm.name, "joint velocity")
        return True

    def _object(self, arm: str, what: str) -> bool:
        self.objection = f"{arm}/{what}"
        return False


def _length(a, b) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))
