"""Augmentation of images and of the robot state that keeps labels correct."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np
import torch
import torch.nn.functional as F

from hybridvla_core.configuration import in_range


@dataclass(frozen=True)
class StateNoiseConfig:
    """Standard deviations of the noise on the reported state; the pose that an action leads to stays.

    Attributes:
        position_m: Standard deviation of each coordinate, m.
        angle_rad: Standard deviation of each angle, rad; needs absolute rotations.
        gripper: Standard deviation of the opening.
    """

    position_m: float = 0.0
    angle_rad: float = 0.0
    gripper: float = 0.0

    def __post_init__(self) -> None:
        for name in ("position_m", "angle_rad", "gripper"):
            in_range(f"state_noise: {name}", getattr(self, name), 0.0, 1.0)

    @property
    def used(self) -> bool:
        """Whether there is any noise."""
        return max(self.position_m, self.angle_rad, self.gripper) > 0

    def sizes(self, arms: int) -> Tuple[float, ...]:
        """Returns the standard deviation of each number of the state of `arms` arms."""
        return (*(self.position_m,) * 3, *(self.angle_rad,) * 3, self.gripper) * arms


def disturb(state: np.ndarray, actions: np.ndarray, shifts: np.ndarray, moves_base: bool) -> Tuple[np.ndarray, np.ndarray]:
    """Adds an error to the reported state; if actions start from it, the first one still leads to the same place.

    Args:
        state: (..., A) physical units, 7 numbers per arm.
        actions: (..., K, A), with relative translations: the first to the state, each other to the one before.
        shifts: (..., A) error that is added to the state.
        moves_base: Whether the first action starts from the reported pose.

    Returns:
        Copies of state and actions.
    """
    actions = actions.copy()
    if moves_base:
        for first in range(0, state.shape[-1], 7):
            actions[..., 0, first:first + 3] -= shifts[..., first:first + 3]
    return state + shifts, actions


#: Neutral values of the numbers that augment one picture: side of the crop, its place in the remaining space (0 to 1), added
#: brightness, contrast, saturation, rotation of the hue, gain of each channel.
NEUTRAL = (1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0)


def draw_augmentation(kind: str, shape: Tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draws how pictures are changed.

    `released`: a crop of 0.9 of the area, brightness 0.2, contrast and saturation 0.8 to 1.2, hue 0.05, as in the released
    trainer's tf.image operations. `photometric`: contrast, brightness and gains; nothing moves.

    Args:
        kind: `released`, `photometric`; anything else changes nothing.
        shape: Shape of the array of pictures.
        rng: Random generator.

    Returns:
        (*shape, 10) float32, the numbers of each picture.
    """
    drawn = rng.random((*shape, len(NEUTRAL)))
    numbers = np.broadcast_to(np.array(NEUTRAL), drawn.shape).copy()
    if kind == "released":
        numbers[..., 0] = 0.9 ** 0.5
        numbers[..., 1:3] = drawn[..., 1:3]
        numbers[..., 3] = 0.2 * (2 * drawn[..., 3] - 1)
        numbers[..., 4:6] = 1 + 0.2 * (2 * drawn[..., 4:6] - 1)
        numbers[..., 6] = 0.05 * (2 * drawn[..., 6] - 1)
    elif kind == "photometric":
        numbers[..., 4] = 1 + 0.15 * (2 * drawn[..., 4] - 1)
        gain = 1 + 0.15 * (2 * drawn[..., 3:4] - 1)
        numbers[..., 7:10] = gain * (1 + 0.06 * (2 * drawn[..., 7:10] - 1))
    return numbers.astype(np.float32)


def apply_augmentation(pixels: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Augments pictures (..., 3, S, S) in [0, 1] by numbers (..., 10) of `draw_augmentation`; clips after every operation.

    The numbers decide which operations run. If they are on the host, it does not wait for the GPU.

    Args:
        pixels: Pictures on any device.
        numbers: Numbers on the host, or on the device of the pixels.

    Returns:
        Pictures of the same shape, on the same device.
    """
    flat, given = pixels.flatten(0, -4), numbers.flatten(0, -2)
    crops, recolours = bool((given[:, 0] != 1).any()), bool(((given[:, 5] != 1) | (given[:, 6] != 0)).any())
    given = given.to(pixels.device, non_blocking=True)
    side, top, left, brightness, contrast, saturation, hue = (given[:, i].view(-1, 1, 1, 1) for i in range(7))
    if crops:
        flat = _crop(flat, side.flatten(), top.flatten(), left.flatten())
    flat = (flat + brightness).clamp(0.0, 1.0)
    mean = flat.mean(dim=(2, 3), keepdim=True)
    flat = ((flat - mean) * contrast + mean).clamp(0.0, 1.0)
    if recolours:
        flat = _recolour(flat, saturation[:, 0], hue[:, 0])
    return (flat * given[:, 7:10].view(-1, 3, 1, 1)).clamp(0.0, 1.0).reshape(pixels.shape)


def _crop(pixels: torch.Tensor, side: torch.Tensor, top: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """Crops a square of `side` from each picture (N, 3, S, S) and resizes it to the picture's size."""
    zero = torch.zeros_like(side)
    free = 1 - side
    shift_x, shift_y = free * (2 * left - 1), free * (2 * top - 1)
    matrix = torch.stack([torch.stack([side, zero, shift_x], -1), torch.stack([zero, side, shift_y], -1)], 1)
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=True)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _recolour(pixels: torch.Tensor, saturation: torch.Tensor, hue: torch.Tensor) -> torch.Tensor:
    """Scales saturation and rotates hue (1 is a full turn) of (N, 3, S, S) in the hue, saturation, value model."""
    red, green, blue = pixels.unbind(1)
    value, least = pixels.max(1).values, pixels.min(1).values
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    angle = torch.where(value == red, ((green - blue) / safe) % 6,
                        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4))
    angle = (torch.where(chroma > 0, angle, torch.zeros_like(angle)) / 6 + hue) % 1.0
    part = torch.where(value > 0, chroma / torch.where(value > 0, value, torch.ones_like(value)), torch.zeros_like(value))
    part = (part * saturation).clamp(0.0, 1.0)
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (offset + angle * 6) % 6
        channels.append(value - value * part * torch.minimum(k, 4 - k).clamp(0.0, 1.0))
    return torch.stack(channels, 1)
