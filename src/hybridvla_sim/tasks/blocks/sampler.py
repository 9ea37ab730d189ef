"""World states for learning: every phase of the task, states near it, and what goes wrong in it."""
from __future__ import annotations

from typing import Optional

import numpy as np

from hybridvla_sim.tasks.blocks.expert import GRASP, HOVER, PLACE, WorldState, fold
from hybridvla_sim.tasks.blocks.task import BLOCK_EDGE, sample_scene

REST = BLOCK_EDGE / 2
HELD_OPENING = 0.5625  # block edge divided by the hand's width of 0.08 m
KINDS = ("start", "hovering", "low", "grasped", "lifted", "at_pad", "released", "closed_empty", "anywhere")
#: How often each kind is drawn.
SHARES = (0.14, 0.20, 0.08, 0.12, 0.14, 0.14, 0.06, 0.06, 0.06)
START = np.array([0.306891, 0.0, 0.486882])


def sample_state(rng: np.random.Generator) -> Optional[WorldState]:
    """Draws one world state; returns None if the draw is impossible (blocks overlap): then draw again."""
    scene = sample_scene(rng)
    position = np.column_stack([scene.block_xy, np.full(4, REST)])
    yaw, pads = scene.block_yaw.copy(), scene.pad_xy
    _some_on_pads(rng, position, yaw, pads)
    block, pad = int(rng.integers(4)), int(rng.integers(4))
    kind = KINDS[int(rng.choice(len(KINDS), p=SHARES))]
    tool, turn, opening = _tool(rng, kind, position, yaw, pads, block, pad)
    if kind in ("grasped", "lifted", "at_pad"):
        tool[2] = max(tool[2], 0.017)
        position[block] = tool + [*rng.normal(0, 0.003, 2), rng.normal(0, 0.003)]
        position[block, 2] = max(position[block, 2], REST)
        yaw[block] = turn + rng.normal(0, 0.02)
    tool[0], tool[1] = np.clip(tool[0], 0.3, 0.7), np.clip(tool[1], -0.27, 0.27)
    distance = np.linalg.norm(position[:, None] - position[None], axis=2) + np.eye(4)
    if distance.min() < 0.05:
        return None
    return WorldState(tool, float(turn), float(np.clip(opening, 0.0, 1.0)), position, yaw, pads)


def _some_on_pads(rng: np.random.Generator, position: np.ndarray, yaw: np.ndarray, pads: np.ndarray) -> None:
    """Puts one or two blocks on pads in a quarter of the scenes."""
    if rng.random() < 0.25:
        count = 1 if rng.random() < 0.7 else 2
        for block, pad in zip(rng.permutation(4)[:count], rng.permutation(4)[:count]):
            position[block] = [*(pads[pad] + rng.normal(0, 0.008, 2)), REST]
            yaw[block] = rng.normal(0, 0.15)


def _tool(rng, kind, position, yaw, pads, block, pad):
    """Draws the tool position (3,) m, yaw rad and opening for one kind of state."""
    def near(spot, spread):
        return spot[:2] + rng.normal(0, spread, 2)

    hover = HOVER + rng.normal(0, 0.006)
    if kind == "start":
        return START + rng.normal(0, 0.004, 3), rng.normal(0, 0.02), 1.0
    if kind == "hovering":
        spot = near(position[block], rng.choice([0.003, 0.008, 0.02]))
        return np.append(spot, hover), fold(yaw[block]) + rng.normal(0, rng.choice([0.03, 0.12, 0.3])), 1.0
    if kind == "low":
        spot = near(position[block], rng.choice([0.003, 0.012, 0.03]))
        return np.append(spot, rng.uniform(0.018, 0.12)), fold(yaw[block]) + rng.normal(0, 0.08), 1.0
    if kind in ("grasped", "lifted", "at_pad"):
        return _holding(rng, kind, position, yaw, pads, block, pad, near)
    if kind == "released":
        position[block] = [*near(pads[pad], 0.008), REST]
        yaw[block] = rng.normal(0, 0.1)
        height = rng.choice([PLACE + abs(rng.normal(0, 0.004)), rng.uniform(0.02, HOVER + 0.01)])
        return np.append(near(position[block], 0.003), height), yaw[block] + rng.normal(0, 0.02), 1.0
    if kind == "closed_empty":
        opening = abs(rng.normal(0, 0.02)) if rng.random() < 0.7 else rng.uniform(0.0, 0.8)
        spot = near(position[block], rng.choice([0.02, 0.04]))
        return np.append(spot, rng.uniform(0.018, 0.17)), rng.normal(0, 0.3), opening
    if rng.random() < 0.7:
        return _travelling(rng), rng.normal(0, 0.3), 1.0
    tool = np.array([rng.uniform(0.3, 0.68), rng.uniform(-0.26, 0.26), rng.uniform(0.2, 0.49)])
    return tool, rng.normal(0, 0.3), 1.0


def _holding(rng, kind, position, yaw, pads, block, pad, near):
    opening = HELD_OPENING + rng.normal(0, 0.01)
    if kind == "grasped":
        height = rng.choice([GRASP + abs(rng.normal(0, 0.004)), rng.uniform(GRASP, HOVER)], p=[0.75, 0.25])
        return np.append(near(position[block], 0.004), height), fold(yaw[block]) + rng.normal(0, 0.03), opening
    if kind == "lifted":
        turn = fold(yaw[block]) + rng.normal(0, 0.06)
        if rng.random() < 0.55:
            return np.append(near(position[block], 0.01), HOVER + rng.normal(0, 0.008)), turn, opening
        return _travelling(rng), turn, opening
    height = HOVER + rng.normal(0, 0.008) if rng.random() < 0.8 else rng.uniform(0.03, 0.14)
    return np.append(near(pads[pad], rng.choice([0.004, 0.012, 0.03])), height), rng.normal(0, 0.05), opening


def _travelling(rng) -> np.ndarray:
    return np.array([rng.uniform(0.32, 0.68), rng.uniform(-0.26, 0.26), rng.uniform(0.13, 0.2)])
