"""The tray task in the dual-arm rig: where objects are, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any, Dict, List, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.errors import HybridVLAError
from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.piper.scene import ARMS, FLANGE_M, MAX_WIDTH, TIP_M
from hybridvla_sim.task import EpisodeSpec, ExpertLabel, Task, World
from hybridvla_sim.taskkit.looks import HEIGHT_M, UNSEEN, UNSEEN_SIZES, Looks, apply, snapshot, varied
from hybridvla_sim.tasks.tray.expert import next_keyframe, tools_in_shared_frame
from hybridvla_sim.tasks.tray.scene import BLOCK_HALF, furnish
from hybridvla_sim.tasks.tray.task import GOAL_RADIUS, GOAL_XY, INSTRUCTION, PHRASES, TRAY_REST_Z, TrayState


class TrayWorld(World[PiperRig]):
    """A tray with a handle for each hand and a block in it.

    Attributes:
        ground: Height of the table, m: 0, or more in the variation `height`.
    """

    def __init__(self, rig: PiperRig) -> None:
        super().__init__(rig)
        self.ground = 0.0
        self._looks = Looks(rig.model)
        self._raised = [rig.model.geom(name).id for name in ("table", "goal")]
        self._flat = rig.model.geom_pos[self._raised, 2].copy()

    def reset(self, rng: np.random.Generator) -> None:
        """Puts the tray at random near the arms and the block at random in it, with the task's variation."""
        data = self.rig.data
        x, y, yaw = 0.25 + rng.uniform(-0.02, 0.03), rng.uniform(-0.02, 0.02), rng.uniform(-0.08, 0.08)
        turn = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        place = x + rng.uniform(-0.015, 0.015), y + rng.uniform(-0.06, 0.06)
        smaller = self._vary(rng)
        data.joint("tray").qpos[:] = (x, y, TRAY_REST_Z + self.ground, *turn)
        data.joint("block").qpos[:] = (*place, 0.0265 - smaller * BLOCK_HALF + self.ground, *turn)

    def _vary(self, rng: np.random.Generator) -> float:
        """Applies the variation that no demonstration has; returns the share by which the block is smaller."""
        variation, model = self.rig.task.variation, self.rig.model
        if not variation:
            return 0.0
        self._looks.restore()
        self._looks.unusual(variation, rng)
        self._looks.without_bounds()            # the table belongs to the world body itself
        self.ground = HEIGHT_M if variation == "height" else 0.0
        model.geom_pos[self._raised, 2] = self._flat + self.ground
        if variation != "object":
            return 0.0
        for body, number in zip(("tray", "block"), rng.permutation(len(UNSEEN))):
            model.geom_rgba[model.geom_bodyid == model.body(body).id, :3] = UNSEEN[number]
        size = float(rng.uniform(*UNSEEN_SIZES))
        self._looks.resize("block", size)
        return 1.0 - size

    def copy_state(self, other: World[PiperRig]) -> None:
        """Copies colours, sizes and the table's height."""
        if other.rig.task.variation:
            apply(self.rig.model, snapshot(other.rig.model))

    def state(self) -> TrayState:
        """Returns the true state of tray, block and grippers."""
        pose = self.rig.data.joint("tray").qpos
        w, x, y, z = pose[3:7]
        yaw = float(np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z)))
        openings = tuple(min(max(arm.gripper * 1e-6 / MAX_WIDTH, 0.0), 1.0) for arm in self.rig.arms.values())
        return TrayState(pose[:3].copy(), yaw, self.rig.data.joint("block").qpos[:3].copy(), openings)

    def success(self, instruction: str) -> bool:
        """Tells whether the tray is flat on the mark, both hands have let go, and the block is still in the tray."""
        _check(instruction)
        state = self.state()
        w, x, y, z = self.rig.data.joint("tray").qpos[3:7]
        upright = Rotation.from_quat((x, y, z, w)).as_matrix()[2, 2] > 0.995
        low = state.position[2] - self.ground < 0.012
        return bool(np.linalg.norm(state.position[:2] - GOAL_XY) < GOAL_RADIUS and low and upright
                    and _inside(state) and min(state.openings) > 0.8)

    def riding(self, joint: str) -> Tuple[str, ...]:
        """Returns the block while it is in the moving tray."""
        return ("block",) if joint == "tray" and _inside(self.state()) else ()

    def expert(self, instruction: str) -> ExpertLabel:
        """Returns the next pair of keyframes; the yaw is that of the tray, by which both hands are turned."""
        _check(instruction)
        state, above = self.state(), np.array([0.0, 0.0, self.ground])      # the expert's heights are above the table
        state = replace(state, position=state.position - above, block=state.block - above)
        tools = {name: np.asarray(arm.tool_at(self.rig.data.qpos[arm.index.qpos], FLANGE_M + TIP_M)[0]) - above
                 for name, arm in self.rig.arms.items()}
        step, hands = next_keyframe(state, tools_in_shared_frame(tools))
        return ExpertLabel(step, np.stack([hands[name].position - tools[name] for name in ARMS]),
                           np.array([hands[name].yaw for name in ARMS]), np.array([hands[name].opening for name in ARMS]))

    def report(self) -> Dict[str, Any]:
        """Returns the true state as plain data."""
        state = self.state()
        return {"position": state.position.tolist(), "yaw": state.yaw, "block": state.block.tolist(),
                "openings": list(state.openings)}


class TrayTask(Task[PiperRig]):
    """Carry the tray to the mark."""

    name = "tray"
    rig = "piper"
    phrases = PHRASES

    def furnish(self, root: ET.Element) -> None:
        """Adds tray, block and mark."""
        furnish(root)

    def world(self, rig: PiperRig) -> TrayWorld:
        """Finds tray and block in a furnished rig."""
        return TrayWorld(rig)

    def instructions(self) -> Tuple[str, ...]:
        """Returns the one sentence."""
        return (INSTRUCTION,)

    def draw(self, seed: int, episodes: int, switched: bool) -> List[EpisodeSpec]:
        """Draws scenes; there is nothing to switch to."""
        if switched:
            self.refuse_switch()
        return [EpisodeSpec(seed + index, INSTRUCTION) for index in range(episodes)]

    def varied(self, variation: str) -> TrayTask:
        """Returns the task with an unseen tray and block, background, height, or light."""
        return varied(self, variation)


def _inside(state: TrayState) -> bool:
    offset = Rotation.from_euler("z", -state.yaw).apply(state.block - state.position)
    return bool(abs(offset[0]) < 0.05 and abs(offset[1]) < 0.15 and 0.0 < offset[2] < 0.05)


def _check(instruction: str) -> None:
    if instruction != INSTRUCTION:
        raise HybridVLAError(f"the dual-arm rig cannot judge {instruction!r}; say {INSTRUCTION!r}")


TASK = TrayTask()
