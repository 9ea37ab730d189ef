"""Lift the ball and place: press a ball too wide for one hand between both hands, lift it and set it down in a ring."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import ball, box, fixed, loose, worldbody

RADIUS, RING, WALL = 0.075, 0.058, 0.012           # m
PHRASES = Phrases("lift_ball_and_place", {"placed": (
    "lift the ball and place it in the ring", "lift the ball with both arms and put it in the ring",
    "pick up the ball together and place it on the ring", "carry the ball to the ring")}, {
    "ball": Thing(("ball",), "ball"), "ring": Thing(("ring",), "ring")})


def build(root: ET.Element) -> None:
    """Adds a ring of twelve pieces and a light ball."""
    ring = fixed(worldbody(root), "ring")
    for angle in np.arange(12) * np.pi / 6:
        box(ring, (0.006, 0.016, WALL / 2), (RING * np.cos(angle), RING * np.sin(angle), WALL / 2),
            euler=f"0 0 {angle:.6f}")
    ball(loose(root, "ball", (0.3, 0.0, RADIUS)), RADIUS, mass=0.06, name="ball", friction="1.6 0.05 0.002", condim="4",
         solref="0.02 1", solimp="0.9 0.95 0.002", priority="1")
