"""Two-arm pick and place: each hand grasps the block on its side and puts it on the plate on its side."""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.piper.scene import ARMS, BASE_Y
from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import GHOST, GRIPPY, box, fixed, loose, rod, worldbody

#: Half edges of a block and radius of a plate, m. A block is too long for the hand to grasp it lengthwise.
BLOCK, PLATE = (0.037, 0.016, 0.020), 0.045
PHRASES = Phrases("two_arm_pick_and_place", {"placed": (
    "put both blocks on their plates", "pick up the two blocks and place them on the plates",
    "with both arms put the left block and the right block on the plates",
    "place the left block and the right block on the plates")}, {
    "right_block": Thing(("right block", "two blocks", "both blocks"), "block_right", symmetry=2),
    "left_block": Thing(("left block", "two blocks", "both blocks"), "block_left", symmetry=2),
    "right_plate": Thing(("plates", "plate"), "plate_right"), "left_plate": Thing(("plates", "plate"), "plate_left")})


def build(root: ET.Element) -> None:
    """Adds a block and a plate for each hand."""
    for arm in ARMS:
        plate = fixed(worldbody(root), f"plate_{arm}", (0.4, BASE_Y[arm], 0.0))
        rod(plate, PLATE, 0.001, (0.0, 0.0, 0.001), **GHOST)
        block = loose(root, f"block_{arm}", (0.3, BASE_Y[arm], 0.1))
        box(block, BLOCK, mass=0.05, **GRIPPY)
        box(block, (0.006, 0.012, 0.001), (0.0, 0.0, BLOCK[2]), (0.5, 0.5, 0.5), mass=0.001, **GHOST)
