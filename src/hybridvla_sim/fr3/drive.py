"""A Franka Research 3 as franka_ros drives it: its motion controllers, its brakes, its collision reflex.

The behaviour is that of franka_ros 0.10 and libfranka, as read in their sources (cartesian_impedance_example_controller.cpp,
joint_trajectory_controller_impl.h, franka_hw), quirks included. Nothing here is meant to be better than the original.
"""
from __future__ import annotations

import enum
from typing import Optional, Sequence, Tuple

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_sim.fr3.scene import TOOL_OFFSET, SceneIndex, tool_pose

TARGET_FILTER = 0.005                     # share of the way per millisecond, for pose and stiffness
TORQUE_SLEW = 1.0                         # N m per millisecond
TORQUE_LIMITS = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0])
BRAKE_GAINS = np.array([1000.0, 1000.0, 1000.0, 1000.0, 300.0, 200.0, 100.0])   # N m/rad, the robot's own joint control
GRAVITY = 9.81
DEFAULT_STIFFNESS = (200.0, 10.0, 0.5)    # N/m, N m/rad, null space N m/rad
#: Transform from the flange to the nominal end effector (Franka Hand), as Desk sets it.
F_T_NE = np.eye(4)
F_T_NE[:3, :3] = Rotation.from_euler("z", -np.pi / 4).as_matrix()
F_T_NE[2, 3] = TOOL_OFFSET


class Drive(enum.Enum):
    """What moves the arm at present."""

    BRAKE = "brake"
    IMPEDANCE = "cartesian_impedance_example_controller"
    TRAJECTORY = "position_joint_trajectory_controller"
    FREE = "guiding"


