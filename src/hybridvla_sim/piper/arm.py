"""The firmware of one simulated Piper: the commands on its CAN bus and its answers, in the SDK's units.

Joints are in 0.001 degrees, the end pose in 0.001 mm and 0.001 degrees, the gripper in 0.001 mm (piper_sdk,
piper_interface.py). While enabled, the arm obeys every command at the commanded speed; while disabled, it falls.
"""
from __future__ import annotations

import math
from typing import Optional, Sequence

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_sim.piper.scene import FLANGE_M, MAX_WIDTH, RANGES, PiperIndex, pose_of

STANDBY, CAN_CONTROL, TEACH = 0, 1, 2
MOVE_P, MOVE_J = 0, 1
NORMAL, NO_SOLUTION, OVER_LIMIT = 0, 2, 4
FASTEST = 3.0            # rad/s at a speed setting of 100 %
FINGER_SPEED = 0.1       # m/s of the opening
MDEG = math.pi / 180e3
LOW, HIGH = np.array(RANGES).T


class PiperArm:
    """One arm in a shared world. Callers hold the world's lock."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, name: str) -> None:
        self.name, self.index = name, PiperIndex(model, name)
        self._model, self._data = model, data
        self._scratch = mujoco.MjData(model)
        self._gains = model.actuator_gainprm[self.index.servos].copy(), model.actuator_biasprm[self.index.servos].copy()
        self.place(np.zeros(6), 0.0)

    def place(self, joints: np.ndarray, width: float) -> None:
        """Place the arm at rest at joints (6,) rad with the gripper open by `width` m, enabled, as if started there."""
        self._data.qpos[self.index.qpos] = self.target = self._reference = np.array(joints, dtype=float)
        self._data.qpos[self.index.fingers] = width / 2
        self._width = self._wanted_width = width
        self.ctrl_mode, self.move, self.status, self.speed = STANDBY, MOVE_J, NORMAL, 1.0
        self.fault, self.taught = NORMAL, False
        self.enable(True)

    # Commands ------------------------------------------------------------------------------------------------------

    def enable(self, enabled: bool) -> None:
        """Switch the motors on, so that the arm holds its position, or off, so that nothing carries it any more."""
        self.enabled = enabled
        self._reference = self.target = self._data.qpos[self.index.qpos].copy()
        gain, bias = self._gains
        self._model.actuator_gainprm[self.index.servos] = gain if enabled else 0.0
        self._model.actuator_biasprm[self.index.servos] = bias if enabled else 0.0
        self._model.body_gravcomp[self.index.bodies] = 1.0 if enabled else 0.0
        if not enabled:
            self.ctrl_mode = STANDBY

    def motion_ctrl(self, move: int, speed: float) -> None:
        """Select CAN control, the kind of motion and the speed in percent. The teach button has precedence."""
        if self.taught:
            self.ctrl_mode = TEACH
            return
        self.ctrl_mode, self.move, self.speed = CAN_CONTROL, move, min(max(speed, 0.0), 100.0) / 100.0

    def joint_ctrl(self, millidegrees: Sequence[int]) -> None:
        """Set a joint target. A target beyond the servos' range sets an error status and is not followed."""
        wanted = MDEG * np.array(millidegrees, dtype=float)
        if not self.enabled or self.taught:
            return
        if (wanted < LOW - 0.01).any() or (wanted > HIGH + 0.01).any():
            self.status = OVER_LIMIT
            return
        self.status, self.target = NORMAL, wanted

    def end_pose_ctrl(self, micrometres: Sequence[int], millidegrees: Sequence[int]) -> None:
        """Set a target for the flange's pose: position and fixed-axis roll, pitch, yaw."""
        if not self.enabled or self.taught:
            return
        position = 1e-6 * np.array(micrometres, dtype=float)
        solution = self.solve(position, Rotation.from_euler("xyz", MDEG * np.array(millidegrees, dtype=float)))
        self.status = NORMAL if solution is not None else NO_SOLUTION if np.linalg.norm(position) < 0.7 else OVER_LIMIT
        if solution is not None:
            self.target = solution

    def gripper_ctrl(self, micrometres: int) -> None:
        if self.enabled:
            self._wanted_width = min(max(micrometres * 1e-6, 0.0), MAX_WIDTH)

    # Answers -------------------------------------------------------------------------------------------------------

    @property
    def joints(self) -> np.ndarray:
        """Joint angles (6,) in whole 0.001 degrees."""
        return np.round(self._data.qpos[self.index.qpos] / MDEG)

    @property
    def speeds(self) -> np.ndarray:
        """Joint velocities (6,) rad/s."""
        return self._data.qvel[self.index.dofs].copy()

    @property
    def gripper(self) -> int:
        """Opening in 0.001 mm."""
        return int(round(float(self._data.qpos[self.index.fingers].sum()) * 1e6))

    @property
    def end_pose(self) -> np.ndarray:
        """Pose of the flange (6,) in whole 0.001 mm and 0.001 degrees."""
        position, rotation = pose_of(self._data, self.index, FLANGE_M)
        angles = Rotation.from_matrix(rotation).as_euler("xyz")
        return np.round(np.concatenate((position * 1e6, angles / MDEG)))

    def tool_at(self, joints: Sequence[float], beyond: float) -> tuple:
        """Position (3,) m and quaternion xyzw, for joints (6,) rad, of a point `beyond` m along the last link."""
        self._scratch.qpos[self.index.qpos] = joints
        mujoco.mj_kinematics(self._model, self._scratch)
        position, _ = pose_of(self._scratch, self.index, beyond)
        return position, self._scratch.xquat[self.index.last][[1, 2, 3, 0]]         # MuJoCo's order is wxyz

    # Time ----------------------------------------------------------------------------------------------------------

    def step(self, timestep: float) -> None:
        """Advance the servos' references by one physics step."""
        reach = FASTEST * self.speed * timestep
        self._reference = self._reference + np.minimum(np.maximum(self.target - self._reference, -reach), reach)
        self._data.ctrl[self.index.servos] = self._reference
        reach = FINGER_SPEED * timestep
        self._width += min(max(self._wanted_width - self._width, -reach), reach)
        self._data.ctrl[self.index.finger_servos] = self._width / 2

    def solve(self, position: np.ndarray, rotation: Rotation) -> Optional[np.ndarray]:
        """Joints (6,) rad for a flange pose in the base frame, by damped least squares from the present joints, or None."""
        model, data, index = self._model, self._scratch, self.index
        x, y, z, w = rotation.as_quat()
        goal = np.array([w, x, y, z])
        joints = self._data.qpos[index.qpos]
        both, error, turn = np.zeros((6, model.nv)), np.zeros(6), np.zeros(3)
        for _ in range(60):
            data.qpos[index.qpos] = joints
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            here, matrix = pose_of(data, index, FLANGE_M)
            mujoco.mju_subQuat(turn, goal, data.xquat[index.last])         # in the frame of the last link
            error[:3], error[3:] = position - here, matrix @ turn
            if np.abs(error[:3]).max() < 2e-4 and np.abs(error[3:]).max() < 1e-3:
                return joints
            mujoco.mj_jac(model, data, both[:3], both[3:], here + data.xpos[index.base], index.last)
            jacobian = both[:, index.dofs]
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-5 * np.eye(6), error)
            joints = np.clip(joints + np.clip(step, -0.2, 0.2), LOW, HIGH)
        return None
