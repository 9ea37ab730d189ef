"""Cartesian impedance control as franka_ros' example controller does it, at the simulation's step.

tau = J^T (K e - D v) + null space + gravity and Coriolis, with the target low-pass filtered and the torque's rate bounded.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_sim.fr3.scene import SceneIndex, tool_pose


@dataclass(frozen=True)
class ImpedanceConfig:
    """Gains, stiffer and quicker than franka_ros' defaults (200 N/m, 10 N m/rad, 0.005 each ms), so that a keyframe is reached
    within millimetres.

    Attributes:
        translational_stiffness: N/m.
        rotational_stiffness: N m/rad.
        nullspace_stiffness: N m/rad.
        target_filter: Share of the way to the target each millisecond.
        torque_slew: N m each millisecond.
        torque_limits: (7,) N m.
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
        self._jacobian_p, self._jacobian_r = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        self.start()

    def start(self) -> None:
        """Latch the present pose and joints as targets, as the real controller does when it is started."""
        position, rotation = tool_pose(self.model, self.data, self.index)
        self.target_position = self._position = position.copy()
        self.target_rotation = self._rotation = Rotation.from_matrix(rotation)
        self._nullspace = self.data.qpos[self.index.arm_qpos].copy()
        self._torque = self.data.qfrc_bias[self.index.arm_dofs].copy()

    def set_target(self, position: np.ndarray, quaternion_xyzw: np.ndarray) -> None:
        """The new equilibrium pose in the base frame; nothing is checked here, as on the robot."""
        self.target_position = np.array(position, dtype=float)
        self.target_rotation = Rotation.from_quat(quaternion_xyzw)

    def torque(self) -> np.ndarray:
        config, index, data = self.config, self.index, self.data
        self._position = self._position + self._share * (self.target_position - self._position)
        turn = (self._rotation.inv() * self.target_rotation).as_rotvec()
        self._rotation = self._rotation * Rotation.from_rotvec(self._share * turn)
        position, rotation = tool_pose(self.model, data, index)
        mujoco.mj_jac(self.model, data, self._jacobian_p, self._jacobian_r, position, index.hand)
        jacobian = np.vstack([self._jacobian_p[:, index.arm_dofs], self._jacobian_r[:, index.arm_dofs]])
        joints, speed = data.qpos[index.arm_qpos], data.qvel[index.arm_dofs]
        error = np.concatenate([self._position - position,
                                (self._rotation * Rotation.from_matrix(rotation).inv()).as_rotvec()])
        stiffness = np.repeat([config.translational_stiffness, config.rotational_stiffness], 3)
        wrench = stiffness * error - 2.0 * np.sqrt(stiffness) * (jacobian @ speed)
        torque = jacobian.T @ wrench
        wish = config.nullspace_stiffness * (self._nullspace - joints) - 2 * np.sqrt(config.nullspace_stiffness) * speed
        # Torques in the null space of J do not push the tool: (I - J^T J^T+) tau.
        torque += wish - jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(6), jacobian @ wish)
        torque += data.qfrc_bias[index.arm_dofs]
        torque = self._torque + np.clip(torque - self._torque, -self._slew, self._slew)
        self._torque = np.clip(torque, -self._limits, self._limits)
        return self._torque
