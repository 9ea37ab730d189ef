"""Lift the ball and place: where the ball is, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Mapping, Optional, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.piper.scene import ARMS
from hybridvla_sim.taskkit.dual import REACH, DualArmTask, DualArmWorld, Hands
from hybridvla_sim.taskkit.moves import Keyframe, Tool, off_by
from hybridvla_sim.tasks.lift_ball_and_place.task import PHRASES, RADIUS, build

SIDE = {"right": -1.0, "left": 1.0}
#: The hands are turned by 90 degrees about their own axes; otherwise, side by side, they would be too close to each other.
ANGLES: Mapping[str, Tuple[float, float, float]] = {
    arm: tuple((REACH * Rotation.from_euler("z", SIDE[arm] * np.pi / 2) * REACH.inv()).as_euler("xyz")) for arm in ARMS}
FINGER, SQUEEZE, BESIDE, LIFT = 0.012, 0.008, 0.045, 0.07      # m
NEAR_RING = 0.02


class BallWorld(DualArmWorld):
    """A ball and a ring."""

    painted = smaller = ("ball", "ring")

    @property
    def radius(self) -> float:
        """Radius of the ball in this scene, m."""
        return self.scale * RADIUS

    def place(self, rng: np.random.Generator) -> None:
        """Puts the ball between the arms and the ring beyond it."""
        self.lay("ball", (rng.uniform(0.23, 0.265), rng.uniform(-0.03, 0.03)), self.radius, rng.uniform(-np.pi, np.pi))
        self.stand("ring", (rng.uniform(0.395, 0.425), rng.uniform(-0.03, 0.03)), 0.0)

    def over_ring(self) -> bool:
        """Tells whether the centre of the ball is above that of the ring."""
        way = self.data.body("ball").xpos - self.data.body("ring").xpos
        return bool(np.linalg.norm(way[:2]) < NEAR_RING)

    def carried(self) -> Optional[str]:
        """Returns the ball while both hands press it."""
        centre = self.data.body("ball").xpos
        near = all(np.linalg.norm(tool.position - centre) < self.radius + FINGER + 0.003 for tool in self.tools().values())
        return "ball" if near else None

    def done(self, goal: str) -> bool:
        """Tells whether the ball is in the ring and no hand touches it."""
        centre = self.data.body("ball").xpos
        apart = min(float(np.linalg.norm(tool.position - centre)) for tool in self.tools().values())
        return self.over_ring() and bool(centre[2] - self.ground < self.radius + 0.012) and apart > self.radius + FINGER + 0.008

    def next(self, tools: Mapping[str, Tool], goal: str) -> Hands:
        """Moves to both sides of the ball, presses, lifts, carries, sets down, opens."""
        centre = self.data.body("ball").xpos.copy()
        ways = {arm: tools[arm].position - centre for arm in ARMS}
        level = all(np.linalg.norm(ways[arm][[0, 2]]) < 0.02 and off_by(tools[arm], ANGLES[arm]) < 0.15 for arm in ARMS)
        gaps = {arm: SIDE[arm] * ways[arm][1] - self.radius - FINGER for arm in ARMS}
        pressed = level and max(gaps.values()) < 0.0
        low = centre[2] - self.ground < self.radius + 0.015
        if pressed and not (self.over_ring() and low):
            shift = np.zeros(3)
            ring = self.data.body("ring").xpos
            if self.over_ring():
                phase, shift[2] = "lower", self.ground + self.radius + 0.001 - centre[2]
            elif centre[2] - self.ground < self.radius + LIFT - 0.02:
                phase, shift[2] = "lift", self.ground + self.radius + LIFT - centre[2]
            else:
                phase, shift[:2] = "carry", (ring - centre)[:2]
            return self._around(phase, centre + shift, -SQUEEZE)
        if self.over_ring() and low:
            if level and max(gaps.values()) < 0.02:
                return self._around("let go", centre, BESIDE)
            return {arm: Keyframe("retreat", tools[arm].position * [1.0, 1.0, 0.0] + [0.0, 0.0, 0.22], ANGLES[arm], 0.0)
                    for arm in ARMS}
        if level and max(gaps.values()) < BESIDE + 0.015:
            return self._around("press", centre, -SQUEEZE)
        out = self.radius + FINGER + BESIDE
        beside = all(np.linalg.norm((ways[arm] - [0.0, SIDE[arm] * out, 0.0])[:2]) < 0.02 for arm in ARMS)
        if beside:
            return self._around("beside", centre, BESIDE)
        return {arm: Keyframe("above", wanted.position * [1.0, 1.0, 0.0] + [0.0, 0.0, 0.20 + self.ground], ANGLES[arm], 0.0)
                for arm, wanted in self._around("above", centre, BESIDE).items()}

    def _around(self, phase: str, centre: np.ndarray, gap: float) -> Hands:
        out = self.radius + FINGER + gap
        return {arm: Keyframe(phase, centre + [0.0, SIDE[arm] * out, 0.0], ANGLES[arm], 0.0) for arm in ARMS}


class BallTask(DualArmTask):
    """Set the ball down in the ring."""

    name = "lift_ball_and_place"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds ball and ring."""
        build(root)

    def world(self, rig: PiperRig) -> BallWorld:
        """Finds ball and ring."""
        return BallWorld(rig)


TASK = BallTask()
