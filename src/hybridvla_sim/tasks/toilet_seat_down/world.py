"""Toilet seat down: how the toilet stands, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import Keyframe, Push, Swing, Tool, retreat, shut
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld
from hybridvla_sim.tasks.toilet_seat_down.task import ENOUGH, PHRASES, THICK, build

#: Distance from the tool centre point to the middle of an open finger, and half the width of a finger, m.
ASIDE, FINGER, HIGH = 0.0485, 0.009, 0.36
LEAST_OPEN = 1.83


class ToiletWorld(SingleArmWorld):
    """A toilet in front of its tank."""

    painted = ("toilet", "seat")
    smaller = ("toilet",)

    def place(self, rng: np.random.Generator) -> None:
        """Puts the toilet down, turned by up to pi / 4, with its seat up."""
        self.stand("toilet", (rng.uniform(0.53, 0.60), rng.uniform(-0.12, 0.12)), rng.uniform(-np.pi / 4, np.pi / 4))
        self.start = rng.uniform(LEAST_OPEN, 1.88)
        self.open("seat", self.start)

    def done(self, goal: str) -> bool:
        """Tells whether the seat has turned by more than 1.7 rad."""
        return bool(self.start - self.angle("seat") > ENOUGH)

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Lowers one finger behind the seat and moves that finger around the hinge."""
        axes = self.axes("toilet")
        swing = Swing(self.point("seat_hinge"), -axes[:, 0], np.array([0.0, 0.0, 1.0]), self.angle("seat"))
        if swing.angle < LEAST_OPEN - ENOUGH - 0.03:
            return retreat(tool, HIGH)
        yaw = self.heading("toilet") + np.pi / 2        # pi / 4 to 3 pi / 4: a folded angle would jump at pi / 2
        radius = float(np.linalg.norm(self.point("seat_edge") - swing.hinge)) - 0.022
        push = Push(radius, self.scale * THICK + FINGER, lambda angle: (0.0, 0.0, yaw), step=0.5, opening=1.0, high=HIGH,
                    beside=0.012)
        behind = -ASIDE * swing.shut
        wanted = shut(replace(tool, position=tool.position + behind), swing, push)
        return replace(wanted, position=wanted.position - behind)


class ToiletTask(SingleArmTask):
    """Bring the seat down."""

    name = "toilet_seat_down"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds the toilet."""
        build(root)

    def world(self, rig: Rig) -> ToiletWorld:
        """Finds the toilet."""
        return ToiletWorld(rig)


TASK = ToiletTask()
