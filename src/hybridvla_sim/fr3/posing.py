"""Places the simulated arm at a pose without dynamics: damped least-squares inverse kinematics."""
from __future__ import annotations

import mujoco
import numpy as np

from hybridvla_sim.fr3.scene import START_JOINTS, SceneIndex, tool_pose


def solve_ik(model: mujoco.MjModel, data: mujoco.MjData, index: SceneIndex, position: np.ndarray, yaw: float,
             iterations: int = 60) -> bool:
    """Sets the arm's joints so that the tool points down at a position. The search begins at the start joints.

    Args:
        model: MuJoCo model.
        data: MuJoCo data that receive the joints.
        index: Addresses of the arm in both.
        position: Position (3,) of the tool, m, world frame.
        yaw: Rotation of the tool about z, rad.
        iterations: Largest number of iterations.

    Returns:
        False if 0.5 mm and 2 mrad are not reached.
    """
    cos, sin = np.cos(yaw), np.sin(yaw)
    return solve_pose(model, data, index, position, np.array([[cos, sin, 0.0], [sin, -cos, 0.0], [0.0, 0.0, -1.0]]), iterations)


def solve_pose(model: mujoco.MjModel, data: mujoco.MjData, index: SceneIndex, position: np.ndarray, goal: np.ndarray,
               iterations: int = 60) -> bool:
    """Sets the arm's joints so that the tool has the given pose. The search begins at the start joints.

    Args:
        model: MuJoCo model.
        data: MuJoCo data that receive the joints.
        index: Addresses of the arm in both.
        position: Position (3,) of the tool, m, world frame.
        goal: Rotation (3, 3) of the tool, world frame.
        iterations: Largest number of iterations.

    Returns:
        False if 0.5 mm and 2 mrad are not reached.
    """
    data.qpos[index.arm_qpos] = START_JOINTS
    jacobian_p, jacobian_r = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    for _ in range(iterations):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        here, rotation = tool_pose(model, data, index)
        error = position - here
        turn = 0.5 * np.cross(rotation.T, goal.T).sum(axis=0)
        if np.linalg.norm(error) < 5e-4 and np.linalg.norm(turn) < 2e-3:
            return True
        mujoco.mj_jac(model, data, jacobian_p, jacobian_r, here, index.hand)
        jacobian = np.vstack([jacobian_p[:, index.arm_dofs], jacobian_r[:, index.arm_dofs]])
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-3 * np.eye(6), np.concatenate([error, turn]))
        data.qpos[index.arm_qpos] += np.clip(step, -0.3, 0.3)
    return False
