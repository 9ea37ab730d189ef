"""Close box: lift the lid of a box, folded far back, from beneath and push it shut."""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import SMOOTH, box, fixed, hinged, mark, worldbody

HALF, LENGTH, HEIGHT, WALL, THICK = 0.065, 0.13, 0.07, 0.004, 0.004      # m
LARGEST, ENOUGH = 2.95, 2.6                                              # rad
PHRASES = Phrases("close_box", {"shut": (
    "close box", "close the lid on the box", "shut the box", "fold the lid over and close the box")}, {
    "lid": Thing(("lid",), "lid", "lid_edge", symmetry=1, turned="box"), "box": Thing(("box",), "box", symmetry=1)})


def build(root: ET.Element) -> None:
    """Adds an open box; its lid turns about the upper left edge (y = 0 of the body) and shuts towards -y."""
    base = fixed(worldbody(root), "box")
    for sign in (1, -1):
        box(base, (WALL, LENGTH / 2, HEIGHT / 2), (sign * (HALF - WALL), -LENGTH / 2, HEIGHT / 2))
    for y in (-WALL, -LENGTH + WALL):
        box(base, (HALF, WALL, HEIGHT / 2), (0.0, y, HEIGHT / 2), (0.9, 0.9, 0.9))
    box(base, (HALF, LENGTH / 2, 0.003), (0.0, -LENGTH / 2, 0.003), (0.6, 0.6, 0.6))
    lid = hinged(base, "lid", (0.0, 0.0, HEIGHT + THICK + 0.001), (-1.0, 0.0, 0.0), LARGEST)
    box(lid, (HALF, LENGTH / 2, THICK), (0.0, -LENGTH / 2, 0.0), (0.8, 0.8, 0.8), **SMOOTH)
    mark(lid, "lid_edge", (0.0, -LENGTH, 0.0))
    mark(lid, "lid_hinge", (0.0, 0.0, 0.0))
