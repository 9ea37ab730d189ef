"""Water plants: where objects stand, how water leaves the can, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Tuple

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import NEAR_M, Grip, Keyframe, Tool, at, fetch, fold, holds, off_by, rotation_of
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld, width_of
from hybridvla_sim.tasks.water_plants.task import DROPS, EVERY_S, GRIP_Z, HANDLE, PHRASES, POT, POT_HEIGHT, POURS, SPOUT, build

TILT, ABOVE, TRAVEL = -0.9, 0.045, 0.20


class WaterWorld(SingleArmWorld):
    """A watering can and a plant in its pot."""

    painted = smaller = ("can", "pot")
    upright = ("can",)
    memory = ("poured", "_since")

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self._drops = [self.model.geom(f"drop_{number}").id for number in range(DROPS)]
        self._joints = [(int(self.model.joint(f"drop_{number}").qposadr[0]), int(self.model.joint(f"drop_{number}").dofadr[0]))
                        for number in range(DROPS)]
        self._can = int(self.model.joint("can").qposadr[0])
        self.poured, self._since = 0, 0.0

    def place(self, rng: np.random.Generator) -> None:
        """Puts the pot on the left and the can on the right, with its spout to the left."""
        self.poured, self._since = 0, 0.0
        self.model.geom_contype[self._drops] = self.model.geom_conaffinity[self._drops] = 0
        self.stand("pot", (rng.uniform(0.46, 0.60), rng.uniform(0.10, 0.20)), rng.uniform(-0.7, 0.7))
        self.lay("can", (rng.uniform(0.40, 0.56), rng.uniform(-0.20, -0.06)), 0.0005, np.pi / 2 + rng.uniform(-0.6, 0.6))
        self._carry_water()

    def passed(self, seconds: float) -> None:
        """Releases a drop every tenth of a second while the can is tilted; the others stay in the can."""
        self._since += seconds
        if self.poured < DROPS and self.axes("can")[2, 2] < np.cos(POURS) and self._since >= EVERY_S:
            number, self._since = self.poured, 0.0
            self.poured += 1
            joint, geom = self.data.joint(f"drop_{number}"), self._drops[number]
            joint.qpos[:3], joint.qvel[:] = self.point("spout"), 0.0
            self.model.geom_contype[geom] = self.model.geom_conaffinity[geom] = 1
        self._carry_water()

    def _carry_water(self) -> None:
        qpos, (w, x, y, z) = self.data.qpos, self.data.qpos[self._can + 3:self._can + 7]
        up = np.array([2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)])
        for number in range(self.poured, DROPS):
            address, dof = self._joints[number]
            qpos[address:address + 3] = qpos[self._can:self._can + 3] + 0.03 * up
            self.data.qvel[dof:dof + 6] = 0.0

    def riding(self, joint: str) -> Tuple[str, ...]:
        """Returns the drops that are still in the moving can."""
        return tuple(f"drop_{number}" for number in range(self.poured, DROPS)) if joint == "can" else ()

    def done(self, goal: str) -> bool:
        """Tells whether all five drops are in the pot."""
        half, height = self.scale * POT, self.scale * POT_HEIGHT
        return self.poured == DROPS and all(self.inside(
            self.data.body(f"drop_{number}").xpos, "pot", (-half, -half, 0.0), (half, half, height)) for number in range(DROPS))

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Grasps the can, holds its spout over the pot, and tilts the hand."""
        turn = fold(self.heading("can") - np.pi / 2, np.pi)
        grip = Grip(self.point("can_grip"), turn, width_of(2 * self.scale * HANDLE[0]))
        held = holds(tool, grip)
        if not held:
            return fetch(tool, grip, 0.0)
        top, yaw = self.point("pot_top"), tool.yaw
        level = (0.0, 0.0, yaw)
        tilted = (TILT, 0.0, yaw)
        spout = self.scale * np.array([0.0, SPOUT[0], SPOUT[2] - GRIP_Z])
        pour = top + [0.0, 0.0, ABOVE] - rotation_of(tilted).apply(spout)
        before = pour + [0.0, 0.0, 0.03]
        near = float(np.linalg.norm((tool.position - before)[:2])) < NEAR_M
        if self.poured == DROPS:
            return Keyframe("level", at(tool.position, TRAVEL + self.ground), level, 0.0)
        if near and (abs(tool.position[2] - before[2]) < 0.03 or off_by(tool, level) > 0.2):
            return Keyframe("pour", pour, tilted, 0.0)
        if tool.position[2] < TRAVEL + self.ground - 0.03 and not near:
            return Keyframe("lift", at(tool.position, TRAVEL + self.ground), level, 0.0)
        return Keyframe("above", before, level, 0.0)


class WaterTask(SingleArmTask):
    """Pour the water into the pot."""

    name = "water_plants"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds can, water and plant."""
        build(root)

    def world(self, rig: Rig) -> WaterWorld:
        """Finds can, water and plant."""
        return WaterWorld(rig)


TASK = WaterTask()
