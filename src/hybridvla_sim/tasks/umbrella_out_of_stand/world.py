"""Umbrella out of stand: where the umbrella stands, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import Grip, Keyframe, Tool, at, fetch, holds
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld, width_of
from hybridvla_sim.tasks.umbrella_out_of_stand.task import FLOOR, HANDLE, HANDLE_Z, HEIGHT, PHRASES, build


class UmbrellaWorld(SingleArmWorld):
    """An umbrella in its stand."""

    painted = smaller = ("stand", "umbrella")
    upright = ("umbrella",)

    def place(self, rng: np.random.Generator) -> None:
        """Puts the stand down with the umbrella in it, its handle at a random yaw."""
        place = (rng.uniform(0.42, 0.60), rng.uniform(-0.2, 0.2))
        self.stand("stand", place, rng.uniform(-0.7, 0.7))
        self.lay("umbrella", place, 0.0045 - (1.0 - self.scale) * FLOOR, rng.uniform(-1.2, 1.2))

    def done(self, goal: str) -> bool:
        """Tells whether the umbrella's foot is above the stand's rim."""
        return bool(self.data.body("umbrella").xpos[2] > self.ground + self.scale * HEIGHT + 0.005)

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Grasps the handle across and pulls straight up."""
        grip = Grip(self.point("umbrella_grip"), self.heading("umbrella"), width_of(2 * self.scale * HANDLE[1]), hover=0.08)
        if holds(tool, grip):
            high = self.ground + self.scale * HANDLE_Z + self.scale * HEIGHT + 0.04
            return Keyframe("pull", at(tool.position, high), (0.0, 0.0, tool.yaw), 0.0)
        return fetch(tool, grip, 0.0)


class UmbrellaTask(SingleArmTask):
    """Take the umbrella out of the stand."""

    name = "umbrella_out_of_stand"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds umbrella and stand."""
        build(root)

    def world(self, rig: Rig) -> UmbrellaWorld:
        """Finds umbrella and stand."""
        return UmbrellaWorld(rig)


TASK = UmbrellaTask()
