"""Water plants: carry a watering can to a pot and tilt it.

The water follows an explicit rule: five drops ride in the can and leave its spout one after the other while the can is tilted
by more than `POURS` (rad). From then on they fall and roll like any ball.
"""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import GHOST, GRIPPY, ball, box, fixed, loose, mark, well, worldbody

DROPS, RADIUS, POURS, EVERY_S = 5, 0.006, 0.55, 0.1
BODY, HANDLE, GRIP_Z, SPOUT = (0.028, 0.028, 0.03), (0.008, 0.028, 0.02), 0.085, (0.075, 0.0, 0.056)     # m
POT, POT_HEIGHT = 0.045, 0.07
PHRASES = Phrases("water_plants", {"watered": (
    "water plants", "water the plant", "pour some water on the plant", "take the watering can and pour water into the pot",
    "pour the water of the can into the plant pot", "give the plant some water")}, {
    "can": Thing(("watering can", "can"), "can", "can_grip", symmetry=1),
    "pot": Thing(("plants", "plant pot", "plant", "pot"), "pot", "pot_top")})


def build(root: ET.Element) -> None:
    """Adds a can with a handle across it and a spout (+x of the body), a pot, and the water."""
    pot = fixed(worldbody(root), "pot")
    well(pot, POT, POT_HEIGHT, floor=0.015)
    for x, y in ((0.03, 0.0), (-0.02, 0.025), (-0.02, -0.025)):
        box(pot, (0.006, 0.006, 0.03), (x, y, 0.05), (0.15, 0.55, 0.2), **GHOST)
    mark(pot, "pot_top", (0.0, 0.0, POT_HEIGHT))
    can = loose(root, "can")
    box(can, BODY, (0.0, 0.0, BODY[2]), mass=0.06, **GRIPPY)
    box(can, HANDLE, (0.0, 0.0, 2 * BODY[2] + HANDLE[2]), (0.6, 0.6, 0.6), mass=0.01, **GRIPPY)
    box(can, (0.024, 0.006, 0.006), (0.050, 0.0, 0.048), (0.8, 0.8, 0.8), mass=0.005)
    mark(can, "can_grip", (0.0, 0.0, GRIP_Z))
    mark(can, "can_inside", (0.0, 0.0, 0.03))
    mark(can, "spout", SPOUT)
    for number in range(DROPS):
        ball(loose(root, f"drop_{number}"), RADIUS, rgb=(0.30, 0.62, 0.95), mass=0.002, name=f"drop_{number}",
             friction="0.6 0.01 0.001")
