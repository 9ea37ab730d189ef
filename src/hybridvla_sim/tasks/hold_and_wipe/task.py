"""Hold and wipe: the left hand holds a smooth board by its handle; the right hand wipes three stains off it with a sponge.

Wiping follows an explicit rule: a stain is gone when the sponge, touching the board above it, has moved over the board by
`RUB_M`. A board that nobody holds moves along with the sponge, so nothing is rubbed.
"""
from __future__ import annotations

import xml.etree.ElementTree as ET

from hybridvla_sim.taskkit.phrases import Phrases, Thing
from hybridvla_sim.taskkit.shapes import GHOST, box, loose, mark, rod

RUB_M, REACH_M, TOUCH_M = 0.006, 0.022, 0.006
BOARD, HANDLE, HANDLE_AT = (0.075, 0.175, 0.005), (0.02, 0.006, 0.025), (0.0, 0.15, 0.030)     # m
SPONGE, STAINS_Y = (0.022, 0.016, 0.028), (-0.125, -0.098, -0.071)
PHRASES = Phrases("hold_and_wipe", {"wiped": (
    "hold the board and wipe it", "hold the board with the left arm and wipe the stains off with the sponge",
    "wipe the stains off the board while holding it", "clean the board with the sponge")}, {
    "board": Thing(("board",), "board", "handle", symmetry=1), "sponge": Thing(("sponge",), "sponge", symmetry=2),
    "stains": Thing(("stains",), "board", geoms=tuple(f"stain_{number}" for number in range(len(STAINS_Y))), small=True)})


def build(root: ET.Element) -> None:
    """Adds a smooth board with a handle and stains, and a sponge beside it."""
    slippery = {"friction": "0.15 0.005 0.0001", "priority": "1", "contype": "1", "conaffinity": "7"}
    board = loose(root, "board", (0.3, 0.0, 0.01))
    box(board, BOARD, mass=0.25, name="board", **slippery)
    box(board, HANDLE, HANDLE_AT, (0.7, 0.7, 0.7), mass=0.03, friction="1.5 0.02 0.0002", solref="0.006 1",
        solimp="0.95 0.99 0.0005")
    mark(board, "handle", (0.0, HANDLE_AT[1], HANDLE_AT[2] + 0.005))
    for number, y in enumerate(STAINS_Y):
        rod(board, 0.011, 0.0006, (0.0, y, BOARD[2] + 0.0006), (0.35, 0.22, 0.10), mass=0.0001,
            name=f"stain_{number}", **GHOST)
    sponge = loose(root, "sponge", (0.3, -0.25, 0.03))
    box(sponge, SPONGE, mass=0.03, name="sponge", friction="1.2 0.05 0.0002", condim="4", solref="0.02 1",
        priority="2")
