"""Frame off hanger: lift a picture frame off its hook and release it on the table."""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import GRIPPY, SMOOTH, box, fixed, loose, mark, worldbody

PLATE, TOP = (0.006, 0.055, 0.060), 0.018        # m: half edges; from the upper edge down to where a hand grasps it
HOOK_Z, BACK, BAR_Z = 0.17, 0.033, 0.020         # m: height of the hook; post to plate; bar above the plate's middle
PHRASES = Phrases("frame_off_hanger", {"off": (
    "take frame off hanger", "take the frame off the hanger", "remove the frame from the hanger", "unhang the frame",
    "take down the picture frame and put it on the table", "lift the frame off its hanger and put it down")}, {
    "frame": Thing(("picture frame", "frame"), "frame", symmetry=1), "hanger": Thing(("hanger",), "hanger", symmetry=1)})


def build(root: ET.Element) -> None:
    """Adds a post with a hook that points to the robot (-x of the body), and a frame that hangs on it by a bar at its back."""
    hanger = fixed(worldbody(root), "hanger")
    box(hanger, (0.012, 0.025, (HOOK_Z + 0.003) / 2), (0.012, 0.0, (HOOK_Z + 0.003) / 2))
    box(hanger, (0.06, 0.06, 0.005), (0.05, 0.0, 0.005), (0.8, 0.8, 0.8))
    box(hanger, (0.011, 0.006, 0.003), (-0.011, 0.0, HOOK_Z), (0.5, 0.5, 0.5), **SMOOTH)
    box(hanger, (0.002, 0.006, 0.007), (-0.020, 0.0, HOOK_Z + 0.010), (0.5, 0.5, 0.5), **SMOOTH)
    frame = loose(root, "frame")
    box(frame, PLATE, mass=0.06, **GRIPPY)
    box(frame, (0.001, 0.040, 0.042), (-PLATE[0], 0.0, -0.004), (0.95, 0.93, 0.85), mass=0.002, **GRIPPY)
    box(frame, (0.003, 0.022, 0.003), (BACK - 0.009, 0.0, BAR_Z), (0.6, 0.6, 0.6), mass=0.004, **SMOOTH)
    for sign in (1, -1):
        box(frame, (0.0095, 0.003, 0.003), (PLATE[0] + 0.0095, sign * 0.019, BAR_Z), (0.6, 0.6, 0.6), mass=0.003)
    box(frame, (0.013, 0.01, 0.004), (PLATE[0] + 0.013, 0.0, -0.045), (0.6, 0.6, 0.6), mass=0.003, **SMOOTH)
    mark(frame, "frame_top", (0.0, 0.0, PLATE[2] - TOP))
    mark(frame, "frame_bar", (BACK - 0.009, 0.0, BAR_Z))
