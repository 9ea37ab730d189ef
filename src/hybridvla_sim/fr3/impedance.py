"""Cartesian impedance control as in the example controller of franka_ros, at the simulation's step.

tau = J^T (K e - D v) + null space + gravity and Coriolis, with a low-pass filter on the target and a bound on the torque rate.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import mujoco
import numpy as np
from scipy.linalg import lapack

from hybridvla_sim.fr3.scene import SceneIndex, tool_pose


@dataclass(frozen=True)
class ImpedanceConfig:
    """Gains, stiffer and faster than the defaults of franka_ros (200 N/m, 10 N m/rad, 0.005 per ms), so that a keyframe is
    reached within millimetres.

    Attributes:
        translational_stiffness: Translational stiffness, N/m.
        rotational_stiffness: Rotational stiffness, N m/rad.
        nullspace_stiffness: Stiffness in the null space, N m/rad.
        target_filter: Share of the way to the target per millisecond.
        torque_slew: Largest change of a torque, N m per millisecond.
        torque_limits: Largest torques (7,), N m.
    """

    translational_stiffness: float = 2000.0  # N/m
    rotational_stiffness: float = 120.0  # N m/rad
    nullspace_stiffness: float = 10.0  # N m/rad
    target_filter: float = 0.02
    torque_slew: float = 1.0
    torque_limits: Tuple[float, ...] = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)  # N m


class ImpedanceController:
    """Holds the filtered target and computes joint torques (7,)."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, index: SceneIndex, config: ImpedanceConfig) -> None:
        self.model, self.data, self.index, self.config = model, data, index, config
        self._share = 1.0 - (1.0 - config.target_filter) ** (model.opt.timestep * 1e3)
        self._slew = config.torque_slew * model.opt.timestep * 1e3
        self._limits = np.array(config.torque_limits)
        self._stiffness = np.repeat([config.translational_stiffness, config.rotational_stiffness], 3)
        self._damping = 2.0 * np.sqrt(self._stiffness)
        self._nullspace_damping = 2.0 * np.sqrt(config.nullspace_stiffness)
        self._both = np.zeros((6, model.nv))        # the Jacobian of all joints
        self._jacobian_p, self._jacobian_r = self._both[:3], self._both[3:]
        self._error, self._turn = np.zeros(6), np.zeros(3)
        self.start()

    def start(self) -> None:
        """Latch the present pose and joints as targets, as the real controller does when it starts."""
        position, _ = tool_pose(self.model, self.data, self.index)
        self.target_position, self._position = position.copy(), position.copy()
        self._quaternion = self.data.xquat[self.index.hand].copy()      # wxyz, as MuJoCo has it
        self._target_quaternion = self._quaternion.copy()
        self._nullspace = self.data.qpos[self.index.arm_qpos].copy()
        self._torque = self.data.qfrc_bias[self.index.arm_dofs].copy()

    def set_target(self, position: np.ndarray, quaternion_xyzw: np.ndarray) -> None:
        """Set the equilibrium pose in the base frame; nothing is checked here, as on the robot."""
        self.target_position = np.array(position, dtype=float)
        x, y, z, w = np.asarray(quaternion_xyzw, dtype=float) / np.linalg.norm(quaternion_xyzw)
        self._target_quaternion = np.array([w, x, y, z])

    def torque(self) -> np.ndarray:
        # Called at each physics step: with MuJoCo's own functions and few arrays, or it would take longer than the physics.
        index, data, turn, error = self.index, self.data, self._turn, self._error
        self._position += self._share * (self.target_position - self._position)
        mujoco.mju_subQuat(turn, self._target_quaternion, self._quaternion)
        mujoco.mju_quatIntegrate(self._quaternion, turn, self._share)
        position, rotation = tool_pose(self.model, data, index)
        mujoco.mj_jac(self.model, data, self._jacobian_p, self._jacobian_r, position, index.hand)
        jacobian = self._both[:, index.arm_dofs]
        joints, speed = data.qpos[index.arm_qpos], data.qvel[index.arm_dofs]
        mujoco.mju_subQuat(turn, self._quaternion, data.xquat[index.hand])       # in the hand frame
        error[:3], error[3:] = self._position - position, rotation @ turn
        wish = self.config.nullspace_stiffness * (self._nullspace - joints) - self._nullspace_damping * speed
        # Torques in the null space of J do not push the tool: (I - J^T J^T+) tau.
        square = jacobian @ jacobian.T
        square.flat[::7] += 1e-6
        _, pushing, _ = lapack.dposv(square, jacobian @ wish)
        wrench = self._stiffness * error - self._damping * (jacobian @ speed) - pushing
        torque = jacobian.T @ wrench + wish + data.qfrc_bias[index.arm_dofs]
        torque = np.minimum(np.maximum(torque, self._torque - self._slew), self._torque + self._slew)
        self._torque = np.minimum(np.maximum(torque, -self._limits), self._limits)
        return self._torque
