"""Constrained differential inverse kinematics: one small quadratic programme for each arm and tick.

minimise |J dq - s x|^2 (task) + slack (1 - s)^2 + damping |dq - posture|^2
subject to joint bounds on dq (velocity, acceleration, and what can still be braked before a position limit, in
discrete time) and 0 <= s <= 1: if a bound is active, the step shrinks and keeps its direction.
"""
from __future__ import annotations

from typing import Optional, Tuple

import daqp
import eigenpy
import numpy as np

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.safety.motion.pursuit import PLAN

ROTATION_WEIGHT = 0.3      # weight of an orientation error against a position error, m/rad
DAMPING = 1e-6
DETOUR_DAMPING = 1e-4      # if bounds are active: shrink the step rather than swing the elbow far around them
SLACK = 1e-2
LOAD = 0.9                 # share of the joints' acceleration for the tool's own acceleration; curved joint paths use the rest
RATE_SHARE = 0.97          # share of velocity and acceleration limits; the rest is left to the judgement of the whole motion


class StepSolver:
    """Solves for the joint step of one arm."""

    def __init__(self, arm: ArmConfig, dt: float) -> None:
        limits = arm.joint_limits
        self._dt = dt
        self._lower = np.array(limits.lower_rad) + limits.margin_rad
        self._upper = np.array(limits.upper_rad) - limits.margin_rad
        acceleration = RATE_SHARE * np.array(limits.acceleration_rad_s2)
        self._fastest = RATE_SHARE * np.array(limits.velocity_rad_s) * dt
        self._change = acceleration * dt * dt
        self._braking = PLAN * acceleration
        self._loads = LOAD * acceleration[:, None]
        self._damping = DAMPING * np.eye(6)
        dof = arm.dof
        self._weights = np.array([1.0, 1.0, 1.0] + [ROTATION_WEIGHT] * 3)
        self._identity = DAMPING * np.eye(dof)
        self._detour = DETOUR_DAMPING * np.eye(dof)
        self._targets = np.zeros((6, 2))
        self._hessian = np.zeros((dof + 1, dof + 1))
        self._gradient = np.zeros(dof + 1)
        self._rows = np.zeros((0, dof + 1))
        self._bounds_upper, self._bounds_lower = np.ones(dof + 1), np.zeros(dof + 1)
        self._sense = np.zeros(dof + 1, dtype=np.int32)

    def bounds(self, q: np.ndarray, last_step: np.ndarray, braking_s: float) -> Tuple[np.ndarray, np.ndarray]:
        """Computes the bounds on the joint step of this tick.

        A joint that covers `room` while braking linearly from v needs v (1.5 dt + braking_s / 2) <= room, and at its own
        deceleration v^2 / (2 a) + 1.5 v dt <= room.

        Args:
            q: (dof,) present joints, rad.
            last_step: (dof,) step of the last tick, rad.
            braking_s: Duration of the present braking, s.

            Returns:
                Lower and upper step, (dof,) rad each.
        """
        dt, a, fastest = self._dt, self._braking, self._fastest
        most, least = last_step + self._change, last_step - self._change
        rooms = np.maximum((self._upper - q, q - self._lower), 0.0)
        coast = dt / (1.5 * dt + 0.5 * braking_s)
        up, down = np.minimum(rooms * coast, a * dt * (np.sqrt(2.25 * dt * dt + 2.0 * rooms / a) - 1.5 * dt))
        upper = np.minimum(np.minimum(fastest, up), most)
        lower = np.maximum(np.maximum(-fastest, -down), least)
        # If braking bounds ask for more than the acceleration allows, the acceleration takes precedence.
        upper = np.maximum(upper, np.minimum(least, fastest))
        lower = np.minimum(lower, np.maximum(most, -fastest))
        return np.minimum(lower, upper), upper

    def loads(self, jacobian: np.ndarray) -> np.ndarray:
        """Returns (dof, 6): share of each joint's acceleration limit for each m/s^2 and rad/s^2 of the tool."""
        square = jacobian @ jacobian.T + self._damping
        return eigenpy.LDLT(square).solve(jacobian).T / self._loads

    def step(self, jacobian: np.ndarray, displacement: np.ndarray, drift: np.ndarray, posture: np.ndarray,
             lower: np.ndarray, upper: np.ndarray) -> Tuple[Optional[np.ndarray], float, np.ndarray]:
        """Solves for the joint step of a tool displacement.

        Args:
            jacobian: (6, dof) Jacobian of the tool.
            displacement: (6,) displacement of the tool, m over rad.
            drift: (6,) acceleration of the tool at constant joint speeds, m/s^2 over rad/s^2.
            posture: (dof,) preferred step in the null space, rad.
            lower: (dof,) smallest step, rad.
            upper: (dof,) largest step, rad.

            Returns:
                The step (dof,) rad, None if the solver failed; the share of the displacement that was kept; the bend (dof,)
                rad/s^2 that cancels the drift.
        """
        weighted = self._weights[:, None] * jacobian
        target = self._weights * displacement
        normal = weighted.T @ weighted + self._identity
        pull = DAMPING * posture
        self._targets[:, 0], self._targets[:, 1] = target, -self._weights * drift
        right = weighted.T @ self._targets
        right[:, 0] += pull
        both = eigenpy.LDLT(normal).solve(right)     # LAPACK would start threads for a matrix this small
        free, bend = both[:, 0], both[:, 1]
        if (free <= upper).all() and (free >= lower).all():
            return free, 1.0, bend
        size = float(np.sqrt(target @ target)) or 1.0
        unit = target / size
        dof = len(free)
        self._hessian[:dof, :dof] = normal + self._detour
        self._hessian[:dof, dof] = self._hessian[dof, :dof] = -(weighted.T @ unit)
        self._hessian[dof, dof] = 1.0 + SLACK
        self._gradient[:dof] = -pull * (1.0 + DETOUR_DAMPING / DAMPING)
        self._gradient[dof] = -SLACK * size
        self._bounds_lower[:dof], self._bounds_upper[:dof] = lower, upper
        self._bounds_lower[dof], self._bounds_upper[dof] = 0.0, size
        solution, _, flag, _ = daqp.solve(self._hessian, self._gradient, self._rows, self._bounds_upper,
                                          self._bounds_lower, self._sense)
        if flag < 1 or not np.all(np.isfinite(solution)):
            return None, 0.0, bend
        return np.clip(solution[:dof], lower, upper), float(solution[dof]) / size, bend
