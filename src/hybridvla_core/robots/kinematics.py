"""Two independent ways from joints to tool poses, both built from the Denavit-Hartenberg table of the configuration.

`ArmKinematics` (Pinocchio) handles one configuration at a time, with Jacobians, and is used to steer. `BatchKinematics`
(numpy) handles many configurations at once and is used to check. Neither reads a URDF.
"""
from __future__ import annotations

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np
import pinocchio as pin
from scipy.spatial.transform import Rotation

from hybridvla_core.robots.arm import ArmConfig


class ArmKinematics:
    """Pose, Jacobian and drift of one arm's tool centre point, in the arm's base frame."""

    def __init__(self, arm: ArmConfig) -> None:
        table = arm.kinematics
        model = pin.Model()
        parent = 0
        for index, (a, d, alpha) in enumerate(zip(table.a_m, table.d_m, table.alpha_rad)):
            turn = Rotation.from_euler("x", alpha).as_matrix()
            placement = pin.SE3(turn, np.array([a, 0.0, 0.0]) + turn @ np.array([0.0, 0.0, d]))
            parent = model.addJoint(parent, pin.JointModelRZ(), placement, arm.joint_names[index])
        position, matrix = tool_in_last_link(arm)
        self._tool = model.addFrame(pin.Frame("tool", parent, 0, pin.SE3(matrix, position), pin.FrameType.OP_FRAME))
        self._model, self._data = model, model.createData()
        self._offset = np.array(table.theta_offset_rad)
        self._zero = np.zeros(model.nv)

    def pose(self, q: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Returns position (3,) m and rotation matrix (3, 3) at the joints q (dof,) rad."""
        pin.forwardKinematics(self._model, self._data, q + self._offset)
        placement = pin.updateFramePlacement(self._model, self._data, self._tool)
        return placement.translation.copy(), placement.rotation.copy()

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """Returns (6, dof): linear m/s over angular rad/s of the tool centre point along the base axes, per rad/s."""
        return pin.computeFrameJacobian(self._model, self._data, q + self._offset, self._tool,
                                        pin.ReferenceFrame.LOCAL_WORLD_ALIGNED)

    def drift(self, q: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Returns (6,): the tool's acceleration at constant joint velocity (dof,) rad/s, i.e. dJ/dt times the velocity."""
        pin.forwardKinematics(self._model, self._data, q + self._offset, velocity, self._zero)
        return pin.getFrameClassicalAcceleration(self._model, self._data, self._tool,
                                                 pin.ReferenceFrame.LOCAL_WORLD_ALIGNED).vector


class Frames(NamedTuple):
    """Frames of A arms at m configurations, in the arms' own base frames.

    Attributes:
        position: (A, 3, m) positions, m.
        xy: (A, 3, m) complex: x axis + i y axis.
        z: (A, 3, m) z axes.
    """

    position: np.ndarray
    xy: np.ndarray
    z: np.ndarray

    def arm(self, index: int) -> Frames:
        return Frames(self.position[index:index + 1], self.xy[index:index + 1], self.z[index:index + 1])


class BatchKinematics:
    """Forward kinematics of A arms with the same number of joints at m configurations in one pass.

    A turn about z is a multiplication of (x axis + i y axis) by exp(-i theta), which halves the arithmetic.
    """

    def __init__(self, arms: Sequence[ArmConfig]) -> None:
        column = (len(arms), 1, 1)
        tables = [arm.kinematics for arm in arms]
        self.dof = arms[0].dof
        self._a = [np.array([t.a_m[i] for t in tables]).reshape(column) for i in range(self.dof)]
        self._d = [np.array([t.d_m[i] for t in tables]).reshape(column) for i in range(self.dof)]
        self._cos = [np.cos([t.alpha_rad[i] for t in tables]).reshape(column) for i in range(self.dof)]
        self._sin = [np.sin([t.alpha_rad[i] for t in tables]).reshape(column) for i in range(self.dof)]
        self._right_angle = [bool(np.all(np.abs(c) < 1e-12)) for c in self._cos]
        self._straight = [bool(np.all(np.abs(s) < 1e-12) and np.all(c > 0)) for s, c in zip(self._sin, self._cos)]
        self._shifted = [(bool(np.any(a)), bool(np.any(d))) for a, d in zip(self._a, self._d)]
        self._offset = np.array([t.theta_offset_rad for t in tables])[:, None, :]
        tools = [tool_in_last_link(arm) for arm in arms]
        self._tool_position = [np.array([position[k] for position, _ in tools]).reshape(column) for k in range(3)]
        self._tool_axes = [[np.array([matrix[row, k] for _, matrix in tools]).reshape(column) for row in range(3)]
                           for k in range(3)]

    def links(self, q: np.ndarray) -> List[Frames]:
        """Returns the frames of links 0 (base) to dof at q (A, m, dof) rad."""
        arms, samples = q.shape[:2]
        shape = (arms, 3, samples)
        turns = np.exp(-1j * (q + self._offset))
        position = np.zeros(shape)
        xy = np.zeros(shape, dtype=complex)
        xy[:, 0], xy[:, 1] = 1.0, 1j
        z = np.zeros(shape)
        z[:, 2] = 1.0
        frames = [Frames(position, xy, z)]
        for joint in range(self.dof):
            x, y = xy.real, xy.imag
            along_x, along_z = self._shifted[joint]
            if along_x:
                position = position + self._a[joint] * x
            if self._right_angle[joint]:
                xy, z = x + (1j * self._sin[joint]) * z, -self._sin[joint] * y
            elif not self._straight[joint]:
                xy, z = (x + 1j * (self._cos[joint] * y + self._sin[joint] * z),
                         self._cos[joint] * z - self._sin[joint] * y)
            xy = xy * turns[:, None, :, joint]
            if along_z:
                position = position + self._d[joint] * z
            frames.append(Frames(position, xy, z))
        return frames

    def tool(self, last: Frames) -> Frames:
        """Returns the tool centre point's frame from the last link's frame."""
        x, y, z = last.xy.real, last.xy.imag, last.z
        p = self._tool_position
        position = last.position + p[0] * x + p[1] * y + p[2] * z
        axes = [m[0] * x + m[1] * y + m[2] * z for m in self._tool_axes]
        return Frames(position, axes[0] + 1j * axes[1], axes[2])


def tool_in_last_link(arm: ArmConfig) -> Tuple[np.ndarray, np.ndarray]:
    """Returns the tool centre point in the frame after the last joint: position (3,) m, rotation matrix (3, 3)."""
    position = np.array(arm.tool.position_m) + np.array([0.0, 0.0, arm.kinematics.flange_m])
    return position, Rotation.from_quat(arm.tool.quaternion_xyzw).as_matrix()
