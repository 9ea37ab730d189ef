"""Close box: how the box stands, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Tuple

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import Keyframe, Push, Swing, Tool, retreat, shut
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld
from hybridvla_sim.tasks.close_box.task import ENOUGH, PHRASES, THICK, build

FINGER, HIGH = 0.009, 0.26
LEAST_OPEN, UNDER, TILT = 2.76, 1.3, 1.15      # rad: at the start; above UNDER, the hand comes from beneath, tilted by TILT


class BoxWorld(SingleArmWorld):
    """An open box on the table."""

    painted = ("box", "lid")
    resized = ("box",)

    def place(self, rng: np.random.Generator) -> None:
        """Puts the box down, turned by up to pi / 8, with its lid folded back."""
        self.stand("box", (rng.uniform(0.46, 0.55), rng.uniform(-0.10, 0.02)), rng.uniform(-np.pi / 8, np.pi / 8))
        self.start = rng.uniform(LEAST_OPEN, 2.85)
        self.open("lid", self.start)

    def done(self, goal: str) -> bool:
        """Tells whether the lid has turned by more than 2.6 rad."""
        return bool(self.start - self.angle("lid") > ENOUGH)

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Reaches under the lid with a tilted hand, lifts it past the vertical, and pushes it down from above."""
        axes, yaw = self.axes("box"), self.heading("box") + np.pi / 2
        swing = Swing(self.point("lid_hinge"), -axes[:, 1], np.array([0.0, 0.0, 1.0]), self.angle("lid"))
        if swing.angle < LEAST_OPEN - ENOUGH - 0.04:
            return retreat(tool, HIGH, 0.0)
        radius = float(np.linalg.norm(self.point("lid_edge") - swing.hinge)) - 0.018

        def angles(angle: float) -> Tuple[float, float, float]:
            return (0.0, TILT if angle > UNDER else 0.0, yaw)

        return shut(tool, swing, Push(radius, THICK + FINGER, angles, step=0.5, high=HIGH, beside=0.03))


class BoxTask(SingleArmTask):
    """Fold the lid over and shut the box."""

    name = "close_box"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds the box."""
        build(root)

    def world(self, rig: Rig) -> BoxWorld:
        """Finds the box."""
        return BoxWorld(rig)


TASK = BoxTask()
