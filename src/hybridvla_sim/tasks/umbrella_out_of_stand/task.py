"""Umbrella out of stand: pull the umbrella out by its flat handle."""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import GRIPPY, SMOOTH, box, fixed, loose, mark, rod, well, worldbody

INNER, HEIGHT, FLOOR = 0.024, 0.11, 0.004                   # m
HANDLE, HANDLE_Z = (0.042, 0.009, 0.018), 0.222            # m; the handle is wider than the hand opens
PHRASES = Phrases("umbrella_out_of_stand", {"out": (
    "take umbrella out of umbrella stand", "take the umbrella out of the stand", "remove the umbrella from the stand",
    "grasp the umbrella by its handle and lift it out", "pull the umbrella out of the umbrella stand",
    "get the umbrella")}, {
    "stand": Thing(("umbrella stand", "stand"), "stand"),
    "umbrella": Thing(("umbrella",), "umbrella", "umbrella_grip", symmetry=2)})


def build(root: ET.Element) -> None:
    """Adds a stand that is open at the top, with an umbrella in it."""
    well(fixed(worldbody(root), "stand"), INNER, HEIGHT, floor=FLOOR)
    umbrella = loose(root, "umbrella")
    rod(umbrella, 0.006, 0.10, (0.0, 0.0, 0.10), (0.6, 0.6, 0.6), mass=0.02, **SMOOTH)
    rod(umbrella, 0.016, 0.06, (0.0, 0.0, 0.085), mass=0.04, **SMOOTH)
    box(umbrella, HANDLE, (0.0, 0.0, HANDLE_Z), (0.8, 0.8, 0.8), mass=0.02, **GRIPPY)
    mark(umbrella, "umbrella_grip", (0.0, 0.0, HANDLE_Z))
