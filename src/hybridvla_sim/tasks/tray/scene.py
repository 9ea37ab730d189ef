"""The tray with two handles, the block in it, and the mark on the table."""
from __future__ import annotations

import xml.etree.ElementTree as ET

HANDLE_Y, BLOCK_HALF = 0.13, 0.015                  # m: distance of the handles from the tray's middle; half the block's edge
GOAL_RGB, TRAY_RGB, BLOCK_RGB = "0.1 0.62 0.2 0.6", "0.85 0.55 0.12 1", "0.12 0.25 0.85 1"


def furnish(root: ET.Element) -> None:
    """Adds the mark, the tray and the block; their poses are set at reset."""
    world = root.find("worldbody")
    assert world is not None, "a scene has a worldbody"
    ET.SubElement(world, "geom", name="goal", type="box", size="0.06 0.17 0.0005", pos="0.4 0 0.0005", rgba=GOAL_RGB,
                  contype="0", conaffinity="0")
    tray = ET.SubElement(world, "body", name="tray", pos="0.28 0 0.006")
    ET.SubElement(tray, "freejoint", name="tray")
    shape = {"type": "box", "rgba": TRAY_RGB, "contype": "1", "conaffinity": "7", "friction": "1.5 0.02 0.0002",
             "solref": "0.006 1", "solimp": "0.95 0.99 0.0005"}
    ET.SubElement(tray, "geom", name="tray", size="0.05 0.15 0.005", mass="0.15", **shape)
    for sign in (1, -1):
        ET.SubElement(tray, "geom", size="0.02 0.006 0.03", pos=f"0 {sign * HANDLE_Y} 0.035", mass="0.03", **shape)
        ET.SubElement(tray, "geom", size="0.003 0.15 0.008", pos=f"{sign * 0.047} 0 0.013", mass="0.01", **shape)
        ET.SubElement(tray, "geom", size="0.05 0.003 0.008", pos=f"0 {sign * 0.147} 0.013", mass="0.01", **shape)
    block = ET.SubElement(world, "body", name="block", pos="0.28 0 0.03")
    ET.SubElement(block, "freejoint", name="block")
    ET.SubElement(block, "geom", type="box", size=f"{BLOCK_HALF} {BLOCK_HALF} {BLOCK_HALF}", mass="0.03", rgba=BLOCK_RGB,
                  contype="1", conaffinity="7", friction="1.0 0.02 0.0002")
