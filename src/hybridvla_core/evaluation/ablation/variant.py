"""How a checkpoint is queried: which path answers, when the paths are averaged, how many denoising steps are taken."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Optional, TypeVar

from hybridvla_core.contracts import Mode

if TYPE_CHECKING:
    from hybridvla_core.checkpoints.config import CheckpointConfig

Value = TypeVar("Value")

#: A threshold that every confidence exceeds.
ALWAYS = 1e-6


@dataclass(frozen=True)
class Variant:
    """One way to query a checkpoint. A field that is None keeps the checkpoint's setting.

    Attributes:
        mode: `ensemble`, `diffusion` or `autoregressive`.
        theta: Mean confidence above which the paths are averaged; with `ALWAYS` they are always averaged.
        rule: Rule of the ensemble: `mean` (paper) or `released`.
        window: Number of bins around the decoded one whose probabilities add up to the confidence.
        condition: What the tokens are conditioned on: the `denoised` action, `noise`, or what the `released` script feeds.
        steps: Number of DDIM steps.
        spacing: Spacing of their timesteps, `released` or `even`.
    """

    mode: str = "ensemble"
    theta: Optional[float] = None
    rule: Optional[str] = None
    window: Optional[int] = None
    condition: Optional[str] = None
    steps: Optional[int] = None
    spacing: Optional[str] = None

    def __post_init__(self) -> None:
        Mode.named(self.mode)

    def altered(self, config: CheckpointConfig) -> CheckpointConfig:
        """Returns the configuration with the changes of this variant.

        Raises:
            ConfigurationError: A value is not valid for a checkpoint.
        """
        ensemble = replace(config.ensemble, theta=_or(self.theta, config.ensemble.theta),
                           rule=_or(self.rule, config.ensemble.rule),
                           confidence_window_bins=_or(self.window, config.ensemble.confidence_window_bins))
        return replace(config, ensemble=ensemble, ddim_steps=_or(self.steps, config.ddim_steps),
                       ddim_spacing=_or(self.spacing, config.ddim_spacing),
                       autoregressive_condition=_or(self.condition, config.autoregressive_condition))

    def settled(self, config: CheckpointConfig) -> Variant:
        """Returns the same variant with every field set, so that two descriptions of one variant share their episodes."""
        found = self.altered(config)
        gate = found.ensemble
        return Variant(self.mode, gate.theta, gate.rule, gate.confidence_window_bins, found.autoregressive_condition,
                       found.ddim_steps, found.ddim_spacing)


def _or(value: Optional[Value], otherwise: Value) -> Value:
    return otherwise if value is None else value
