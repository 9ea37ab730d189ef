"""The MuJoCo scene of a dual-arm rig: two Piper arms at a table, three cameras; a task furnishes the table.

The arms are built from their Denavit-Hartenberg table (Craig) with plain shapes; no mesh is needed. The table repeats the
numbers of `config/robots/agilex.yaml` on purpose: a test compares the two, and the filter's limits come from that file.
"""
from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Callable, Dict, List, Sequence, Tuple

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

ARMS = ("right", "left")
CAMERAS = ("front", "right", "left")
BASE_Y = {"right": -0.3, "left": 0.3}               # m, where the bases stand
A_M = (0.0, 0.0, 0.28503, -0.02198, 0.0, 0.0)
D_M = (0.123, 0.0, 0.0, 0.25075, 0.0, 0.0)
ALPHA = (0.0, -np.pi / 2, 0.0, np.pi / 2, -np.pi / 2, np.pi / 2)
THETA_OFFSET = tuple(np.radians((0.0, -172.22, -102.78, 0.0, 0.0, 0.0)))
FLANGE_M, TIP_M = 0.091, 0.135                      # joint 6 to flange, flange to gripper tip
#: Ranges of the servos; config/robots holds the limits that the filter enforces.
RANGES = ((-2.6179, 2.6179), (0.0, 3.14), (-2.967, 0.0), (-1.745, 1.745), (-1.22, 1.22), (-2.09439, 2.09439))
#: A hard stop, so that an object lifted from within does not spread the fingers. Two timesteps are MuJoCo's hardest setting.
FINGER_STOP = {"solreflimit": "0.005 1", "solimplimit": "0.99 0.999 0.0005"}
MAX_WIDTH = 0.07                                    # m
STIFFNESS = np.array([1500.0, 2000.0, 1500.0, 400.0, 400.0, 200.0])      # N m/rad
DAMPING = np.array([60.0, 80.0, 60.0, 12.0, 12.0, 6.0])                  # N m s/rad, of the servo
TIMESTEP = 0.0025
LINKS: Dict[int, Tuple[float, Sequence[Tuple[str, str]]]] = {
    # link: mass kg, shapes as (size, fromto) of capsules in the link's frame, inside the capsules of agilex.yaml
    1: (0.7, (("0.04", "0 0 -0.05 0 0 0"),)),
    2: (1.2, (("0.035", "0.03 0 0 0.285 0 0"),)),
    3: (0.5, (("0.03", "-0.02 0 0 0 0 0.01"),)),
    4: (0.7, (("0.03", "0 0 -0.22 0 0 -0.03"),)),
    5: (0.3, (("0.03", "0 0 0 0 0.01 0"),)),
    6: (0.3, (("0.028", "0 0 0.03 0 0 0.085"),)),
}


def build_model(furnish: Callable[[ET.Element], None], width: int = 640, height: int = 480) -> mujoco.MjModel:
    """Compiles the scene; images have at most (height, width) pixels. furnish: adds a task's objects to the top element."""
    root = ET.Element("mujoco", model="two_pipers")
    ET.SubElement(root, "compiler", angle="radian", autolimits="true")
    ET.SubElement(root, "option", timestep=f"{TIMESTEP}", integrator="implicitfast", cone="elliptic", impratio="5")
    visual = ET.SubElement(root, "visual")
    ET.SubElement(visual, "global", offwidth=str(width), offheight=str(height))
    ET.SubElement(visual, "headlight", ambient=".3 .3 .3", diffuse=".3 .3 .3", specular="0 0 0")
    # No antialiasing and few faces per round shape: this about halves the rendering time on a CPU.
    ET.SubElement(visual, "quality", shadowsize="0", offsamples="0", numslices="20", numstacks="10")
    world = ET.SubElement(root, "worldbody")
    ET.SubElement(world, "light", directional="true", dir="-0.2 0.1 -1", diffuse=".6 .6 .6", castshadow="false")
    ET.SubElement(world, "geom", name="table", type="box", size="0.5 0.7 0.02", pos="0.3 0 -0.02", rgba=".72 .72 .70 1",
                  contype="1", conaffinity="7", friction="0.8 0.02 0.0002")
    ET.SubElement(world, "camera", name="front", pos="1.0 0 0.75", xyaxes=_looking((1.0, 0.0, 0.75), (0.25, 0.0, 0.05)),
                  fovy="42")
    actuators = ET.SubElement(root, "actuator")
    for arm in ARMS:
        _add_arm(world, actuators, arm)
    furnish(root)
    return mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))


