"""MJCF primitives, so that a task's objects take only a few lines. Lengths are in m, angles in rad."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Optional, Sequence, Tuple

#: Contact parameters that fingers grip well, those of the blocks in the blocks task.
GRIPPY = {"friction": "1.2 0.02 0.0002", "solref": "0.006 1", "solimp": "0.97 0.995 0.0005"}
SMOOTH = {"friction": "0.3 0.005 0.0001"}
GHOST = {"contype": "0", "conaffinity": "0"}
WHITE = (1.0, 1.0, 1.0)


def numbers(values: Sequence[float]) -> str:
    """Formats numbers as MJCF text."""
    return " ".join(f"{float(value):.6g}" for value in values)


def worldbody(root: ET.Element) -> ET.Element:
    """Returns the element that holds what stands on the table."""
    found = root.find("worldbody")
    assert found is not None, "a scene has a worldbody"
    return found


def fixed(parent: ET.Element, name: str, at: Sequence[float] = (0.5, 0.0, 0.0)) -> ET.Element:
    """Adds a body that does not move until the next scene is drawn."""
    return ET.SubElement(parent, "body", name=name, pos=numbers(at))


def loose(root: ET.Element, name: str, at: Sequence[float] = (0.5, 0.0, 0.1)) -> ET.Element:
    """Adds a body that moves freely; its joint has the same name."""
    body = ET.SubElement(worldbody(root), "body", name=name, pos=numbers(at))
    ET.SubElement(body, "freejoint", name=name)
    return body


def hinged(parent: ET.Element, name: str, at: Sequence[float], axis: Sequence[float], largest: float,
           friction: float = 0.12, damping: float = 0.05) -> ET.Element:
    """Adds a body on a hinge that stays where it is left.

    Its weight is compensated (`gravcomp`) and dry friction holds it: a stiff hinge, like that of a laptop.

    Args:
        parent: Element of the body that carries it.
        name: Name of the body and of its joint.
        at: Position (3,) of the hinge, m, frame of the parent.
        axis: Axis (3,) of the hinge, frame of the parent.
        largest: Angle when open, rad; 0 is closed.
        friction: Dry friction, N m.
        damping: Damping, N m s/rad.

    Returns:
        The element of the body.
    """
    body = ET.SubElement(parent, "body", name=name, pos=numbers(at), gravcomp="1")
    ET.SubElement(body, "joint", name=name, type="hinge", axis=numbers(axis), range=f"0 {largest:g}",
                  frictionloss=f"{friction:g}", damping=f"{damping:g}", armature="0.002")
    return body


def box(body: ET.Element, half: Sequence[float], at: Sequence[float] = (0.0, 0.0, 0.0), rgb: Sequence[float] = WHITE,
        mass: float = 0.02, name: Optional[str] = None, **extra: str) -> ET.Element:
    """Adds a box with half edges (3,)."""
    return _geom(body, "box", half, at, rgb, mass, name, extra)


def rod(body: ET.Element, radius: float, half: float, at: Sequence[float] = (0.0, 0.0, 0.0), rgb: Sequence[float] = WHITE,
        mass: float = 0.02, name: Optional[str] = None, **extra: str) -> ET.Element:
    """Adds an upright cylinder with half length `half`."""
    return _geom(body, "cylinder", (radius, half), at, rgb, mass, name, extra)


def ball(body: ET.Element, radius: float, at: Sequence[float] = (0.0, 0.0, 0.0), rgb: Sequence[float] = WHITE,
         mass: float = 0.02, name: Optional[str] = None, **extra: str) -> ET.Element:
    """Adds a sphere."""
    return _geom(body, "sphere", (radius,), at, rgb, mass, name, extra)


def mark(body: ET.Element, name: str, at: Sequence[float]) -> None:
    """Adds a point that an expert or a judge reads; it is not drawn."""
    ET.SubElement(body, "site", name=name, pos=numbers(at), size="0.002", rgba="0 0 0 0", group="4")


def well(body: ET.Element, inner: float, height: float, wall: float = 0.005, at: Tuple[float, float] = (0.0, 0.0),
         rgb: Sequence[float] = WHITE, floor: float = 0.004) -> None:
    """Adds a square container that is open at the top: four walls around `inner` (half edge) and a floor."""
    x, y = at
    side = inner + wall / 2
    for sign in (1, -1):
        box(body, (wall / 2, inner + wall, height / 2), (x + sign * side, y, height / 2), rgb)
        box(body, (inner, wall / 2, height / 2), (x, y + sign * side, height / 2), rgb)
    box(body, (inner, inner, floor / 2), (x, y, floor / 2), rgb)


def _geom(body: ET.Element, kind: str, size: Sequence[float], at: Sequence[float], rgb: Sequence[float], mass: float,
          name: Optional[str], extra: dict) -> ET.Element:
    values = {"type": kind, "size": numbers(size), "pos": numbers(at), "rgba": numbers((*rgb, 1.0)), "mass": f"{mass:g}", **extra}
    if name is not None:
        values["name"] = name
    return ET.SubElement(body, "geom", values)
