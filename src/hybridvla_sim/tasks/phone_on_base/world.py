"""Phone on base: where objects are, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import Grip, Keyframe, Tool, carry, fetch, holds, retreat
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld, width_of
from hybridvla_sim.tasks.phone_on_base.task import PHONE, PHRASES, build

TRAVEL = 0.20


class PhoneWorld(SingleArmWorld):
    """A phone and its base."""

    painted = ("phone", "phone_base")
    upright = smaller = ("phone",)

    def place(self, rng: np.random.Generator) -> None:
        """Puts the base at the back and the phone in front of it, each with a random yaw."""
        self.stand("phone_base", (rng.uniform(0.56, 0.63), rng.uniform(-0.18, 0.18)), rng.uniform(-0.7, 0.7))
        self.lay("phone", (rng.uniform(0.36, 0.45), rng.uniform(-0.2, 0.2)), self.scale * PHONE[2], rng.uniform(-1.2, 1.2))

    def done(self, goal: str) -> bool:
        """Tells whether the phone is flat between the rails and released."""
        low, high = (-0.045, -0.012, 0.0), (0.045, 0.012, self.scale * PHONE[2] + 0.006)
        local = self.axes("phone_base").T @ (self.data.body("phone").xpos - self.point("cradle"))
        return bool((local > low).all() and (local < high).all()) and self.axes("phone")[2, 2] > 0.99 and self.free()

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Grasps the phone across, aligns it with the base, and lays it between the rails."""
        phone, cradle = self.data.body("phone").xpos.copy(), self.point("cradle")
        grip = Grip(phone + [0.0, 0.0, 0.001], self.heading("phone"), width_of(2 * self.scale * PHONE[1]))
        if holds(tool, grip):
            place = cradle + [0.0, 0.0, self.scale * PHONE[2] + 0.003] + (tool.position - phone)
            return carry(tool, place, self.heading("phone_base"), TRAVEL + self.ground, period=np.pi, near=0.02, low=0.01)
        if self.done(goal):
            return retreat(tool, TRAVEL)
        return fetch(tool, grip, 0.0)


class PhoneTask(SingleArmTask):
    """Lay the phone in its base."""

    name = "phone_on_base"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds phone and base."""
        build(root)

    def world(self, rig: Rig) -> PhoneWorld:
        """Finds phone and base."""
        return PhoneWorld(rig)


TASK = PhoneTask()
