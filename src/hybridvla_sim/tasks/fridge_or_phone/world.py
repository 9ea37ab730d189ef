"""Fridge or phone: where objects stand. The two tasks themselves say when they are done and what comes next."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Dict

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import Keyframe, Tool
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld
from hybridvla_sim.tasks.close_fridge.world import FridgeWorld
from hybridvla_sim.tasks.fridge_or_phone.task import FRIDGE, PHONE, PHRASES, build
from hybridvla_sim.tasks.phone_on_base import task as phone
from hybridvla_sim.tasks.phone_on_base.world import PhoneWorld


class FridgeOrPhoneWorld(SingleArmWorld):
    """A fridge on the right, a phone and its base on the left."""

    painted = FridgeWorld.painted + PhoneWorld.painted
    resized = FridgeWorld.resized
    upright, smaller = PhoneWorld.upright, PhoneWorld.smaller

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self._fridge = FridgeWorld(rig)
        self._parts: Dict[str, SingleArmWorld] = {FRIDGE: self._fridge, PHONE: PhoneWorld(rig)}

    def place(self, rng: np.random.Generator) -> None:
        """Puts the fridge on the right, with its door open, and the phone and its base on the left."""
        for part in self._parts.values():
            part.ground, part.scale = self.ground, self.scale
        self.stand("fridge", (rng.uniform(0.55, 0.59), rng.uniform(-0.17, -0.11)), rng.uniform(-0.45, 0.1))
        self._fridge.start = rng.uniform(0.75, 1.2)
        self.open("door", self._fridge.start)
        self.stand("phone_base", (rng.uniform(0.56, 0.62), rng.uniform(0.13, 0.20)), rng.uniform(-0.5, 0.5))
        self.lay("phone", (rng.uniform(0.36, 0.44), rng.uniform(0.10, 0.20)), self.scale * phone.PHONE[2], rng.uniform(-1.2, 1.2))

    def done(self, goal: str) -> bool:
        """Tells whether the goal is reached, as in the task that is asked for."""
        return self._parts[goal].done(goal)

    def lost(self, instruction: str) -> bool:
        """Tells whether the phone is lost; this does not matter if the fridge is asked for."""
        return self.phrases.goal(instruction) == PHONE and super().lost(instruction)

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Returns the next keyframe, as in the task that is asked for."""
        return self._parts[goal].next(tool, goal)


class FridgeOrPhoneTask(SingleArmTask):
    """Close the fridge, or put the phone on its base."""

    name = "fridge_or_phone"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds the fridge, the phone and its base."""
        build(root)

    def world(self, rig: Rig) -> FridgeOrPhoneWorld:
        """Finds the fridge, the phone and its base."""
        return FridgeOrPhoneWorld(rig)


TASK = FridgeOrPhoneTask()
