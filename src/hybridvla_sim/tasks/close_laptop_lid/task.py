"""Close laptop lid: push the screen of a laptop, whose back faces the robot, shut."""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import SMOOTH, box, fixed, hinged, mark, worldbody

LENGTH, WIDTH, THICK, BASE = 0.15, 0.11, 0.005, 0.010     # m; half width, half thickness, half height of the base
LARGEST, ENOUGH = 2.1, 1.79                               # rad
PHRASES = Phrases("close_laptop_lid", {"shut": (
    "close laptop lid", "close the laptop", "shut the laptop lid", "close the laptop by pushing down its screen")}, {
    "lid": Thing(("laptop lid", "lid", "screen"), "lid", "lid_edge", symmetry=1, turned="laptop"),
    "laptop": Thing(("laptop",), "laptop", symmetry=1)})


def build(root: ET.Element) -> None:
    """Adds a laptop: a base, and a screen on a hinge along y at the base's near side."""
    laptop = fixed(worldbody(root), "laptop")
    box(laptop, (LENGTH / 2, WIDTH, BASE), (LENGTH / 2, 0.0, BASE))
    box(laptop, (LENGTH / 3, WIDTH - 0.015, 0.001), (LENGTH / 2, 0.0, 2 * BASE), (0.25, 0.25, 0.27), contype="0", conaffinity="0")
    lid = hinged(laptop, "lid", (0.0, 0.0, 2 * BASE + THICK), (0.0, -1.0, 0.0), LARGEST)
    box(lid, (LENGTH / 2, WIDTH, THICK), (LENGTH / 2, 0.0, 0.0), (0.9, 0.9, 0.9), **SMOOTH)
    mark(lid, "lid_edge", (LENGTH, 0.0, 0.0))
    mark(lid, "lid_hinge", (0.0, 0.0, 0.0))
