"""Two-arm pick and place: where objects are, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Mapping

import numpy as np

from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.piper.scene import ARMS
from hybridvla_sim.taskkit.dual import DualArmTask, DualArmWorld, Hands, width_of
from hybridvla_sim.taskkit.moves import Grip, Keyframe, Tool, carry, fetch, holds, retreat
from hybridvla_sim.tasks.two_arm_pick_and_place.task import BLOCK, PHRASES, build

NEAR_PLATE, TRAVEL, SIDE = 0.03, 0.15, {"right": -1.0, "left": 1.0}
GRIP_UP = 0.006                  # m above the block's middle, so that the hand keeps clear of the table


class PickWorld(DualArmWorld):
    """A block and a plate for each hand."""

    painted = ("block_right", "block_left", "plate_right", "plate_left")
    upright = smaller = ("block_right", "block_left")

    def place(self, rng: np.random.Generator) -> None:
        """Puts a block with a random yaw near each arm, and a plate beyond it."""
        for arm in ARMS:
            side, height = SIDE[arm], self.scale * BLOCK[2]
            self.lay(f"block_{arm}", (rng.uniform(0.24, 0.30), side * rng.uniform(0.17, 0.32)), height, rng.uniform(-0.6, 0.6))
            self.stand(f"plate_{arm}", (rng.uniform(0.38, 0.43), side * rng.uniform(0.16, 0.26)), 0.0)

    def on_plate(self, arm: str) -> bool:
        """Tells whether the block of an arm is flat on its plate."""
        block, plate = self.data.body(f"block_{arm}").xpos, self.data.body(f"plate_{arm}").xpos
        return bool(np.linalg.norm((block - plate)[:2]) < NEAR_PLATE and block[2] - self.ground < self.scale * BLOCK[2] + 0.01)

    def done(self, goal: str) -> bool:
        """Tells whether both blocks are on their plates and released."""
        return all(self.on_plate(arm) for arm in ARMS) and self.free()

    def next(self, tools: Mapping[str, Tool], goal: str) -> Hands:
        """Returns the next keyframe of each hand, which does its own part."""
        return {arm: self.one(arm, tools[arm]) for arm in ARMS}

    def one(self, arm: str, tool: Tool) -> Keyframe:
        """Grasps the block across its narrow side and puts it on the plate."""
        block, plate = self.data.body(f"block_{arm}").xpos.copy(), self.data.body(f"plate_{arm}").xpos
        grip = Grip(block + [0.0, 0.0, GRIP_UP], self.heading(f"block_{arm}"), width_of(2 * self.scale * BLOCK[1]), hover=0.08)
        if holds(tool, grip):
            place = np.array([plate[0], plate[1], self.ground + self.scale * BLOCK[2] + 0.003 + (tool.position - block)[2]])
            return carry(tool, place, 0.0, TRAVEL + self.ground, period=np.pi)
        if self.on_plate(arm):
            return retreat(tool, TRAVEL)
        return fetch(tool, grip)


class PickTask(DualArmTask):
    """Put both blocks on their plates."""

    name = "two_arm_pick_and_place"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds blocks and plates."""
        build(root)

    def world(self, rig: PiperRig) -> PickWorld:
        """Finds blocks and plates."""
        return PickWorld(rig)


TASK = PickTask()
