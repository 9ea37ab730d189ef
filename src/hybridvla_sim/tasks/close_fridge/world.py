"""Close fridge: how the fridge stands, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import Keyframe, Push, Swing, Tool, retreat, shut
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld
from hybridvla_sim.tasks.close_fridge.task import ENOUGH, PHRASES, THICK, build

FINGER, HIGH, SHUT = 0.018, 0.30, 0.12


class FridgeWorld(SingleArmWorld):
    """A small fridge on the table."""

    painted = ("fridge", "door")
    resized = ("fridge",)

    def place(self, rng: np.random.Generator) -> None:
        """Puts the fridge down, turned by up to pi / 4 in all, with its door open."""
        self.stand("fridge", (rng.uniform(0.55, 0.60), rng.uniform(-0.14, 0.0)), rng.uniform(-0.55, 0.35))
        self.start = rng.uniform(0.75, 1.2)
        self.open("door", self.start)

    def done(self, goal: str) -> bool:
        """Tells whether the door has turned by more than 30 degrees."""
        return bool(self.start - self.angle("door") > ENOUGH)

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Comes down beside the door's outer face and pushes it shut."""
        axes = self.axes("fridge")
        swing = Swing(self.point("door_hinge"), -axes[:, 1], -axes[:, 0], self.angle("door"))
        if swing.angle < SHUT:
            return retreat(tool, HIGH, 0.0)
        radius = float(np.linalg.norm(self.point("door_edge") - swing.hinge)) - 0.03
        yaw = self.heading("fridge")
        return shut(tool, swing, Push(radius, THICK + FINGER, lambda angle: (0.0, 0.0, yaw), step=0.5, high=HIGH))


class FridgeTask(SingleArmTask):
    """Push the door shut."""

    name = "close_fridge"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds the fridge."""
        build(root)

    def world(self, rig: Rig) -> FridgeWorld:
        """Finds the fridge."""
        return FridgeWorld(rig)


TASK = FridgeTask()
