"""The whole recipe of the tiny checkpoint as one self-checking configuration (`config/training/*.yaml`)."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Tuple

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.training.config import AugmentConfig, HybridLossConfig, LoopConfig, StageConfig


@dataclass(frozen=True)
class DaggerConfig:
    """Rollouts of the policy under training, labelled by the expert.

    Attributes:
        at: When: shares of the policy stage.
        episodes: How many each time.
        keyframes: Of each.
        switch_share: In what share of them the instruction is switched.
        share: Of the draws that come from them.
    """

    at: Tuple[float, ...]
    episodes: int
    keyframes: int
    switch_share: float
    share: float

    def __post_init__(self) -> None:
        if any(not 0 < x < 1 for x in self.at) or not 0 <= self.share < 1:
            raise ConfigurationError("dagger: `at` and `share` must lie in (0, 1)")
        if self.episodes < 1 or self.keyframes < 1 or not 0 <= self.switch_share <= 1:
            raise ConfigurationError("dagger: episodes and keyframes must be positive and switch_share lie in [0, 1]")


@dataclass(frozen=True)
class TrainingConfig(LoopConfig):
    """The recipe.

    Attributes:
        preset: Architecture.
        tower: First stage: what and where is in each patch.
        grounding: Second stage: words that find objects.
        policy: Third stage: the hybrid objective.
        loss: Terms of the objective.
        augment: Of images and states.
        dagger: Rollouts of the policy under training.
        phase_weights: How often samples of each phase of the expert are drawn, relative to each other.
    """

    preset: str
    tower: StageConfig
    grounding: StageConfig
    policy: StageConfig
    loss: HybridLossConfig
    augment: AugmentConfig
    dagger: DaggerConfig
    phase_weights: Tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.phase_weights or not all(0 < weight < math.inf for weight in self.phase_weights):
            raise ConfigurationError("phase_weights needs a positive number for each phase")