def _add_arm(world: ET.Element, actuators: ET.Element, arm: str) -> None:
    bits = {"contype": "2", "conaffinity": "5"} if arm == "right" else {"contype": "4", "conaffinity": "3"}
    parent = ET.SubElement(world, "body", name=f"{arm}_base", pos=f"0 {BASE_Y[arm]} 0")
    ET.SubElement(parent, "geom", type="cylinder", size="0.05 0.05", pos="0 0 0.05", rgba=".25 .25 .25 1", contype="0",
                  conaffinity="0")
    for index in range(6):
        turn = Rotation.from_euler("x", ALPHA[index])
        position = np.array([A_M[index], 0.0, 0.0]) + turn.apply([0.0, 0.0, D_M[index]])
        x, y, z, w = (turn * Rotation.from_euler("z", THETA_OFFSET[index])).as_quat()
        body = ET.SubElement(parent, "body", name=f"{arm}_link{index + 1}", pos=_numbers(position), gravcomp="1",
                             quat=_numbers((w, x, y, z)))
        ET.SubElement(body, "joint", name=f"{arm}_joint{index + 1}", type="hinge", axis="0 0 1", damping="1.0",
                      range=_numbers(RANGES[index]), armature="0.1" if index < 3 else "0.03")
        mass, shapes = LINKS[index + 1]
        for size, ends in shapes:
            ET.SubElement(body, "geom", type="capsule", size=size, fromto=ends, mass=f"{mass / len(shapes)}",
                          rgba=".92 .92 .93 1", **bits)
        ET.SubElement(actuators, "general", name=f"{arm}_joint{index + 1}", joint=f"{arm}_joint{index + 1}",
                      gainprm=f"{STIFFNESS[index]}", biastype="affine", forcerange="-80 80" if index < 3 else "-25 25",
                      biasprm=f"0 {-STIFFNESS[index]} {-DAMPING[index]}")
        parent = body
    _add_gripper(parent, actuators, arm, bits)


def _add_gripper(link: ET.Element, actuators: ET.Element, arm: str, bits: Dict[str, str]) -> None:
    """Add two fingers that open along the flange's y axis; when closed, their inner faces meet at the tool centre point."""
    ET.SubElement(link, "geom", type="box", size="0.02 0.045 0.03", pos=f"0 0 {FLANGE_M + 0.03}", mass="0.3",
                  rgba=".3 .3 .32 1", **bits)
    ET.SubElement(link, "camera", name=arm, pos="-0.07 0 0.06", xyaxes="0 -1 0 -1 0 0", fovy="75")
    for side, sign in (("a", 1), ("b", -1)):
        finger = ET.SubElement(link, "body", name=f"{arm}_finger_{side}", pos=f"0 0 {FLANGE_M + TIP_M}", gravcomp="1")
        ET.SubElement(finger, "joint", name=f"{arm}_finger_{side}", type="slide", axis=f"0 {sign} 0", damping="8",
                      range=f"0 {MAX_WIDTH / 2 + 0.002}", armature="0.02", **FINGER_STOP)
        ET.SubElement(finger, "geom", name=f"{arm}_finger_{side}", type="box", size="0.012 0.006 0.04",
                      pos=f"0 {sign * 0.006} -0.03", mass="0.03", rgba=".2 .2 .2 1", friction="2.0 0.05 0.001", solref="0.006 1",
                      solimp="0.95 0.99 0.0005", **bits)
        ET.SubElement(actuators, "general", name=f"{arm}_finger_{side}", joint=f"{arm}_finger_{side}", gainprm="1200",
                      biastype="affine", biasprm="0 -1200 -40", forcerange="-25 25")


def _looking(position: Sequence[float], target: Sequence[float]) -> str:
    back = np.subtract(position, target)
    right = np.cross([0.0, 0.0, 1.0], back)
    up = np.cross(back, right)
    return _numbers((*(right / np.linalg.norm(right)), *(up / np.linalg.norm(up))))


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{float(value):.12g}" for value in values)


class PiperIndex:
    """Addresses of one arm in a model."""

    def __init__(self, model: mujoco.MjModel, arm: str) -> None:
        self.base = model.body(f"{arm}_base").id
        self.last = model.body(f"{arm}_link6").id
        joints = [model.joint(f"{arm}_joint{i}").id for i in range(1, 7)]
        # Arrays, because NumPy would convert a list at each use.
        self.qpos, self.dofs = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        self.fingers = model.jnt_qposadr[[model.joint(f"{arm}_finger_{side}").id for side in "ab"]]
        self.servos = np.array([model.actuator(f"{arm}_joint{i}").id for i in range(1, 7)])
        self.finger_servos = np.array([model.actuator(f"{arm}_finger_{side}").id for side in "ab"])
        self.bodies = [model.body(f"{arm}_link{i}").id for i in range(1, 7)]
        self.geoms: List[int] = [geom for geom in range(model.ngeom)
                                 if model.body(model.geom_bodyid[geom]).name.startswith(f"{arm}_")]


def pose_of(data: mujoco.MjData, index: PiperIndex, beyond: float) -> Tuple[np.ndarray, np.ndarray]:
    """Computes the pose of a point along z of the last link. The bases are not rotated: their frames are shifted world frames.

    Args:
        data: MuJoCo data.
        index: Addresses of the arm in the data.
        beyond: Distance of the point along z, m.

    Returns:
        Position (3,) m and rotation (3, 3), both in the arm's base frame.
    """
    rotation = data.xmat[index.last].reshape(3, 3)
    return data.xpos[index.last] + beyond * rotation[:, 2] - data.xpos[index.base], rotation.copy()
