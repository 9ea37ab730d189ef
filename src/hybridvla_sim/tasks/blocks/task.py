"""The task: put the {colour} block on the {colour} pad. Scenes, instructions, success."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Tuple

import numpy as np

from hybridvla_core.errors import HybridVLAError
from hybridvla_sim.taskkit.phrases import Phrases, Thing

COLOURS = ("red", "green", "blue", "yellow")
#: Block edge, pad radius, and largest distance of a placed block from the pad's centre, m.
BLOCK_EDGE = 0.045
PAD_RADIUS = 0.05
SUCCESS_RADIUS = 0.045
#: Where blocks and pads are drawn: x range, y range or slots (m, base frame); smallest distance between block centres.
BLOCK_X, BLOCK_Y, BLOCK_SPACING = (0.34, 0.52), (-0.22, 0.22), 0.105
PAD_X, PAD_SLOTS, PAD_JITTER = (0.61, 0.66), (-0.21, -0.07, 0.07, 0.21), 0.012
MAX_YAW = 0.6
#: The variation `colour`: the last pad has a colour that no demonstration has, and every sentence asks for it.
COLOUR, NEW_COLOUR = "colour", "purple"
_PATTERN = re.compile(r"put the (\w+) block on the (\w+) pad")


@dataclass(frozen=True)
class SceneState:
    """Where objects are at the start, indexed by colour.

    Attributes:
        block_xy: Positions (4, 2) of the blocks, m.
        block_yaw: Yaws (4,) of the blocks, rad.
        pad_xy: Positions (4, 2) of the pads, m.
    """

    block_xy: np.ndarray
    block_yaw: np.ndarray
    pad_xy: np.ndarray


def sample_scene(rng: np.random.Generator) -> SceneState:
    """Draws blocks anywhere in their area, turned within +-MAX_YAW, far enough apart for the fingers, and pads in a row."""
    while True:
        block_xy = np.stack([rng.uniform(*BLOCK_X, 4), rng.uniform(*BLOCK_Y, 4)], axis=1)
        distance = np.linalg.norm(block_xy[:, None] - block_xy[None], axis=2) + np.eye(4)
        if distance.min() > BLOCK_SPACING:
            break
    slots = np.array(PAD_SLOTS)[rng.permutation(4)]
    pad_xy = np.stack([rng.uniform(*PAD_X, 4), slots + rng.uniform(-PAD_JITTER, PAD_JITTER, 4)], axis=1)
    return SceneState(block_xy, rng.uniform(-MAX_YAW, MAX_YAW, 4), pad_xy)


def pad_colours(variation: str = "") -> Tuple[str, ...]:
    """Returns the colours of the four pads, by index."""
    return (*COLOURS[:3], NEW_COLOUR) if variation == COLOUR else COLOURS


def instruction(block: int, pad: int, variation: str = "") -> str:
    """Returns the sentence for a block and a pad, given by colour index."""
    return f"put the {COLOURS[block]} block on the {pad_colours(variation)[pad]} pad"


def instructions(variation: str = "") -> Tuple[str, ...]:
    """Returns all sixteen sentences, in the order block * 4 + pad; in the variation, the four that name the new pad."""
    return tuple(instruction(block, pad, variation) for block in range(4) for pad in wanted_pads(variation))


def wanted_pads(variation: str = "") -> Tuple[int, ...]:
    """Returns the indices of the pads that sentences ask for."""
    return (3,) if variation == COLOUR else (0, 1, 2, 3)


def phrases(variation: str = "") -> Phrases:
    """Returns the same sentences with the things that they name, for demonstrations."""
    things = {f"{colour} block": Thing((f"{colour} block",), geoms=(f"block_{colour}",), symmetry=4) for colour in COLOURS}
    things.update({f"{name} pad": Thing((f"{name} pad",), geoms=(f"pad_{colour}",))
                   for colour, name in zip(COLOURS, pad_colours(variation))})
    return Phrases("blocks", {text: (text,) for text in instructions(variation)}, things)


def parse_instruction(text: str, variation: str = "") -> Tuple[int, int]:
    """Returns the (block, pad) of a sentence; otherwise raises a HybridVLAError that says what the rig understands."""
    match, pads = _PATTERN.fullmatch(" ".join(text.lower().split()).rstrip(".")), pad_colours(variation)
    if not match or match.group(1) not in COLOURS or match.group(2) not in pads:
        raise HybridVLAError(f"the simulated rig cannot judge {text!r}; say \"put the COLOUR block on the COLOUR pad\" "
                             f"with {', '.join(pads)}")
    return COLOURS.index(match.group(1)), pads.index(match.group(2))
