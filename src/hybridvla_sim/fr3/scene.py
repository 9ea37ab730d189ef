"""The MuJoCo scene: an FR3 at a table, a front and a wrist camera; a task furnishes the table."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Callable, Sequence, Tuple

import mujoco
import numpy as np

ASSETS = Path(__file__).resolve().parents[1] / "assets"
TABLE_RGB = (0.72, 0.72, 0.70)
ROBOT_RGB, PAD_TIP_RGB = (0.92, 0.92, 0.93), (0.25, 0.25, 0.25)
IMAGE_SIZE = 256
#: The front camera stands opposite the robot and looks down at the table, m.
FRONT_POSITION, FRONT_TARGET, FRONT_FOVY_DEG = (1.12, 0.0, 1.22), (0.485, 0.0, 0.0), 25.0
WRIST_FOVY_DEG = 75.0
START_JOINTS = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])
#: Distance from the hand body to the tool centre point along the hand's z axis, m (fr3_hand_tcp).
TOOL_OFFSET = 0.1034
TIMESTEP = 0.0025


def build_model(furnish: Callable[[ET.Element], None]) -> mujoco.MjModel:
    """Compiles the scene. furnish: adds a task's objects to the MJCF's top element."""
    root = ET.parse(str(ASSETS / "fr3.xml")).getroot()
    root.find("compiler").set("meshdir", str(ASSETS / "meshes"))
    root.find("option").set("timestep", str(TIMESTEP))
    for geom in root.iter("geom"):
        if geom.get("class") == "collision":
            geom.set("group", "0")
            geom.set("rgba", rgba(ROBOT_RGB))
        elif geom.get("class", "").startswith("fingertip"):
            geom.set("group", "0")
            geom.set("rgba", rgba(PAD_TIP_RGB))
    world = root.find("worldbody")
    ET.SubElement(world, "geom", name="table", type="box", size="0.6 0.8 0.02", pos="0.45 0 -0.0205",
                  rgba=rgba(TABLE_RGB))
    ET.SubElement(world, "light", name="sun", directional="true", pos="0.5 0 2", dir="-0.2 0.1 -1",
                  diffuse=".7 .7 .7", ambient=".35 .35 .35", castshadow="false")
    furnish(root)
    _add_cameras(root, world)
    visual = ET.SubElement(root, "visual")
    ET.SubElement(visual, "global", offwidth=str(IMAGE_SIZE), offheight=str(IMAGE_SIZE))
    ET.SubElement(visual, "headlight", ambient=".25 .25 .25", diffuse=".2 .2 .2", specular="0 0 0")
    ET.SubElement(visual, "quality", shadowsize="0")
    return mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))


def _add_cameras(root: ET.Element, world: ET.Element) -> None:
    position, target = np.array(FRONT_POSITION), np.array(FRONT_TARGET)
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    axes = " ".join(f"{value:g}" for value in (*right, *up))
    ET.SubElement(world, "camera", name="front", pos=" ".join(f"{v:g}" for v in position), xyaxes=axes,
                  fovy=f"{FRONT_FOVY_DEG:g}")
    hand = next(body for body in root.iter("body") if body.get("name") == "hand")
    ET.SubElement(hand, "camera", name="wrist", pos="0.06 0 0.02", xyaxes="0 1 0 1 0 0", fovy=f"{WRIST_FOVY_DEG:g}")


def rgba(rgb: Sequence[float]) -> str:
    """Formats an opaque colour as MJCF text."""
    return " ".join(f"{float(value):g}" for value in (*rgb, 1.0))


class SceneIndex:
    """Addresses in a model that the rig reads and writes."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.hand = model.body("hand").id
        self.arm_qpos = np.array([model.jnt_qposadr[model.joint(f"fr3_joint{i}").id] for i in range(1, 8)])
        self.arm_dofs = np.array([model.jnt_dofadr[model.joint(f"fr3_joint{i}").id] for i in range(1, 8)])
        self.finger_qpos = [model.jnt_qposadr[model.joint(f"finger_joint{i}").id] for i in (1, 2)]
        self.table = model.geom("table").id
        self.front = model.camera("front").id


def tool_pose(model: mujoco.MjModel, data: mujoco.MjData, index: SceneIndex) -> Tuple[np.ndarray, np.ndarray]:
    """Returns the position (3,) m and rotation matrix (3, 3) of the tool centre point in the base frame."""
    rotation = data.xmat[index.hand].reshape(3, 3)
    return data.xpos[index.hand] + TOOL_OFFSET * rotation[:, 2], rotation
