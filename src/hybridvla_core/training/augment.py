"""Augmentation of images (photometric) and of the robot state, with labels kept true."""
from __future__ import annotations

from typing import Tuple

import numpy as np
import torch

from hybridvla_core.training.config import AugmentConfig


def augment_images(images: torch.Tensor, config: AugmentConfig, generator: torch.Generator) -> torch.Tensor:
    """Random brightness, contrast, channel gain and pixel noise for each image.

    images: (N, H, W, 3) uint8. Returns (N, 3, H, W) float32 in [0, 1].
    """
    pixels = images.permute(0, 3, 1, 2).float() / 255.0
    count = pixels.shape[0]

    def spread(size: Tuple[int, ...], amount: float) -> torch.Tensor:
        return 1.0 + amount * (2.0 * torch.rand(size, generator=generator) - 1.0)

    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = (pixels - mean) * spread((count, 1, 1, 1), config.contrast) + mean
    pixels = pixels * spread((count, 1, 1, 1), config.brightness) * spread((count, 3, 1, 1), config.channel_gain)
    if config.pixel_noise:
        pixels = pixels + config.pixel_noise * torch.randn(pixels.shape, generator=generator)
    clamped: torch.Tensor = pixels.clamp_(0.0, 1.0)
    return clamped


def augment_state(state: np.ndarray, action: np.ndarray, config: AugmentConfig,
                  rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
    """Noise on the reported state; deltas stay true because the target does not move with the report.

    state: (N, 7) and action: (N, L, 7), physical units, one arm, absolute rotations. Returns copies.
    """
    state, action = state.copy(), action.copy()
    shift = config.state_position_m * rng.standard_normal((len(state), 3))
    state[:, :3] += shift
    action[:, :, :3] -= shift[:, None]
    state[:, 3:6] += config.state_angle_rad * rng.standard_normal((len(state), 3))
    state[:, 6] += config.state_gripper * rng.standard_normal(len(state))
    return state, action
