"""Sweep to dustpan: sweep five pieces of dirt into a pan with a broom.

The pan is a mat with three low walls; what is swept over its open side is in it.
"""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import GHOST, GRIPPY, box, fixed, loose, mark, worldbody

DIRT, PIECE = 5, 0.009
PAN_HALF, PAN_DEPTH, PAN_WALL = 0.075, 0.10, 0.02
HEAD, HANDLE, GRIP_Z = (0.052, 0.011, 0.014), (0.010, 0.012, 0.05), 0.085       # m
PHRASES = Phrases("sweep_to_dustpan", {"swept": (
    "sweep to dustpan", "sweep the dirt to the dustpan", "sweep the dirt up", "use the broom to brush the dirt into the dustpan",
    "clean up the dirt", "sweep the pieces into the dustpan with the broom", "brush the dirt into the dustpan")}, {
    "broom": Thing(("broom",), "broom", "broom_grip", symmetry=2),
    "dustpan": Thing(("dustpan",), "dustpan", "pan_middle", symmetry=1),
    "dirt": Thing(("dirt", "pieces"), "dirt_0", more=tuple(f"dirt_{number}" for number in range(1, DIRT)))})


def build(root: ET.Element) -> None:
    """Adds a broom that stands on its head, five pieces, and a pan; its open side is x = 0 of its body, the pan is at +x."""
    pan = fixed(worldbody(root), "dustpan")
    box(pan, (PAN_DEPTH / 2, PAN_HALF, 0.0005), (PAN_DEPTH / 2, 0.0, 0.0005), (0.7, 0.7, 0.7), **GHOST)
    for sign in (1, -1):
        box(pan, (PAN_DEPTH / 2, 0.003, PAN_WALL / 2), (PAN_DEPTH / 2, sign * (PAN_HALF + 0.003), PAN_WALL / 2))
    box(pan, (0.003, PAN_HALF, PAN_WALL / 2), (PAN_DEPTH, 0.0, PAN_WALL / 2))
    mark(pan, "pan_middle", (PAN_DEPTH / 2, 0.0, 0.0))
    broom = loose(root, "broom")
    box(broom, HEAD, (0.0, 0.0, HEAD[2]), mass=0.05)
    box(broom, HANDLE, (0.0, 0.0, 2 * HEAD[2] + HANDLE[2]), (0.7, 0.7, 0.7), mass=0.02, **GRIPPY)
    mark(broom, "broom_grip", (0.0, 0.0, GRIP_Z))
    for number in range(DIRT):
        piece = loose(root, f"dirt_{number}")
        box(piece, (PIECE, PIECE, PIECE), rgb=(0.55, 0.28, 0.08), mass=0.004, friction="0.9 0.02 0.0002")
