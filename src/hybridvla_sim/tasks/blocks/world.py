"""The blocks task in the FR3 rig: where objects are, when the task is done, what the expert does."""
from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from typing import List, Tuple

import mujoco
import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.fr3.scene import tool_pose
from hybridvla_sim.task import EpisodeSpec, ExpertLabel, Task, World
from hybridvla_sim.taskkit.looks import HEIGHT_M, VARIATIONS, Looks, apply, snapshot, varied
from hybridvla_sim.tasks.blocks.episodes import draw_specs
from hybridvla_sim.tasks.blocks.expert import WorldState, expert_action, fold, held_block
from hybridvla_sim.tasks.blocks.scene import BlockIndex, furnish, place_block
from hybridvla_sim.tasks.blocks.task import (
    BLOCK_EDGE,
    COLOUR,
    SUCCESS_RADIUS,
    instructions,
    parse_instruction,
    phrases,
    sample_scene,
)

#: Distance from the fingers of a block that slipped out of them, m.
SLIP_M = 0.12


class BlocksWorld(World[Rig]):
    """Four blocks and four pads, one of each colour.

    Attributes:
        ground: Height of the table, m: 0, or more in the variation `height`.
    """

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self.index = BlockIndex(rig.model)
        self.ground = 0.0
        self._looks = Looks(rig.model)
        self._flat = rig.model.geom_pos[:, 2].copy()
        self._pads = np.zeros((4, 2))

    def reset(self, rng: np.random.Generator) -> None:
        """Draws blocks and pads (`task.sample_scene`) and places them, with the task's variation."""
        scene, model = sample_scene(rng), self.rig.model
        self._vary(rng)
        for block in range(4):
            place_block(self.rig.data, self.index, block,
                        np.array([*scene.block_xy[block], BLOCK_EDGE / 2 - 0.0005 + self.ground]), float(scene.block_yaw[block]))
            model.geom_pos[self.index.pad_geoms[block], :2] = scene.pad_xy[block]
        self._pads = np.array(scene.pad_xy)

    def _vary(self, rng: np.random.Generator) -> None:
        """Applies the variation that no demonstration has: rods for cubes, another table, a higher one, or another light."""
        variation, model = self.rig.task.variation, self.rig.model
        if variation not in VARIATIONS:
            return
        self._looks.restore()
        self._looks.unusual(variation, rng)
        if variation == "object":
            model.geom_type[self.index.block_geoms] = mujoco.mjtGeom.mjGEOM_CYLINDER
            # Without this, older MuJoCo finds only one contact of a rod between flat fingers, and the rod turns out of them.
            model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_MULTICCD)
        self.ground = HEIGHT_M if variation == "height" else 0.0
        raised = [self.rig.index.table, *self.index.pad_geoms]
        model.geom_pos[raised, 2] = self._flat[raised] + self.ground

    def copy_state(self, other: World[Rig]) -> None:
        """Copies the positions of the pads, and the variation."""
        model, theirs = self.rig.model, other.rig.model
        if other.rig.task.variation in VARIATIONS:
            apply(model, snapshot(theirs))
            model.geom_type[:] = theirs.geom_type
        model.geom_pos[self.index.pad_geoms] = theirs.geom_pos[self.index.pad_geoms]

    def block_position(self, block: int) -> np.ndarray:
        """Returns the centre (3,) m of a block, given by colour index."""
        address = self.index.block_qpos[block]
        position: np.ndarray = self.rig.data.qpos[address:address + 3].copy()
        return position

    def state(self) -> WorldState:
        """Returns the true state of tool, blocks and pads; heights are above the table."""
        rig = self.rig
        position, rotation = tool_pose(rig.model, rig.data, rig.index)
        yaws = []
        for address in self.index.block_qpos:
            w, x, y, z = rig.data.qpos[address + 3:address + 7]
            yaws.append(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
        above = np.array([0.0, 0.0, self.ground])
        return WorldState(tool=position - above, yaw=float(np.arctan2(rotation[1, 0], rotation[0, 0])),
                          opening=rig.opening, block_pos=np.stack([self.block_position(i) - above for i in range(4)]),
                          block_yaw=fold(np.array(yaws)), pad_xy=self._pads.copy())

    def success(self, instruction: str) -> bool:
        """Tells whether the block is on the pad (centre within 45 mm), flat on the table and released."""
        block, pad = parse_instruction(instruction, self.rig.task.variation)
        position = self.block_position(block)
        on_pad = np.linalg.norm(position[:2] - self._pads[pad]) < SUCCESS_RADIUS
        return bool(on_pad and position[2] < 0.04 + self.ground and held_block(self.state()) != block and self.rig.opening > 0.7)

    def expert(self, instruction: str) -> ExpertLabel:
        """Returns the next keyframe of the Markov expert."""
        state = self.state()
        action = expert_action(state, *parse_instruction(instruction, self.rig.task.variation))
        return ExpertLabel(action.phase, (action.position - state.tool)[None], np.array([action.yaw]),
                           np.array([action.opening]), yaw_period=np.pi / 2)

    def drop_held(self) -> bool:
        """Lays the held block on the table, `SLIP_M` nearer to the base."""
        held = held_block(self.state())
        if held < 0:
            return False
        place = self.block_position(held)
        place_block(self.rig.data, self.index, held, np.array([place[0] - SLIP_M, place[1], BLOCK_EDGE / 2 + self.ground]),
                    0.0)
        return True


class BlocksTask(Task[Rig]):
    """Put the named block on the named pad."""

    name = "blocks"
    rig = "fr3"
    phrases = phrases()

    def furnish(self, root: ET.Element) -> None:
        """Adds blocks and pads."""
        furnish(root, self.variation)

    def world(self, rig: Rig) -> BlocksWorld:
        """Finds blocks and pads in a furnished rig."""
        return BlocksWorld(rig)

    def instructions(self) -> Tuple[str, ...]:
        """Returns all sixteen sentences, in the order block * 4 + pad; in the variation `colour`, its four."""
        return instructions(self.variation)

    def draw(self, seed: int, episodes: int, switched: bool) -> List[EpisodeSpec]:
        """Draws scenes and instructions; a switch changes both block and pad."""
        return draw_specs(seed, episodes, switched, self.variation)

    def varied(self, variation: str) -> BlocksTask:
        """Returns the task with rods for cubes, another table, a higher one, or another light; or with a pad of another colour,
        which every sentence names."""
        if variation != COLOUR:
            return varied(self, variation, COLOUR)
        found = copy.copy(self)
        found.variation, found.phrases = variation, phrases(variation)
        return found


TASK = BlocksTask()
