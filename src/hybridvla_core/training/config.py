"""Parts of training recipes as self-checking configurations (`config/training/*.yaml`)."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Tuple

from hybridvla_core.errors import ConfigurationError


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        steps: How many.
        images: A step.
        labels: Instructions an image.
        learning_rate: Peak; cosine to 2 %.
        tower_rate: Factor on it for the vision towers.
    """

    steps: int
    images: int
    labels: int
    learning_rate: float
    tower_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.images < 1 or not 1 <= self.labels <= 16:
            raise ConfigurationError("a stage needs steps >= 0, images >= 1 and 1 to 16 labels")
        if self.learning_rate <= 0 or self.tower_rate < 0:
            raise ConfigurationError("learning_rate must be positive and tower_rate (a factor) not negative")


@dataclass(frozen=True)
class HybridLossConfig:
    """Noise, tokens and auxiliary terms of the hybrid objective (paper, section 3.2, L = L_dif + L_ce).

    Attributes:
        noise_copies: Noisy actions a label (the released R).
        inference_share: Share of timesteps drawn from those DDIM visits.
        x0_jitter: Half the copies start from an action off by this much (normalised units), with the noise re-targeted at the
            true one.
        weight_max: Bound of the weight (1 - abar) / abar, which is at least 1.
        condition_zero: Share of autoregressive branches that see timestep 0 and an action off by condition_sigma; the rest see an
            ordinary noisy action.
        condition_sigma: Least and greatest, log-uniform.
        soften_from: Width of the softened cross entropy at the begin, bins.
        soften_to: At its end, bins.
        soften_until: Share of the run after which labels are hard.
        attention_layers: Where attention is supervised.
        attention_heads: How many of each.
        attention_weight: Of that term.
        grounding_weight: Of the grounding term.
        state_weight: Of the state term.
    """

    noise_copies: int
    inference_share: float
    x0_jitter: float
    weight_max: float
    condition_zero: float
    condition_sigma: Tuple[float, ...]
    soften_from: float
    soften_to: float
    soften_until: float
    attention_layers: Tuple[int, ...]
    attention_heads: int
    attention_weight: float
    grounding_weight: float
    state_weight: float

    def __post_init__(self) -> None:
        for name in ("inference_share", "condition_zero", "soften_until"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; use a share in [0, 1]")
        if len(self.condition_sigma) != 2 or not 0 < self.condition_sigma[0] <= self.condition_sigma[1]:
            raise ConfigurationError("condition_sigma needs two growing positive numbers")
        if self.noise_copies < 1 or self.soften_from < self.soften_to or self.soften_to <= 0:
            raise ConfigurationError("noise_copies must be at least 1 and soften_from at least soften_to above 0")


@dataclass(frozen=True)
class AugmentConfig:
    """Image and state augmentation; 0 is off.

    Attributes:
        brightness: Photometric strength.
        contrast: The same.
        channel_gain: The same.
        pixel_noise: The same.
        state_position_m: Noise of the state, m.
        state_angle_rad: The same, rad.
        state_gripper: The same, of the opening.
    """

    brightness: float
    contrast: float
    channel_gain: float
    pixel_noise: float
    state_position_m: float
    state_angle_rad: float
    state_gripper: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            # Photometric strengths of 1 and more leave nothing of some images.
            below = 1.0 if name in ("brightness", "contrast", "channel_gain", "pixel_noise") else math.inf
            if not 0.0 <= value < below:
                raise ConfigurationError(f"augment: {name} is {value}; use 0 (off) or more" +
                                         (", below 1" if below < math.inf else ""))


@dataclass(frozen=True)
class LoopConfig:
    """What the loop around the stages needs: optimiser, schedule, moving average, saving.

    Attributes:
        seed: Of everything drawn, in [0, 10^6].
        weight_decay: Of AdamW.
        betas: Of AdamW.
        gradient_clip: Largest norm of a gradient.
        ema: Decay of the moving average of the weights.
        bfloat16: Runs the forward pass in bfloat16.
        warmup_steps: Over which the learning rate grows from 0.
        save_every_s: Time between two saved states, s.
    """

    seed: int
    weight_decay: float
    betas: Tuple[float, ...]
    gradient_clip: float
    ema: float
    bfloat16: bool
    warmup_steps: int
    save_every_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= 1_000_000:
            raise ConfigurationError("seed must lie in [0, 10^6]; larger ones belong to evaluation")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigurationError(f"betas is {list(self.betas)}; use two numbers in [0, 1)")
        if not 0 < self.ema < 1:
            raise ConfigurationError(f"ema is {self.ema}; use a number between 0 and 1")
        if not 0 < self.gradient_clip < math.inf:
            raise ConfigurationError(f"gradient_clip is {self.gradient_clip}; use a positive number")
        for name in ("weight_decay", "warmup_steps", "save_every_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; use 0 or more")
