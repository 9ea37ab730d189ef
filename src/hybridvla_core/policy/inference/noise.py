"""All random numbers of a prediction, from its seed and the stamp of its observation."""
from __future__ import annotations

from typing import Tuple

import numpy as np
import torch


def draw_noise(seed: int, stamp_ns: int, chunk: int, action_dim: int) -> Tuple[torch.Tensor, torch.Tensor, int]:
    """Draws all random numbers of one prediction.

    Philox is counter-based and the same on every platform, so that a prediction can be repeated anywhere.

    Args:
        seed: Seed of the policy.
        stamp_ns: Stamp of the observation, ns.
        chunk: Number of steps K.
        action_dim: Size A of an action.

    Returns:
        The diffusion noise (K, A), a second noise (K, A) for `released` and `noise` conditions, and a timestep in 0 .. 99.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, stamp_ns & 0xFFFFFFFFFFFFFFFF]))
    first = generator.standard_normal((chunk, action_dim)).astype(np.float32)
    second = generator.standard_normal((chunk, action_dim)).astype(np.float32)
    return torch.from_numpy(first), torch.from_numpy(second), int(generator.integers(0, 100))


def draw_more_noise(seed: int, stamp_ns: int, samples: int, chunk: int, action_dim: int) -> torch.Tensor:
    """Draws (samples, K, A) further noises of the same (seed, stamp), from another part of the generator's sequence."""
    if not samples:
        return torch.zeros(0, chunk, action_dim)
    bits = np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, stamp_ns & 0xFFFFFFFFFFFFFFFF], counter=[0, 0, 0, 1])
    drawn = np.random.Generator(bits).standard_normal((samples, chunk, action_dim))
    return torch.from_numpy(drawn.astype(np.float32))
