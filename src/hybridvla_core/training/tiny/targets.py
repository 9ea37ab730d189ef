"""Targets of the auxiliary supervision: what each patch shows, where each named object is."""
from __future__ import annotations

from typing import Dict

import numpy as np
import torch

#: Positions are regressed as (p - CENTRE) / SCALE: the middle of the table area and half its extent, m.
CENTRE = np.array([0.5, 0.0, 0.05])
SCALE = 0.15
OBJECTS = 8  # classes 1-4 blocks, 5-8 pads


def coverage(seg: np.ndarray, grid: int) -> np.ndarray:
    """Share of each patch that each object covers: seg (N, h, w) class map -> (N, OBJECTS, grid * grid) in [0, 1]."""
    count, height, width = seg.shape
    cells = seg.reshape(count, grid, height // grid, grid, width // grid).transpose(0, 1, 3, 2, 4)
    cells = cells.reshape(count, grid * grid, -1)
    shares: np.ndarray = np.stack([(cells == index + 1).mean(-1) for index in range(OBJECTS)], axis=1).astype(np.float32)
    return shares


def object_positions(block_pos: np.ndarray, pad_pos: np.ndarray) -> np.ndarray:
    """(N, OBJECTS, 3) normalised positions of blocks and pads (pads lie on the table, z = 0)."""
    pads = np.concatenate([pad_pos, np.zeros_like(pad_pos[..., :1])], axis=-1)
    places: np.ndarray = ((np.concatenate([block_pos, pads], axis=1) - CENTRE) / SCALE).astype(np.float32)
    return places


def block_turn(block_yaw: np.ndarray) -> np.ndarray:
    """A cube looks the same every quarter turn: yaw (N, 4) rad -> (N, 4, 2) cosine and sine of four times the angle."""
    turns: np.ndarray = np.stack([np.cos(4 * block_yaw), np.sin(4 * block_yaw)], axis=-1).astype(np.float32)
    return turns


def patch_targets(samples: Dict[str, np.ndarray], grid: int) -> Dict[str, torch.Tensor]:
    """Per patch: class (N, P) with 0 = none, the object's normalised position (N, P, 3) and turn (N, P, 2)."""
    cover = coverage(samples["seg"], grid)
    best = cover.argmax(1)
    shown = np.take_along_axis(cover, best[:, None], axis=1)[:, 0] >= 0.12
    positions = object_positions(samples["block_pos"], samples["pad_pos"])
    turn = block_turn(samples["block_yaw"])
    turn = np.concatenate([turn, np.zeros_like(turn)], axis=1)
    rows = np.arange(len(best))[:, None]
    return {"class": torch.from_numpy(np.where(shown, best + 1, 0)), "position": torch.from_numpy(positions[rows, best]),
            "turn": torch.from_numpy(turn[rows, best])}


def named_objects(samples: Dict[str, np.ndarray], labels: np.ndarray, grid: int) -> Dict[str, torch.Tensor]:
    """Finds, for each chosen label, where the named block and pad are.

    Args:
        samples: Of N pictures.
        labels: (N, L) instructions, block * 4 + pad.
        grid: Patches along one side of a picture.

    Returns:
        `attention` (N, L * 2, P): distribution over the patches showing the block, then the pad, of each label;
        `block` (N, L, 5): position and turn; `pad` (N, L, 2): position.
    """
    cover = coverage(samples["seg"], grid)
    cover = np.where(cover >= 0.05, cover, 0.0)
    cover = cover / np.maximum(cover.sum(-1, keepdims=True), 1e-6)
    rows = np.arange(len(labels))[:, None]
    block, pad = labels // 4, labels % 4
    pairs = np.stack([cover[rows, block], cover[rows, pad + 4]], axis=2)
    positions = object_positions(samples["block_pos"], samples["pad_pos"])
    turn = block_turn(samples["block_yaw"])
    return {"attention": torch.from_numpy(pairs.reshape(len(labels), -1, grid * grid).astype(np.float32)),
            "block": torch.from_numpy(np.concatenate([positions[rows, block], turn[rows, block]], axis=-1)),
            "pad": torch.from_numpy(positions[rows, pad + 4][..., :2])}
