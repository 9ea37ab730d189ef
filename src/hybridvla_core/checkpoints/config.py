"""A checkpoint's description of itself (`config.json`), as frozen self-checking dataclasses."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from hybridvla_core.checkpoints.manifest import FORMAT
from hybridvla_core.configuration import in_range, one_of
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.schedule import DiffusionSchedule
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_core.transforms.images import STRATEGIES
from hybridvla_core.transforms.normalise import CONSTANT_CHANNELS

RULES = ("mean", "released")
ROTATION_MEANS = ("so3", "euler")
GRIPPER_RULES = ("diffusion", "mean_above_half")
PATHS = ("diffusion", "autoregressive")
CONDITIONS = ("denoised", "noise", "released")
#: Number of tokens that the `released` rule sums: the pose of the first arm, without its gripper.
RELEASED_TOKENS = 6


@dataclass(frozen=True)
class EnsembleConfig:
    """Rule for when and how the paths are averaged.

    Attributes:
        rule: `mean`: the mean confidence of all tokens exceeds theta (paper); `released`: the summed confidence of the first
            arm's first six tokens exceeds 5.8, which decides for both arms.
        theta: The threshold.
        confidence_window_bins: A token's confidence is the probability within this many bins of the decoded one; 0 is the paper.
        rotation_mean: Whether rotations are averaged on SO(3), or as Euler angles as released (wrong at the wrap-around).
        gripper: If the paths differ, `diffusion` decides, or `mean_above_half` as released (then 0).
    """

    rule: str
    theta: float
    confidence_window_bins: int
    rotation_mean: str
    gripper: str

    def __post_init__(self) -> None:
        for name, allowed in (("rule", RULES), ("rotation_mean", ROTATION_MEANS), ("gripper", GRIPPER_RULES)):
            one_of(f"ensemble: {name}", getattr(self, name), allowed)
        in_range("ensemble: theta", self.theta, 0.0, RELEASED_TOKENS, above=True)
        if self.confidence_window_bins < 0:
            raise ConfigurationError("ensemble: confidence_window_bins must not be negative, and is "
                                     f"{self.confidence_window_bins}")

    @classmethod
    def paper(cls, confidence_window_bins: int = 0) -> EnsembleConfig:
        """Returns the rule of the paper."""
        return cls("mean", 0.96, confidence_window_bins, "so3", "diffusion")

    @classmethod
    def released(cls, theta: float = 5.8) -> EnsembleConfig:
        """Returns the rule of the released robot loop."""
        return cls("released", theta, 0, "euler", "mean_above_half")

    def counted(self, action_dim: int) -> int:
        """Returns how many tokens, counted from the first, the rule considers."""
        return min(RELEASED_TOKENS, action_dim) if self.rule == "released" else action_dim

    def score(self, confidence: np.ndarray) -> float:
        """Returns the value that the rule compares with theta, from token confidences (A,)."""
        counted = confidence[:self.counted(len(confidence))]
        return float(np.sum(counted) if self.rule == "released" else np.mean(counted))

    def opens(self, confidence: np.ndarray) -> bool:
        """Tells whether the paths are averaged.

        Args:
            confidence: (A,) confidences, 0 for a token that is no action. One such token forbids averaging, whichever tokens the
                rule counts.

        Returns:
            Whether every token is an action and the score exceeds theta.
        """
        return bool((confidence > 0.0).all()) and self.score(confidence) > self.theta


@dataclass(frozen=True)
class CheckpointConfig:
    """A checkpoint's `config.json`.

    Attributes:
        format: Format version of the folder.
        model: The architecture.
        convention: Meaning of the numbers in actions and states.
        cameras: View names in the order the model was trained with.
        image_strategy: How images are fitted to the towers' sizes.
        ensemble: When and how the paths are averaged.
        ddim_steps: Denoising steps of a prediction (the paper: 4).
        autoregressive_condition: What the tokens are conditioned on.
        statistics_key: Data set of `dataset_statistics.json` that is used for normalisation.
        untrained: Modules with random weights, as in a converted base; such a folder is for training and predicts nothing.
        constant_channel: Model input for a state channel that never moved in the data: `zero`, as in training, or the value
            that the `released` loop computes.
        ddim_spacing: Rule for the timesteps that the denoising steps visit, `released` or `even`.
        trained: Which of the two paths were trained; modes that need an untrained path do not predict.
    """

    format: int
    model: ModelConfig
    convention: ActionConvention
    cameras: Tuple[str, ...]
    image_strategy: str
    ensemble: EnsembleConfig
    ddim_steps: int
    autoregressive_condition: str
    statistics_key: str
    untrained: Tuple[str, ...] = ()
    constant_channel: str = "zero"
    ddim_spacing: str = "released"
    trained: Tuple[str, ...] = PATHS

    @property
    def chunk(self) -> int:
        return self.model.chunk

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ConfigurationError(f"checkpoint format {self.format}; this version reads {FORMAT}")
        if len(self.cameras) != self.model.views or len(set(self.cameras)) != len(self.cameras):
            raise ConfigurationError(f"cameras {list(self.cameras)} do not name each of {self.model.views} view(s) once")
        if self.convention.action_dim != self.model.action_dim:
            raise ConfigurationError(f"the convention's arms {list(self.convention.arms)} need "
                                     f"{self.convention.action_dim} action dimensions, the model has "
                                     f"{self.model.action_dim}")
        one_of("image_strategy", self.image_strategy, STRATEGIES)
        one_of("autoregressive_condition", self.autoregressive_condition, CONDITIONS)
        one_of("constant_channel", self.constant_channel, CONSTANT_CHANNELS)
        if not self.trained or not set(self.trained) <= set(PATHS) or "diffusion" not in self.trained:
            raise ConfigurationError(f"trained is {list(self.trained)}; use diffusion, or both of {', '.join(PATHS)}")
        DiffusionSchedule(spacing=self.ddim_spacing).ddim_timesteps(self.ddim_steps)
