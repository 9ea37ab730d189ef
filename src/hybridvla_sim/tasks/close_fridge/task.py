"""Close fridge: push the door of a fridge shut."""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import SMOOTH, box, fixed, hinged, mark, worldbody

HALF, HEIGHT, DEPTH, THICK, PUSH_Z = 0.08, 0.20, 0.13, 0.007, 0.175      # m
LARGEST, ENOUGH = 1.6, 0.5236                                            # rad
PHRASES = Phrases("close_fridge", {"shut": (
    "close fridge", "close the fridge door", "shut the fridge", "push the fridge door shut", "close the door of the fridge")}, {
    "door": Thing(("door",), "door", "door_edge"), "fridge": Thing(("fridge",), "fridge", symmetry=1)})


def build(root: ET.Element) -> None:
    """Adds a fridge whose front faces the robot (-x of the body); its door hinge is on the left (y = +HALF)."""
    fridge = fixed(worldbody(root), "fridge")
    for sign in (1, -1):
        box(fridge, (DEPTH / 2, 0.005, HEIGHT / 2), (DEPTH / 2, sign * (HALF - 0.005), HEIGHT / 2))
    box(fridge, (0.005, HALF, HEIGHT / 2), (DEPTH - 0.005, 0.0, HEIGHT / 2), (0.8, 0.8, 0.8))
    for z in (0.005, HEIGHT / 2, HEIGHT - 0.005):
        box(fridge, (DEPTH / 2, HALF, 0.004), (DEPTH / 2, 0.0, z), (0.9, 0.9, 0.9))
    door = hinged(fridge, "door", (-THICK - 0.002, HALF, 0.0), (0.0, 0.0, -1.0), LARGEST)
    box(door, (THICK, HALF, HEIGHT / 2), (0.0, -HALF, HEIGHT / 2 + 0.001), (0.95, 0.95, 0.95), **SMOOTH)
    mark(door, "door_edge", (0.0, -2 * HALF, PUSH_Z))
    mark(door, "door_hinge", (0.0, 0.0, PUSH_Z))
