"""Close laptop lid: how the laptop stands, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import Keyframe, Push, Swing, Tool, retreat, shut
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld
from hybridvla_sim.tasks.close_laptop_lid.task import ENOUGH, PHRASES, THICK, build

FINGER = 0.009              # m, half the width of the closed fingers
HIGH, LEAST_OPEN = 0.30, 1.93


class LaptopWorld(SingleArmWorld):
    """A laptop on the table."""

    painted = ("laptop", "lid")
    resized = ("laptop",)

    def place(self, rng: np.random.Generator) -> None:
        """Puts the laptop down with its back to the robot, and opens it wide."""
        self.stand("laptop", (rng.uniform(0.43, 0.50), rng.uniform(-0.12, 0.12)), rng.uniform(-0.5, 0.5))
        self.start = rng.uniform(LEAST_OPEN, 2.05)
        self.open("lid", self.start)

    def done(self, goal: str) -> bool:
        """Tells whether the lid has turned by more than 1.79 rad."""
        return bool(self.start - self.angle("lid") > ENOUGH)

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Comes down behind the screen and pushes its edge over and down."""
        swing = self.swing()
        if swing.angle < LEAST_OPEN - ENOUGH - 0.03:
            return retreat(tool, HIGH, 0.0)
        yaw = self.heading("laptop")
        radius = float(np.linalg.norm(self.point("lid_edge") - swing.hinge)) - 0.015
        return shut(tool, swing, Push(radius, THICK + FINGER, lambda angle: (0.0, 0.0, yaw), high=HIGH))

    def swing(self) -> Swing:
        """Returns the geometry of the lid, as the hand sees it."""
        return Swing(self.point("lid_hinge"), self.axes("laptop")[:, 0], np.array([0.0, 0.0, 1.0]), self.angle("lid"))


class LaptopTask(SingleArmTask):
    """Push the lid shut."""

    name = "close_laptop_lid"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds the laptop."""
        build(root)

    def world(self, rig: Rig) -> LaptopWorld:
        """Finds the laptop."""
        return LaptopWorld(rig)


TASK = LaptopTask()
