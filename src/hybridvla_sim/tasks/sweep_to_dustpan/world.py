"""Sweep to dustpan: where objects are, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import NEAR_M, Grip, Keyframe, Tool, at, fetch, fold, holds, retreat
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld, width_of
from hybridvla_sim.tasks.sweep_to_dustpan.task import DIRT, GRIP_Z, HANDLE, HEAD, PAN_DEPTH, PAN_HALF, PHRASES, PIECE, build

LIFT, CLEAR = 0.07, 0.0025        # m: how far the broom is lifted over the dirt, and the height at which its head sweeps
DOWN = 0.012                      # m above the sweeping height: still low enough for the pieces, which are 18 mm high
BEHIND = HEAD[1] + 0.035          # m from the last piece to the middle of the broom, before a sweep


class SweepWorld(SingleArmWorld):
    """A broom, dirt and a dustpan."""

    painted = ("broom", "dustpan")
    upright = smaller = ("broom",)

    def place(self, rng: np.random.Generator) -> None:
        """Puts the pan on the right, the dirt in front of it, and the broom behind the dirt."""
        yaw, mouth = -np.pi / 2 + rng.uniform(-0.45, 0.45), np.array([rng.uniform(0.44, 0.54), rng.uniform(-0.16, -0.11)])
        self.stand("dustpan", mouth, yaw)
        way, side = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
        middle = mouth - rng.uniform(0.06, 0.10) * way
        for number, spot in enumerate(rng.permutation(9)[:DIRT]):
            along, across = (spot // 3 - 1) * 0.024, (spot % 3 - 1) * 0.028
            self.lay(f"dirt_{number}", middle + along * way + (across + rng.uniform(-0.002, 0.002)) * side, PIECE,
                     rng.uniform(-0.3, 0.3))
        broom = middle - rng.uniform(0.10, 0.15) * way + rng.uniform(-0.05, 0.05) * side
        self.lay("broom", broom, 0.0005, yaw + np.pi / 2 + rng.uniform(-0.6, 0.6))

    def local(self, position: np.ndarray) -> np.ndarray:
        """Converts a position (3,) m to the frame of the pan; x points inwards from its mouth."""
        found: np.ndarray = self.axes("dustpan").T @ (position - self.data.body("dustpan").xpos)
        return found

    def dirt(self) -> np.ndarray:
        """Returns the positions of the pieces in the frame of the pan, (5, 3) m."""
        return np.stack([self.local(self.data.body(f"dirt_{number}").xpos) for number in range(DIRT)])

    def done(self, goal: str) -> bool:
        """Tells whether all five pieces are in the pan."""
        pieces = self.dirt()
        inside = (pieces[:, 0] > 0.0) & (pieces[:, 0] < PAN_DEPTH) & (np.abs(pieces[:, 1]) < PAN_HALF)
        return bool((inside & (pieces[:, 2] < 0.03)).all())

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Grasps the broom, turns it across the way to the pan, and sweeps from behind the last piece."""
        grip = Grip(self.point("broom_grip"), self.heading("broom"), width_of(2 * self.scale * HANDLE[1]), hover=0.09)
        if not holds(tool, grip, 0.03):
            return retreat(tool, 0.25) if self.done(goal) else fetch(tool, grip, 0.0)
        axes, mouth = self.axes("dustpan"), self.data.body("dustpan").xpos
        low = self.ground + CLEAR + self.scale * GRIP_Z + (tool.position - grip.position)[2]
        yaw = fold(self.heading("dustpan") + np.pi / 2, np.pi)
        angles = (0.0, 0.0, yaw)
        if self.done(goal):
            return Keyframe("lift", at(tool.position, low + LIFT), (0.0, 0.0, tool.yaw), 0.0)
        pieces, hand = self.dirt(), self.local(tool.position)
        left = pieces[pieces[:, 0] < 0.004]
        down = tool.position[2] < low + DOWN
        ready = abs(fold(tool.yaw - yaw, np.pi)) < 0.2 and abs(hand[1]) < (0.02 if down else NEAR_M)
        behind = ready and hand[0] < left[:, 0].min() - 0.012 if len(left) else False
        if behind and down:
            return Keyframe("sweep", at(mouth + 0.012 * axes[:, 0], low), angles, 0.0)
        start = mouth + min(float(left[:, 0].min()) - BEHIND if len(left) else -0.1, -0.05) * axes[:, 0]
        if behind and np.linalg.norm((tool.position - start)[:2]) < 0.035:
            return Keyframe("lower", at(start, low), angles, 0.0)
        if tool.position[2] < low + LIFT - 0.02:
            return Keyframe("lift", at(tool.position, low + LIFT), (0.0, 0.0, tool.yaw), 0.0)
        return Keyframe("over", at(start, low + LIFT), angles, 0.0)


class SweepTask(SingleArmTask):
    """Sweep the dirt into the pan."""

    name = "sweep_to_dustpan"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds broom, dirt and pan."""
        build(root)

    def world(self, rig: Rig) -> SweepWorld:
        """Finds broom, dirt and pan."""
        return SweepWorld(rig)


TASK = SweepTask()
