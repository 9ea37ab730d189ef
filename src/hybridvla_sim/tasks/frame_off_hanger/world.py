"""Frame off hanger: how the frame hangs, when the task is done, what the expert does."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.taskkit.moves import Grip, Keyframe, Tool, at, fetch, holds, retreat
from hybridvla_sim.taskkit.single import SingleArmTask, SingleArmWorld, width_of
from hybridvla_sim.tasks.frame_off_hanger.task import BACK, BAR_Z, HOOK_Z, PHRASES, PLATE, TOP, build

RAISE, AWAY = 0.035, 0.14         # m: up off the hook, and away towards the robot
HANGS_Z = HOOK_Z + 0.006          # m, height of the bar while the frame hangs


class FrameWorld(SingleArmWorld):
    """A frame on its hook."""

    painted = smaller = ("frame", "hanger")
    upright = ("frame",)

    def place(self, rng: np.random.Generator) -> None:
        """Puts the hanger down, turned by up to pi / 4, with the frame on its hook."""
        place, yaw = np.array([rng.uniform(0.55, 0.62), rng.uniform(-0.16, 0.16)]), rng.uniform(-np.pi / 4, np.pi / 4)
        self.stand("hanger", place, yaw)
        front = np.array([np.cos(yaw), np.sin(yaw)])
        self.lay("frame", place - self.scale * BACK * front, self.scale * (HANGS_Z - BAR_Z) + 0.0005, yaw)

    def local(self, position: np.ndarray) -> np.ndarray:
        """Converts a position (3,) m to the hanger's frame."""
        found: np.ndarray = self.axes("hanger").T @ (position - self.data.body("hanger").xpos)
        return found

    def done(self, goal: str) -> bool:
        """Tells whether the frame is off the hook, on the table, and released."""
        frame = self.data.body("frame").xpos
        return bool(self.local(frame)[0] < -0.05 and frame[2] < self.ground + self.scale * PLATE[2] + 0.012 and self.free())

    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Grasps the frame's upper edge, lifts it off the hook, pulls it away, and releases it on the table."""
        grip = Grip(self.point("frame_top"), self.heading("frame") + np.pi / 2, width_of(2 * self.scale * PLATE[0]), hover=0.07,
                    around=np.pi / 2)
        if not holds(tool, grip):
            if self.done(goal):
                return retreat(tool, 0.28)
            return fetch(tool, grip, 0.0)
        bar, axes, hangs = self.local(self.point("frame_bar")), self.axes("hanger"), self.scale * HANGS_Z
        angles = (0.0, 0.0, tool.yaw)
        if bar[0] > -0.05 and bar[2] < hangs + 0.022:
            return Keyframe("unhook", tool.position + [0.0, 0.0, hangs + RAISE - bar[2]], angles, 0.0)
        if bar[0] > -AWAY + 0.03:
            return Keyframe("away", tool.position - (AWAY + bar[0]) * axes[:, 0], angles, 0.0)
        foot = self.point("frame_top")[2] - self.scale * (2 * PLATE[2] - TOP) - self.ground
        return Keyframe("release", at(tool.position, tool.position[2] - foot + 0.003), angles, 1.0)


class FrameTask(SingleArmTask):
    """Take the frame off its hook and put it down."""

    name = "frame_off_hanger"
    phrases = PHRASES

    def build(self, root: ET.Element) -> None:
        """Adds frame and hanger."""
        build(root)

    def world(self, rig: Rig) -> FrameWorld:
        """Finds frame and hanger."""
        return FrameWorld(rig)


TASK = FrameTask()
