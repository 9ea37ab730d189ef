"""All randomness of a step, as a function of (seed, stage, step): no state is kept, so a resumed run is the same run.

`numpy.random.Philox` is a counter-based generator; each purpose has its own counter. The whole step is drawn, and a process
takes its rows of it, so the run does not depend on the number of processes.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
import torch

from hybridvla_core.model.schedule import DiffusionSchedule
from hybridvla_core.training.hybrid.config import ObjectiveConfig

#: Purposes, the second number of a counter.
FRAMES, TIMESTEPS, NOISE, JITTER, CONDITION, AUGMENT, STATE = range(7)
#: Stage number of draws for the validation, the same at every validation.
VALIDATION = 1 << 40


def generator(seed: int, purpose: int, stage: int, step: int) -> np.random.Generator:
    """Returns the generator of one purpose in one step."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, purpose, stage, step]))


@dataclass(frozen=True)
class NoiseDraw:
    """Noise for L_dif and for the tokens' condition; R copies, K chunk, A action dimensions.

    Attributes:
        timesteps: (B, R) timestep of each copy.
        noisy: (B, R, K, A), the noisy action x_t.
        target: (B, R, K, A), the noise to be predicted.
        weight: (B, R) weight of each copy in L_dif.
        condition: (B, K, A), the noisy action that a separate token branch follows.
        condition_timesteps: (B,) timestep of that action.
    """

    timesteps: torch.Tensor
    noisy: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    condition: torch.Tensor
    condition_timesteps: torch.Tensor


class Noise:
    """Source of the noise of a step for normalised actions."""

    def __init__(self, config: ObjectiveConfig, ddim_steps: int, spacing: str) -> None:
        schedule = DiffusionSchedule(spacing=spacing)
        self.config = config
        self.abar = torch.as_tensor(schedule.alphas_cumprod, dtype=torch.float32)
        self.visited = schedule.ddim_timesteps(ddim_steps)

    def draw(self, seed: int, stage: int, step: int, batch: int, rows: slice, actions: torch.Tensor) -> NoiseDraw:
        """Draws the noise of a step.

        Args:
            seed: Seed of the run.
            stage: Number of the stage.
            step: Step within the stage.
            batch: Samples of the whole step.
            rows: Rows of this process.
            actions: (b, K, A) actions of this process.

        Returns:
            The rows of this process; they do not depend on the number of processes that share the step.
        """
        config = self.config
        shape = (batch, config.repeats)
        rng = generator(seed, TIMESTEPS, stage, step)
        timesteps = rng.integers(0, len(self.abar), shape)
        if config.inference_share:
            chosen = self.visited[rng.integers(0, len(self.visited), shape)]
            timesteps = np.where(rng.random(shape) < config.inference_share, chosen, timesteps)
        whole = (*shape, *actions.shape[1:])
        noise = _normal(generator(seed, NOISE, stage, step), whole, rows)
        condition, condition_t = self._condition(seed, stage, step, batch, rows, actions)
        t = torch.from_numpy(timesteps[rows])
        noisy, target = self.noisy(actions, t, noise)
        if config.x0_jitter:
            rng = generator(seed, JITTER, stage, step)
            offset = config.x0_jitter * _normal(rng, whole, rows)
            offset = offset * torch.from_numpy((rng.random(shape) < 0.5)[rows])[..., None, None]
            noisy, target = self.noisy(actions, t, noise, offset)
        weight = ((1 - self.abar[t]) / self.abar[t]).clamp(1.0, config.weight_max)
        return NoiseDraw(t, noisy, target, weight, condition, condition_t)

    def noisy(self, actions: torch.Tensor, timesteps: torch.Tensor, noise: torch.Tensor, offset: Optional[torch.Tensor] = None
              ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Computes x_t = sqrt(abar) (a + d) + sqrt(1 - abar) n, and the noise that leads back to a.

        Args:
            actions: (B, K, A) normalised actions a.
            timesteps: (B, R) timesteps.
            noise: (B, R, K, A) noise n.
            offset: (B, R, K, A) error d of the action, to be corrected.

        Returns:
            x_t and the noise, each (B, R, K, A).
        """
        abar = self.abar[timesteps][..., None, None]
        clean = actions[:, None]
        if offset is None:
            return abar.sqrt() * clean + (1 - abar).sqrt() * noise, noise
        x = abar.sqrt() * (clean + offset) + (1 - abar).sqrt() * noise
        return x, (x - abar.sqrt() * clean) / (1 - abar).sqrt()

    def _condition(self, seed: int, stage: int, step: int, batch: int, rows: slice, actions: torch.Tensor
                   ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Draws a clean-looking action with an error at timestep 0, as after denoising; otherwise an ordinary noisy one."""
        config = self.config
        rng = generator(seed, CONDITION, stage, step)
        low, high = (math.log(value) for value in config.condition_sigma)
        sigma = torch.from_numpy(np.exp(rng.uniform(low, high, batch)).astype(np.float32)[rows])[:, None, None]
        timesteps = torch.from_numpy(rng.integers(0, len(self.abar), batch)[rows])
        clean = torch.from_numpy((rng.random(batch) < config.condition_zero)[rows])
        noise = _normal(rng, (batch, *actions.shape[1:]), rows)
        abar = self.abar[timesteps][:, None, None]
        noisy = abar.sqrt() * actions + (1 - abar).sqrt() * noise
        return torch.where(clean[:, None, None], actions + sigma * noise, noisy), timesteps.masked_fill(clean, 0)


def _normal(rng: np.random.Generator, shape: Tuple[int, ...], rows: slice) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape)[rows].astype(np.float32))
