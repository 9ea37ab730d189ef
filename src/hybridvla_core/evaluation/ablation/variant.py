"""How a checkpoint is asked: which path answers, when the paths are averaged, how many denoising steps are taken."""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Optional, TypeVar, Union

from hybridvla_core.checkpoints.config import CheckpointConfig
from hybridvla_core.contracts import Mode
from hybridvla_core.errors import HybridVLAError

if TYPE_CHECKING:
    from hybridvla_core.checkpoints.format import Checkpoint
    from hybridvla_core.policy.predictor import Policy

Value = TypeVar("Value")
#: The loss that trains each path, as a checkpoint's provenance names it.
LOSS_OF = ("diffusion", "autoregressive")

#: A threshold that every confidence passes.
ALWAYS = 1e-6


@dataclass(frozen=True)
class Variant:
    """One way of asking. What is None stays as the checkpoint says.

    Attributes:
        mode: `ensemble`, `diffusion` or `autoregressive`.
        theta: Mean confidence above which the paths are averaged; `ALWAYS` averages always.
        rule: `mean` (paper) or `released`.
        window: Bins around the decoded one whose probabilities add up to the confidence.
        condition: What the tokens follow: the `denoised` action, `noise`, or what the `released` script feeds.
        steps: DDIM steps.
        spacing: Which timesteps these are, `released` or `even`.
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
        """Returns the configuration with what this variant changes.

        Raises:
            ConfigurationError: A value is none that a checkpoint may have.
        """
        ensemble = replace(config.ensemble, theta=_or(self.theta, config.ensemble.theta),
                           rule=_or(self.rule, config.ensemble.rule),
                           confidence_window_bins=_or(self.window, config.ensemble.confidence_window_bins))
        return replace(config, ensemble=ensemble, ddim_steps=_or(self.steps, config.ddim_steps),
                       ddim_spacing=_or(self.spacing, config.ddim_spacing),
                       autoregressive_condition=_or(self.condition, config.autoregressive_condition))

    def policy(self, folder: Union[str, Path]) -> Policy:
        """Loads a checkpoint that answers in this way: a `Policy`.

        Args:
            folder: The checkpoint.

        Raises:
            CheckpointError: The folder is no checkpoint.
            HybridVLAError: The checkpoint lacks the path that is asked for.
        """
        from hybridvla_core.checkpoints.format import read_checkpoint
        from hybridvla_core.policy.predictor import Policy

        checkpoint = read_checkpoint(Path(folder))
        check_paths(checkpoint, self.mode)
        return Policy.of(replace(checkpoint, config=self.altered(checkpoint.config)), mode=self.mode)


def check_paths(checkpoint: Checkpoint, mode: str) -> None:
    """Raises HybridVLAError where the checkpoint's provenance says that a path was never trained that `mode` needs."""
    losses = checkpoint.manifest.get("provenance", {}).get("losses")
    if losses is None:
        return
    needed = {"ensemble": LOSS_OF, "diffusion": LOSS_OF[:1], "autoregressive": LOSS_OF[1:]}[mode]
    missing = [loss for loss in needed if loss not in losses]
    if missing:
        raise HybridVLAError(f"{checkpoint.folder} was trained without the loss of {' and '.join(missing)}, so mode {mode} has "
                             "nothing to answer with; evaluate its other mode")


def _or(value: Optional[Value], otherwise: Value) -> Value:
    return otherwise if value is None else value
