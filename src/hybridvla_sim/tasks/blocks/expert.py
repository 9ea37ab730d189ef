"""A Markov expert: it computes the next keyframe from the present state alone.

Because it depends on nothing but the state, it can label any state that a learner reaches, for every instruction, and it
recovers from missed grasps and switched instructions by itself.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from hybridvla_core.contracts import Pose
from hybridvla_sim.tasks.blocks.task import SUCCESS_RADIUS

#: Heights of the tool centre point above the table, m.
HOVER, GRASP, PLACE = 0.16, 0.02, 0.0235
#: A block counts as held when its centre is within this distance of the tool, m, and the opening is in this range.
HOLD_DISTANCE, HOLD_OPENING = 0.025, (0.40, 0.75)
#: Within these distances the expert goes down, because the way down corrects the rest: m, m, m and rad.
NEAR_PAD, NEAR_BLOCK_HIGH, NEAR_BLOCK_LOW, NEAR_YAW = 0.028, 0.025, 0.015, 0.25
#: Free space needed around a spot where a block is put down, m.
CLEARANCE = 0.075
PHASES = ("pregrasp", "grasp", "lift", "above", "release", "retreat", "reopen", "up", "putdown", "clear")


@dataclass(frozen=True)
class WorldState:
    """The state that the expert sees.

    Attributes:
        tool: Position (3,) of the tool, m.
        yaw: Yaw of the tool, which points down, about the base frame's z axis, rad.
        opening: Gripper opening, 0 closed to 1 open.
        block_pos: Positions (4, 3) of the blocks, m.
        block_yaw: Yaws (4,) of the blocks, rad.
        pad_xy: Positions (4, 2) of the pads, m.
    """

    tool: np.ndarray
    yaw: float
    opening: float
    block_pos: np.ndarray
    block_yaw: np.ndarray
    pad_xy: np.ndarray


@dataclass(frozen=True)
class ExpertAction:
    """A keyframe.

    Attributes:
        position: Position (3,) of the tool, m.
        yaw: Yaw of the tool, rad.
        opening: Gripper opening commanded after arrival, 0 closed to 1 open.
        phase: Name of the step.
    """

    position: np.ndarray
    yaw: float
    opening: float
    phase: str

    @property
    def pose(self) -> Pose:
        return tool_down(self.position, self.yaw)


def tool_down(position: np.ndarray, yaw: float) -> Pose:
    """Returns the pose of a tool that points down, turned by `yaw` about the base frame's z axis."""
    return Pose(np.asarray(position, dtype=float), np.array([np.cos(yaw / 2), np.sin(yaw / 2), 0.0, 0.0]))


def fold(angle):
    """Returns the equivalent angle of a cube's face, within +-pi/4."""
    return (angle + np.pi / 4) % (np.pi / 2) - np.pi / 4


def held_block(state: WorldState) -> int:
    """Returns the index of the block in the gripper, or -1."""
    distance = np.linalg.norm(state.block_pos - state.tool, axis=1)
    nearest = int(distance.argmin())
    inside = HOLD_OPENING[0] < state.opening < HOLD_OPENING[1]
    return nearest if inside and distance[nearest] < HOLD_DISTANCE else -1


def expert_action(state: WorldState, block: int, pad: int) -> ExpertAction:
    """Returns the next keyframe towards putting `block` on `pad` (colour indices)."""
    held = held_block(state)
    if held == block:
        return _carry(state, pad)
    if held >= 0:
        return _get_rid(state, held, pad)
    return _fetch(state, block, pad)


def _at(xy: np.ndarray, z: float) -> np.ndarray:
    return np.array([xy[0], xy[1], z])


def _carry(state: WorldState, pad: int) -> ExpertAction:
    goal = state.pad_xy[pad]
    if np.linalg.norm(state.tool[:2] - goal) < NEAR_PAD:
        return ExpertAction(_at(goal, PLACE), 0.0, 1.0, "release")
    if state.tool[2] < HOVER - 0.03:
        return ExpertAction(_at(state.tool, HOVER), state.yaw, 0.0, "lift")
    return ExpertAction(_at(goal, HOVER), 0.0, 0.0, "above")


def _get_rid(state: WorldState, held: int, pad: int) -> ExpertAction:
    """Puts down a block that a changed instruction no longer asks for: here if there is room, else on another pad."""
    others = [index for index in range(4) if index != held]

    def free(spot: np.ndarray) -> bool:
        return all(np.linalg.norm(state.block_pos[index, :2] - spot) > CLEARANCE for index in others)

    here = state.tool[:2]
    if free(here) and np.linalg.norm(state.pad_xy[pad] - here) > CLEARANCE:
        return ExpertAction(_at(here, PLACE), state.yaw, 1.0, "putdown")
    if state.tool[2] < HOVER - 0.03:
        return ExpertAction(_at(here, HOVER), state.yaw, 0.0, "lift")
    spots = [state.pad_xy[index] for index in range(4) if index != pad and free(state.pad_xy[index])]
    spot = min(spots or [state.pad_xy[(pad + 1) % 4]], key=lambda xy: float(np.linalg.norm(xy - here)))
    return ExpertAction(_at(spot, HOVER), 0.0, 0.0, "clear")


def _fetch(state: WorldState, block: int, pad: int) -> ExpertAction:
    spot, here = state.block_pos[block], state.tool
    if np.linalg.norm(spot[:2] - state.pad_xy[pad]) < SUCCESS_RADIUS - 0.01 and spot[2] < 0.04:
        return ExpertAction(_at(here, HOVER), state.yaw, 1.0, "retreat")
    if state.opening < 0.85:
        return ExpertAction(_at(here, HOVER), state.yaw, 1.0, "reopen")
    yaw = float(fold(state.block_yaw[block]))
    near = np.linalg.norm(here[:2] - spot[:2]) < (NEAR_BLOCK_HIGH if here[2] > 0.1 else NEAR_BLOCK_LOW)
    if near and abs(fold(state.yaw - yaw)) < NEAR_YAW and here[2] < HOVER + 0.03:
        return ExpertAction(_at(spot, GRASP), yaw, 0.0, "grasp")
    if here[2] < 0.11:
        return ExpertAction(_at(here, HOVER), state.yaw, 1.0, "up")
    return ExpertAction(_at(spot, HOVER), yaw, 1.0, "pregrasp")


def expert_labels(state: WorldState) -> Tuple[np.ndarray, np.ndarray]:
    """Returns labels for all sixteen instructions: actions (16, 7) (delta m, roll, pitch, yaw rad, opening), phases (16,)."""
    actions = np.zeros((16, 7), dtype=np.float32)
    phases = np.zeros(16, dtype=np.uint8)
    for index in range(16):
        action = expert_action(state, *divmod(index, 4))
        actions[index] = [*(action.position - state.tool), 0.0, 0.0, action.yaw, action.opening]
        phases[index] = PHASES.index(action.phase)
    return actions, phases
