"""Toilet seat down: the hand straddles the seat's edge, one finger between seat and tank, and brings the seat down."""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import SMOOTH, box, fixed, hinged, mark, worldbody

LENGTH, WIDTH, THICK, BOWL, TANK_X = 0.155, 0.06, 0.005, 0.09, 0.082     # m
LARGEST, ENOUGH = 1.95, 1.7                                              # rad
PHRASES = Phrases("toilet_seat_down", {"down": (
    "toilet seat down", "put the toilet seat down", "leave the toilet seat down", "close the toilet seat",
    "lower the toilet seat", "shut the toilet seat", "bring the seat of the toilet down", "flip the toilet seat down",
    "push the toilet seat down")}, {
    "seat": Thing(("toilet seat", "seat"), "seat", "seat_edge", symmetry=1, turned="toilet"),
    "toilet": Thing(("toilet",), "toilet", symmetry=1)})


def build(root: ET.Element) -> None:
    """Adds a toilet whose bowl faces the robot (-x of the body), with a tank close behind the open seat."""
    toilet = fixed(worldbody(root), "toilet")
    for sign in (1, -1):
        box(toilet, (LENGTH / 2, 0.012, BOWL / 2), (-LENGTH / 2, sign * (WIDTH - 0.012), BOWL / 2))
    box(toilet, (0.012, WIDTH, BOWL / 2), (-LENGTH + 0.012, 0.0, BOWL / 2), (0.95, 0.95, 0.95))
    box(toilet, (0.04, WIDTH, BOWL / 2), (0.04, 0.0, BOWL / 2), (0.95, 0.95, 0.95))
    box(toilet, (0.025, WIDTH + 0.03, 0.11), (TANK_X + 0.025, 0.0, 0.11), (0.9, 0.9, 0.9))
    seat = hinged(toilet, "seat", (0.0, 0.0, BOWL + THICK + 0.002), (0.0, 1.0, 0.0), LARGEST)
    box(seat, (LENGTH / 2, WIDTH, THICK), (-LENGTH / 2, 0.0, 0.0), (0.8, 0.8, 0.8), **SMOOTH)
    mark(seat, "seat_edge", (-LENGTH, 0.0, 0.0))
    mark(seat, "seat_hinge", (0.0, 0.0, 0.0))
