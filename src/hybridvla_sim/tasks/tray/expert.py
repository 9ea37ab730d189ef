"""A scripted policy for the tray: it maps the true state of the scene to the next pair of tool poses, one keyframe per call.

It decides from the present state alone, so it recovers from disturbances. It sees the simulation state, not the pictures.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_sim.piper.scene import ARMS, BASE_Y
from hybridvla_sim.tasks.tray.scene import HANDLE_Y
from hybridvla_sim.tasks.tray.task import GOAL_XY, TRAY_REST_Z, TrayState

#: Tool axes of a hand that reaches forwards and down, 30 degrees from the vertical.
REACH = Rotation.from_euler("y", 150.0, degrees=True)
GRIP_Z = 0.040                   # m above the tray's origin: the middle of a handle, fingers clear of the tray
ABOVE, CARRY = 0.075, 0.05       # m above the grip; m by which the tray is lifted
NEAR = 0.012


@dataclass(frozen=True)
class Hand:
    """Where one hand should be.

    Attributes:
        position: Position (3,) of the tool centre point in the arm's base frame, m.
        rotation: Rotation of the tool.
        opening: Gripper opening, 0 closed to 1 open.
        yaw: Angle by which `REACH` is turned about the base frame's z axis, rad.
    """

    position: np.ndarray
    rotation: Rotation
    opening: float
    yaw: float


def next_keyframe(state: TrayState, tools: Dict[str, np.ndarray]) -> Tuple[str, Dict[str, Hand]]:
    """Returns the next step and the pose of each hand in it. tools: present tool centre points, (3,) m in the shared frame."""
    grips = {arm: _grip(state, arm) for arm in ARMS}
    gripped = all(np.linalg.norm(tools[arm] - grips[arm]) < NEAR for arm in ARMS)
    closed = max(state.openings) < 0.5
    lifted = state.position[2] - TRAY_REST_Z > 0.6 * CARRY
    there = np.linalg.norm(state.position[:2] - GOAL_XY) < 0.012
    if gripped and closed:
        if there and not lifted:
            return "release", _hands(state, grips, 1.0)
        step = "lower" if there else "carry" if lifted else "lift"
        aim = np.array([*GOAL_XY, TRAY_REST_Z]) if lifted or there else state.position * [1.0, 1.0, 0.0]
        height = TRAY_REST_Z if there else TRAY_REST_Z + CARRY
        shift = np.array([*aim[:2], height]) - state.position
        turn = -state.yaw if lifted else 0.0
        return step, _moved(state, grips, shift, turn)
    on_mark = there and not lifted
    if gripped and not on_mark:
        return "grasp", _hands(state, grips, 0.0)
    above = {arm: grip + [0.0, 0.0, ABOVE] for arm, grip in grips.items()}
    beside = all(np.linalg.norm((tools[arm] - grips[arm])[:2]) < NEAR for arm in ARMS)
    if on_mark or min(state.openings) < 0.8 or not beside:
        return "retreat" if on_mark else "above", _hands(state, above, 1.0)
    return "reach", _hands(state, grips, 1.0)


def _grip(state: TrayState, arm: str) -> np.ndarray:
    side = np.sign(BASE_Y[arm]) * HANDLE_Y
    return state.position + Rotation.from_euler("z", state.yaw).apply([0.0, side, GRIP_Z])


def _hands(state: TrayState, positions: Dict[str, np.ndarray], opening: float, yaw: float = float("nan")) -> Dict[str, Hand]:
    yaw = state.yaw if np.isnan(yaw) else yaw
    turn = Rotation.from_euler("z", yaw) * REACH
    return {arm: Hand(position - [0.0, BASE_Y[arm], 0.0], turn, opening, yaw) for arm, position in positions.items()}


def _moved(state: TrayState, grips: Dict[str, np.ndarray], shift: np.ndarray, turn: float) -> Dict[str, Hand]:
    rotation = Rotation.from_euler("z", turn)
    positions = {arm: state.position + shift + rotation.apply(grip - state.position) for arm, grip in grips.items()}
    return _hands(state, positions, 0.0, state.yaw + turn)


def tools_in_shared_frame(positions: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Converts tool positions (3,) m from the base frames to the shared frame, as the expert expects."""
    return {arm: np.asarray(position) + [0.0, BASE_Y[arm], 0.0] for arm, position in positions.items()}
