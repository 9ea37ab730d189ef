"""Wine at rack: where objects stand, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import Grip, Keyframe, Tool, carry, fetch, holds, retreat
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld, width_of
from hybridvla_sim.tasks.wine_at_rack.task import GRIP_Z, INNER, NECK, PHRASES, build

TRAVEL = 0.32


class WineWorld(SingleArmWorld):
    """A bottle and a rack with three places."""

    painted = ("bottle", "rack", "place_left", "place_middle", "place_right")
    upright = smaller = ("bottle",)

    def place(self, rng: np.random.Generator) -> None:
        """Puts the rack on the far side and the bottle on the near one."""
        self.looks.paint_alike(("place_left", "place_middle", "place_right"))
        self.stand("rack", (rng.uniform(0.58, 0.63), rng.uniform(-0.06, 0.06)), rng.uniform(-0.3, 0.3))
        self.lay("bottle", (rng.uniform(0.36, 0.46), rng.uniform(-0.22, 0.22)), 0.0005, rng.uniform(-np.pi, np.pi))

    def done(self, goal: str) -> bool:
        """Tells whether the bottle stands in the named place, released."""
        foot = self.data.body("bottle").xpos
        return self.free() and self.axes("bottle")[2, 2] > 0.97 and self.inside(
            foot, f"place_{goal}", (-INNER, -INNER, -0.005), (INNER, INNER, 0.02)) and not self.touched()

    def touched(self) -> bool:
        """Tells whether the hand is still around the neck."""
        return bool(self.tool().opening < 0.6)

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Grasps the bottle by its neck, carries it over the place, and lowers it."""
        grip = Grip(self.point("bottle_grip"), 0.0, width_of(2 * self.scale * NECK), hover=0.08, period=np.pi)
        if holds(tool, grip):
            place = self.where(goal) + [0.0, 0.0, self.scale * GRIP_Z + 0.006 - (grip.position - tool.position)[2]]
            return carry(tool, place, 0.0, TRAVEL + self.ground, period=np.pi, near=0.02, low=0.01)
        if self.done(goal):
            return retreat(tool, TRAVEL)
        return fetch(tool, grip, TRAVEL)


class WineTask(SingleArmTask):
    """Put the bottle in the named place of the rack."""

    name = "wine_at_rack"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds bottle and rack."""
        build(root)

    def world(self, rig: Rig) -> WineWorld:
        """Finds bottle and rack."""
        return WineWorld(rig)


TASK = WineTask()
