"""A task's base on the single-arm rig: one hand, a front and a wrist camera."""
from __future__ import annotations

import abc
import xml.etree.ElementTree as ET

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_sim.fr3.rig import MAX_WIDTH, Rig
from hybridvla_sim.fr3.scene import tool_pose
from hybridvla_sim.task import ExpertLabel
from hybridvla_sim.taskkit.moves import DOWN, Keyframe, Tool
from hybridvla_sim.taskkit.shapes import box, fixed, worldbody
from hybridvla_sim.taskkit.world import SuiteTask, SuiteWorld

#: The plinth under everything in the variation `height`, half edges in m; otherwise it is below the table's surface.
PLINTH = (0.26, 0.36, 0.01)


class SingleArmWorld(SuiteWorld[Rig]):
    """Objects in front of the FR3."""

    @abc.abstractmethod
    def next(self, tool: Tool, goal: str) -> Keyframe:
        """Returns where the hand should go now; depends on the present state alone."""

    def tool(self) -> Tool:
        """Returns the pose and opening of the hand."""
        position, rotation = tool_pose(self.rig.model, self.rig.data, self.rig.index)
        return Tool(position.copy(), Rotation.from_matrix(rotation) * DOWN.inv(), self.rig.opening)

    def state(self) -> Tool:
        """Returns the true state of the hand; objects are queried by name."""
        return self.tool()

    def expert(self, instruction: str) -> ExpertLabel:
        """Returns the next keyframe of the Markov expert."""
        tool, goal = self.tool(), self.phrases.goal(instruction)
        wanted = self.next(tool, goal)
        return ExpertLabel(wanted.phase, (wanted.position - tool.position)[None], np.array([wanted.angles[2]]),
                           np.array([wanted.opening]), tilt=np.array([wanted.angles[:2]]))

    def free(self) -> bool:
        """Tells whether the fingers are open."""
        return self.rig.opening > 0.7

    def drop_held(self) -> bool:
        """Lets the held object slip out of the fingers onto the table, nearer to the base."""
        held = self.nearest_loose(self.tool().position, 0.06) if 0.04 < self.rig.opening < 0.85 else None
        if held is None:
            return False
        self.slip(held)
        return True


class SingleArmTask(SuiteTask[Rig]):
    """A task of the suite on the FR3 rig."""

    rig = "fr3"
    max_keyframes = 16

    def furnish(self, root: ET.Element) -> None:
        """Adds the task's objects, dims the light so that colours do not saturate, and switches off what makes rendering slow."""
        sun = worldbody(root).find("light")
        if sun is not None:
            sun.set("diffuse", ".42 .42 .42")
            sun.set("ambient", ".18 .18 .18")
        ET.SubElement(ET.SubElement(root, "visual"), "quality", offsamples="0")
        box(fixed(worldbody(root), "plinth", (0.5, 0.0, 0.0)), PLINTH, (0.0, 0.0, -PLINTH[2] - 0.0005), (0.62, 0.60, 0.56))
        self.build(root)

    @abc.abstractmethod
    def build(self, root: ET.Element) -> None:
        """Adds the task's objects."""


def width_of(metres: float) -> float:
    """Returns the gripper opening, 0 to 1, at which the fingers close on an object of this width, m."""
    return metres / MAX_WIDTH
