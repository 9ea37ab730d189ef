"""Hold and wipe: where objects are, how stains vanish, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Mapping

import numpy as np

from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.taskkit.dual import DualArmTask, DualArmWorld, Hands, stay, width_of
from hybridvla_sim.taskkit.moves import NEAR_RAD, Grip, Keyframe, Tool, at, fetch, fold, holds, off_by
from hybridvla_sim.tasks.hold_and_wipe.task import BOARD, HANDLE, PHRASES, REACH_M, RUB_M, SPONGE, STAINS_Y, TOUCH_M, build

TRAVEL, GRIP_UP, PRESS = 0.15, 0.008, 0.002          # m
#: Where strokes begin and end along the board, m: with the far end where it is, both hands keep clear of each other.
BEGIN, END = STAINS_Y[0] - 0.028, STAINS_Y[-1] + 0.016
STAINS = len(STAINS_Y)


class WipeWorld(DualArmWorld):
    """A board with stains and a sponge."""

    painted = ("board", "sponge")
    upright = ("board", "sponge")
    smaller = ("sponge",)
    memory = ("left_to_rub", "_before")

    def __init__(self, rig: PiperRig) -> None:
        super().__init__(rig)
        self._board, self._sponge = (self.model.body(name).id for name in ("board", "sponge"))
        self._stains = [self.model.geom(f"stain_{number}").id for number in range(STAINS)]
        self.left_to_rub, self._before = np.full(STAINS, RUB_M), np.zeros(3)

    def place(self, rng: np.random.Generator) -> None:
        """Puts the board between the arms and the sponge to the right of it."""
        self.left_to_rub = np.full(STAINS, RUB_M)
        yaw = rng.uniform(-0.15, 0.15)
        self.lay("board", (rng.uniform(0.30, 0.34), rng.uniform(0.0, 0.04)), BOARD[2], yaw)
        self.lay("sponge", (rng.uniform(0.24, 0.32), rng.uniform(-0.30, -0.23)), self.scale * SPONGE[2], rng.uniform(-0.5, 0.5))
        self._before = np.array([9.0, 9.0, 9.0])

    def foot(self) -> np.ndarray:
        """Returns the middle of the sponge's lower face in the board's frame, (3,) m."""
        xpos, xmat = self.data.xpos, self.data.xmat         # by number, since this is called at every step of the engine
        low = xpos[self._sponge] - self.scale * SPONGE[2] * xmat[self._sponge].reshape(3, 3)[:, 2]
        found: np.ndarray = xmat[self._board].reshape(3, 3).T @ (low - xpos[self._board])
        return found

    def passed(self, seconds: float) -> None:
        """Rubs the stains under the sponge by the distance that it has moved over the board."""
        foot = self.foot()
        before, self._before = self._before, foot
        if abs(foot[2] - BOARD[2]) > TOUCH_M:
            return
        way = float(np.linalg.norm((foot - before)[:2]))
        if way > 0.01:
            return
        for number, geom in enumerate(self._stains):
            if np.linalg.norm(self.model.geom_pos[geom][:2] - foot[:2]) < REACH_M:
                self.left_to_rub[number] = max(0.0, self.left_to_rub[number] - way)
                self.model.geom_rgba[geom, 3] = float(self.left_to_rub[number] > 0.0)

    def done(self, goal: str) -> bool:
        """Tells whether no stain is left."""
        return bool((self.left_to_rub <= 0.0).all())

    def next(self, tools: Mapping[str, Tool], goal: str) -> Hands:
        """Holds the board first, then wipes along the stains."""
        handle = self._handle()
        sponge = self.data.body("sponge").xpos.copy()
        grip = Grip(sponge + [0.0, 0.0, GRIP_UP], self.heading("sponge"), width_of(2 * self.scale * SPONGE[1]), hover=0.08)
        right, left = tools["right"], tools["left"]
        holding = self.holding(left)
        hands = {"left": stay(left, 0.0) if holding else fetch(left, handle)}
        if not holds(right, grip):
            hands["right"] = fetch(right, grip)
        elif self.done(goal):
            hands["right"] = Keyframe("lift", at(right.position, TRAVEL + self.ground), (0.0, 0.0, right.yaw), 0.0)
        else:
            hands["right"] = self._wipe(right, right.position - sponge, holding)
        return hands

    def holding(self, tool: Tool) -> bool:
        """Tells whether a hand holds the board by its handle."""
        return holds(tool, self._handle())

    def _handle(self) -> Grip:
        return Grip(self.point("handle"), self.heading("board"), width_of(2 * HANDLE[1]), hover=0.08)

    def _wipe(self, tool: Tool, grip: np.ndarray, holding: bool) -> Keyframe:
        board, axes = self.data.body("board").xpos, self.axes("board")
        turn = fold(self.heading("board"), np.pi)
        foot, angles = self.foot(), (0.0, 0.0, turn)

        def over(y: float, height: float) -> np.ndarray:
            spot = board + axes @ np.array([0.0, y, BOARD[2] + self.scale * SPONGE[2] + height])
            found: np.ndarray = spot + grip
            return found

        along = abs(foot[0]) < 0.018 and BEGIN - 0.02 < foot[1] < END + 0.02 and off_by(tool, angles) < NEAR_RAD
        if along and foot[2] < BOARD[2] + 0.008 and holding:
            dirty = [y for y, left in zip(STAINS_Y, self.left_to_rub) if left > 0.0]
            ahead = max(dirty) > foot[1] + 0.005
            return Keyframe("wipe", over(END if ahead else BEGIN, -PRESS), angles, 0.0)
        if along and holding and abs(foot[1] - BEGIN) < 0.02:
            return Keyframe("touch", over(BEGIN, -PRESS), angles, 0.0)
        if tool.position[2] < TRAVEL + self.ground - 0.03:
            return Keyframe("lift", at(tool.position, TRAVEL + self.ground), (0.0, 0.0, tool.yaw), 0.0)
        return Keyframe("over", at(over(BEGIN, 0.0), TRAVEL + self.ground), angles, 0.0)


class WipeTask(DualArmTask):
    """Wipe the board while the other hand holds it."""

    name = "hold_and_wipe"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds board and sponge."""
        build(root)

    def world(self, rig: PiperRig) -> WipeWorld:
        """Finds board and sponge."""
        return WipeWorld(rig)


TASK = WipeTask()
