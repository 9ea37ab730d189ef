"""A task's base on the dual-arm rig: two hands, a front and two wrist cameras."""
from __future__ import annotations

import abc
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Dict, Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.piper.scene import ARMS, BASE_Y, FLANGE_M, MAX_WIDTH, TIP_M, pose_of
from hybridvla_sim.task import ExpertLabel
from hybridvla_sim.taskkit.moves import Keyframe, Tool
from hybridvla_sim.taskkit.shapes import box, fixed, worldbody
from hybridvla_sim.taskkit.world import SuiteTask, SuiteWorld

#: A hand that reaches forwards and down, 30 degrees from the vertical: the reference of an action's angles.
REACH = Rotation.from_euler("y", 150.0, degrees=True)
PLINTH = (0.25, 0.40, 0.01)
Hands = Dict[str, Keyframe]


class DualArmWorld(SuiteWorld[PiperRig]):
    """Objects in front of two Pipers. Positions are in the frame that both arms share."""

    @abc.abstractmethod
    def next(self, tools: Mapping[str, Tool], goal: str) -> Hands:
        """Returns where each hand should go now; depends on the present state alone."""

    def tool(self, arm: str) -> Tool:
        """Returns the pose and opening of a hand; its rotation is relative to `REACH`."""
        found = self.rig.arms[arm]
        position, rotation = pose_of(self.data, found.index, FLANGE_M + TIP_M)
        opening = min(max(found.gripper * 1e-6 / MAX_WIDTH, 0.0), 1.0)
        return Tool(position + [0.0, BASE_Y[arm], 0.0], Rotation.from_matrix(rotation) * REACH.inv(), opening)

    def tools(self) -> Dict[str, Tool]:
        """Returns both hands, the right one first."""
        return {arm: self.tool(arm) for arm in ARMS}

    def state(self) -> Dict[str, Tool]:
        """Returns the true state of the hands; objects are queried by name."""
        return self.tools()

    def expert(self, instruction: str) -> ExpertLabel:
        """Returns the next pair of keyframes of the Markov expert."""
        tools = self.tools()
        wanted = self.next(tools, self.phrases.goal(instruction))
        angles = np.array([wanted[arm].angles for arm in ARMS])
        return ExpertLabel("/".join(dict.fromkeys(wanted[arm].phase for arm in ARMS)),
                           np.stack([wanted[arm].position - tools[arm].position for arm in ARMS]), angles[:, 2],
                           np.array([wanted[arm].opening for arm in ARMS]), tilt=angles[:, :2])

    def free(self) -> bool:
        """Tells whether both hands are open."""
        return min(tool.opening for tool in self.tools().values()) > 0.75


class DualArmTask(SuiteTask[PiperRig]):
    """A task of the suite on the AgileX rig."""

    rig = "piper"
    max_keyframes = 20
    max_time = 90.0

    def furnish(self, root: ET.Element) -> None:
        """Adds the task's objects and switches off what makes rendering slow."""
        ET.SubElement(ET.SubElement(root, "visual"), "quality", offsamples="0")
        box(fixed(worldbody(root), "plinth", (0.33, 0.0, 0.0)), PLINTH, (0.0, 0.0, -PLINTH[2]), (0.62, 0.60, 0.56), contype="1",
            conaffinity="7")
        self.build(root)
        for body in worldbody(root).iter("body"):       # these bits let the shapes of both arms collide with those of a task
            for geom in body.findall("geom") if not body.get("name", "").startswith(ARMS) else ():
                if geom.get("contype") is None:
                    geom.set("contype", "1")
                    geom.set("conaffinity", "7")

    @abc.abstractmethod
    def build(self, root: ET.Element) -> None:
        """Adds the task's objects."""


def stay(tool: Tool, opening: float) -> Keyframe:
    """Returns a keyframe that keeps a hand where it is."""
    return Keyframe("stay", tool.position.copy(), tuple(tool.rotation.as_euler("xyz")), opening)


def moved(tool: Tool, phase: str, shift: np.ndarray, opening: float) -> Keyframe:
    """Returns a keyframe that moves a hand by `shift` (3,) m without turning it."""
    return replace(stay(tool, opening), phase=phase, position=tool.position + shift)


def width_of(metres: float) -> float:
    """Returns the gripper opening, 0 to 1, at which the fingers close on an object of this width, m."""
    return metres / MAX_WIDTH