class FrankaDrive:
    """Torques (7,) of whatever moves the arm. Replaces the rig's own `ImpedanceController`."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, index: SceneIndex, _config: object = None) -> None:
        self.model, self.data, self.index = model, data, index
        self._ms = model.opt.timestep * 1e3
        self._share = 1.0 - (1.0 - TARGET_FILTER) ** self._ms
        self._jacobian_p, self._jacobian_r = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        self.drive = Drive.BRAKE
        self.ne_t_ee = np.eye(4)
        self.stiffness = np.array(DEFAULT_STIFFNESS)
        self._stiffness = self.stiffness.copy()
        self.load = (0.0, np.zeros(3))        # kg, centre in the flange frame, m: what the robot was told
        self.hand_force = np.zeros(3)         # N, a person pushing at the tool
        self._trajectory: Optional[Tuple[np.ndarray, np.ndarray, np.ndarray]] = None
        self.start()

    # Poses ---------------------------------------------------------------------------------------------------------

    @property
    def joints(self) -> np.ndarray:
        return self.data.qpos[self.index.arm_qpos].copy()

    @property
    def speeds(self) -> np.ndarray:
        return self.data.qvel[self.index.arm_dofs].copy()

    @property
    def f_t_ee(self) -> np.ndarray:
        """Transform from flange to end effector, 4 x 4; its second factor is what Desk or set_EE_frame sets."""
        return F_T_NE @ self.ne_t_ee

    @property
    def o_t_ee(self) -> np.ndarray:
        """Transform from base to end effector, 4 x 4, as the robot reports it."""
        position, rotation = tool_pose(self.model, self.data, self.index)
        hand = np.eye(4)
        hand[:3, :3], hand[:3, 3] = rotation, position
        return hand @ np.linalg.inv(F_T_NE) @ self.f_t_ee

    # Commands ------------------------------------------------------------------------------------------------------

    def switch(self, drive: Drive) -> None:
        """Switch to another controller, or to none; each begins at the present pose."""
        self.drive = drive
        self.start()

    def start(self) -> None:
        """Latch the present pose and joints as targets, as the controllers' starting() does."""
        pose = self.o_t_ee
        self.target_position = self._position = pose[:3, 3].copy()
        self.target_rotation = self._rotation = Rotation.from_matrix(pose[:3, :3])
        self._nullspace = self._latched = self.joints
        self._latched_speed = np.zeros(7)
        self._torque = np.zeros(7)
        self._trajectory = None
        self._clock = 0.0

    def set_target(self, position: Sequence[float], quaternion_xyzw: Sequence[float]) -> None:
        """Set the equilibrium pose; frame, stamp, norm and NaN are not checked, as in the original."""
        self.target_position = np.array(position, dtype=float)
        values = np.array(quaternion_xyzw, dtype=float)
        norm = np.linalg.norm(values)
        self._nan = not (np.isfinite(self.target_position).all() and np.isfinite(values).all() and norm > 0.0)
        self.target_rotation = self._rotation if self._nan else Rotation.from_quat(values)

    _nan = False

    @property
    def broken(self) -> bool:
        """Whether a NaN reached the controller: libfranka refuses to send it, and the driver's process ends."""
        return self._nan and self.drive == Drive.IMPEDANCE

    def set_trajectory(self, times: np.ndarray, positions: np.ndarray, velocities: Optional[np.ndarray]) -> None:
        """Replaces the running trajectory. Without points, the arm stops where it is.

        Args:
            times: Times (n,) of the points, s from now.
            positions: Joint positions (n, 7), rad.
            velocities: Joint velocities (n, 7), rad/s; None for those of straight segments.
        """
        if not len(times):
            self._trajectory, self._latched, self._latched_speed = None, self.joints, np.zeros(7)
            return
        if velocities is None:
            ends = np.vstack([self._latched, positions])
            gaps = np.diff(np.concatenate([[0.0], times]))[:, None]
            velocities = np.diff(ends, axis=0) / np.maximum(gaps, 1e-6)
            velocities[-1] = 0.0
        self._trajectory = (np.concatenate([[0.0], times]), np.vstack([self._latched, positions]),
                            np.vstack([self._latched_speed, velocities]))
        self._clock = 0.0

    # Torques -------------------------------------------------------------------------------------------------------

    def torque(self) -> np.ndarray:
        """Joint torques of this step, with gravity and Coriolis compensation as on the robot, plus what people push."""
        index, data = self.index, self.data
        position = tool_pose(self.model, data, index)[0]
        mujoco.mj_jac(self.model, data, self._jacobian_p, self._jacobian_r, position, index.hand)
        self._arm_p, self._arm_r = self._jacobian_p[:, index.arm_dofs], self._jacobian_r[:, index.arm_dofs]
        pushed = self._arm_p.T @ self.hand_force
        if self.drive == Drive.IMPEDANCE:
            wish = self._impedance()
            self._torque = self._torque + np.clip(wish - self._torque, -TORQUE_SLEW * self._ms, TORQUE_SLEW * self._ms)
        elif self.drive == Drive.FREE:
            self._torque = -2.0 * self.speeds
        else:
            if self.drive == Drive.TRAJECTORY:
                self._follow()
            self._torque = (BRAKE_GAINS * (self._latched - self.joints)
                            + 2.0 * np.sqrt(BRAKE_GAINS) * (self._latched_speed - self.speeds))
        self._torque = np.clip(self._torque, -TORQUE_LIMITS, TORQUE_LIMITS)
        lift = self._arm_p.T @ np.array([0.0, 0.0, self.load[0] * GRAVITY])
        return self._torque + data.qfrc_bias[index.arm_dofs] + lift + pushed

    def _impedance(self) -> np.ndarray:
        self._stiffness = self._stiffness + self._share * (self.stiffness - self._stiffness)
        self._position = self._position + self._share * (self.target_position - self._position)
        turn = (self._rotation.inv() * self.target_rotation).as_rotvec()
        self._rotation = self._rotation * Rotation.from_rotvec(self._share * turn)
        pose = self.o_t_ee
        lever = pose[:3, 3] - tool_pose(self.model, self.data, self.index)[0]
        arm_p = self._arm_p - np.cross(lever, self._arm_r.T).T
        jacobian = np.vstack([arm_p, self._arm_r])
        vector = (Rotation.from_matrix(pose[:3, :3]).inv() * self._rotation).as_quat()
        # The original takes the quaternion's vector part: half the angle, so half the stiffness one would expect.
        error = np.concatenate([self._position - pose[:3, 3],
                                pose[:3, :3] @ (vector[:3] * (1.0 if vector[3] >= 0.0 else -1.0))])
        gains = np.repeat(self._stiffness[:2], 3)
        torque = jacobian.T @ (gains * error - 2.0 * np.sqrt(gains) * (jacobian @ self.speeds))
        null = self._stiffness[2]
        wish = null * (self._nullspace - self.joints) - 2.0 * np.sqrt(null) * self.speeds
        return torque + wish - jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(6), jacobian @ wish)

    def _follow(self) -> None:
        if self._trajectory is None:
            self._latched_speed = np.zeros(7)
            return
        self._clock += self._ms * 1e-3
        times, positions, velocities = self._trajectory
        if self._clock >= times[-1]:
            self._latched, self._latched_speed, self._trajectory = positions[-1], np.zeros(7), None
            return
        k = int(np.searchsorted(times, self._clock, side="right")) - 1
        span = times[k + 1] - times[k]
        s = (self._clock - times[k]) / span
        a, b, va, vb = positions[k], positions[k + 1], velocities[k] * span, velocities[k + 1] * span
        self._latched = ((2 * s ** 3 - 3 * s ** 2 + 1) * a + (s ** 3 - 2 * s ** 2 + s) * va
                         + (3 * s ** 2 - 2 * s ** 3) * b + (s ** 3 - s ** 2) * vb)
        self._latched_speed = ((6 * s ** 2 - 6 * s) * (a - b) + (3 * s ** 2 - 4 * s + 1) * va
                               + (3 * s ** 2 - 2 * s) * vb) / span


def contact_force(model: mujoco.MjModel, data: mujoco.MjData, arm_bodies: frozenset) -> np.ndarray:
    """Net force (3,) N on the arm from everything that is not the arm; the forces of what the fingers squeeze cancel out."""
    total, wrench = np.zeros(3), np.zeros(6)
    for number in range(data.ncon):
        contact = data.contact[number]
        first, second = (int(model.geom_bodyid[geom]) in arm_bodies for geom in (contact.geom1, contact.geom2))
        if first == second:
            continue
        mujoco.mj_contactForce(model, data, number, wrench)
        force = contact.frame.reshape(3, 3).T @ wrench[:3]
        total += force if second else -force
    return total
