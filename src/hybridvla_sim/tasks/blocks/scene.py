"""Blocks and pads on the table: their shapes, and their addresses in a model."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import mujoco
import numpy as np

from hybridvla_sim.fr3.scene import rgba
from hybridvla_sim.tasks.blocks.task import BLOCK_EDGE, COLOURS, PAD_RADIUS, pad_colours

RGB = {"red": (0.85, 0.12, 0.1), "green": (0.1, 0.62, 0.2), "blue": (0.12, 0.25, 0.85), "yellow": (0.95, 0.8, 0.1),
       "purple": (0.5, 0.1, 0.62)}


def furnish(root: ET.Element, variation: str = "") -> None:
    """Adds four blocks and four pads, one of each colour; their poses are set at reset.

    In every variation, the shapes are named after the usual colours.
    """
    world = root.find("worldbody")
    assert world is not None, "a scene has a worldbody"
    for index, (colour, pad) in enumerate(zip(COLOURS, pad_colours(variation))):
        _add_objects(world, index, colour, np.array(RGB[pad]))


def _add_objects(world: ET.Element, index: int, colour: str, pad_rgb: np.ndarray) -> None:
    rgb = np.array(RGB[colour])
    pale = np.clip(pad_rgb * 0.75 + 0.18, 0.0, 1.0)  # a block on the pad of its own colour stays visible
    ET.SubElement(world, "geom", name=f"pad_{colour}", type="cylinder", size=f"{PAD_RADIUS} 0.001", pos="0.6 0 0.001",
                  contype="0", conaffinity="0", rgba=rgba(pale))
    half = BLOCK_EDGE / 2
    body = ET.SubElement(world, "body", name=f"block_{colour}", pos=f"0.4 {0.1 * index} {half}")
    ET.SubElement(body, "freejoint", name=f"block_{colour}")
    ET.SubElement(body, "geom", name=f"block_{colour}", type="box", size=f"{half} {half} {half}", mass="0.06",
                  friction="1.2 0.02 0.0002", solref="0.006 1", solimp="0.97 0.995 0.0005", rgba=rgba(rgb))


class BlockIndex:
    """Addresses of blocks and pads in a model, by colour.

    Attributes:
        block_qpos: Address of the first position of each block's free joint.
        block_dofs: Address of the first velocity of each block's free joint.
        block_geoms: Geom of each block.
        pad_geoms: Geom of each pad.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.block_qpos = [model.jnt_qposadr[model.joint(f"block_{c}").id] for c in COLOURS]
        self.block_dofs = [model.jnt_dofadr[model.joint(f"block_{c}").id] for c in COLOURS]
        self.block_geoms = [model.geom(f"block_{c}").id for c in COLOURS]
        self.pad_geoms = [model.geom(f"pad_{c}").id for c in COLOURS]


def place_block(data: mujoco.MjData, index: BlockIndex, block: int, position: np.ndarray, yaw: float) -> None:
    """Puts a block at rest at a position (3,) m, turned by yaw rad."""
    address, dof = index.block_qpos[block], index.block_dofs[block]
    data.qpos[address:address + 3] = position
    data.qpos[address + 3:address + 7] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
    data.qvel[dof:dof + 6] = 0.0
