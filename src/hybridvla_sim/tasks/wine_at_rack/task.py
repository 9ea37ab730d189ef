"""Wine at rack: put a bottle into the left, middle or right place of a rack. Left is the robot's left, +y of its base."""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import GRIPPY, box, fixed, loose, mark, rod, worldbody

PLACES = ("left", "middle", "right")
SPACING, INNER, WALL_HEIGHT = 0.085, 0.034, 0.045
RADIUS, NECK, GRIP_Z = 0.022, 0.012, 0.142
PHRASES = Phrases("wine_at_rack", {
    place: (f"put the wine bottle in the {place} place of the rack", f"stack the wine bottle to the {place} of the rack",
            f"slide the bottle onto the {place} part of the rack", f"place the wine in the {place} slot of the wine rack",
            f"the bottle belongs in the {place} of the rack") for place in PLACES}, {
    "bottle": Thing(("wine bottle", "bottle", "wine"), "bottle", "bottle_grip"),
    "rack": Thing(("wine rack", "rack"), "rack", symmetry=1),
    **{place: Thing((place,), f"place_{place}") for place in PLACES}})


def build(root: ET.Element) -> None:
    """Adds a rack with three open places, and a bottle that is held by its neck."""
    rack = fixed(worldbody(root), "rack")
    for place, y in zip(PLACES, (SPACING, 0.0, -SPACING)):
        side = fixed(rack, f"place_{place}", (0.0, y, 0.0))
        for sign in (1, -1):
            box(side, (0.003, INNER + 0.004, WALL_HEIGHT / 2), (sign * (INNER + 0.002), 0.0, WALL_HEIGHT / 2))
            box(side, (INNER, 0.003, WALL_HEIGHT / 2), (0.0, sign * (INNER + 0.004), WALL_HEIGHT / 2), (0.8, 0.8, 0.8))
        box(side, (INNER, INNER, 0.002), (0.0, 0.0, 0.002), (0.6, 0.6, 0.6))
    bottle = loose(root, "bottle")
    rod(bottle, RADIUS, 0.055, (0.0, 0.0, 0.055), mass=0.10, **GRIPPY)
    # Flat fingers touch a round neck along a line: without torsional friction, the bottle swings out of them.
    grippy = {**GRIPPY, "friction": "1.6 0.05 0.0002", "condim": "4"}
    rod(bottle, NECK, 0.035, (0.0, 0.0, 0.135), (0.7, 0.7, 0.7), mass=0.02, **grippy)
    mark(bottle, "bottle_grip", (0.0, 0.0, GRIP_Z))
