"""The diffusion schedule: 100 steps, squared cosine, and the released spacing of DDIM (Song et al. 2021, eta = 0)."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Tuple, TypeVar

import numpy as np

from hybridvla_core.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

STEPS = 100
#: Rules for the timesteps that DDIM visits: `released`, or any count spread evenly (30 steps need it).
SPACINGS = ("released", "even")

#: Arrays of numpy or torch: the arithmetic is the same for both.
ArrayT = TypeVar("ArrayT", np.ndarray, "torch.Tensor")


def squared_cosine_betas(steps: int = STEPS, largest: float = 0.999) -> np.ndarray:
    """Returns the betas of `squaredcos_cap_v2` in float64 (Nichol and Dhariwal 2021, section 3.2)."""
    def bar(share: float) -> float:
        return np.cos((share + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.array([min(1 - bar((i + 1) / steps) / bar(i / steps), largest) for i in range(steps)])


class DiffusionSchedule:
    """Betas and cumulative products of alpha over the original timesteps 0 .. 99.

    Args:
        steps: Number of timesteps.
        spacing: Rule for those that DDIM visits, one of `SPACINGS`.

    Raises:
        ConfigurationError: There is no such spacing.
    """

    def __init__(self, steps: int = STEPS, spacing: str = "released") -> None:
        if spacing not in SPACINGS:
            raise ConfigurationError(f"ddim_spacing {spacing!r}; use one of {', '.join(SPACINGS)}")
        self.steps, self.spacing = steps, spacing
        self.betas = squared_cosine_betas(steps)
        self.alphas_cumprod = np.cumprod(1.0 - self.betas)

        self.alphas_cumprod_prev = np.concatenate([[1.0], self.alphas_cumprod[:-1]])
        left, right = 1.0 - self.alphas_cumprod_prev, 1.0 - self.alphas_cumprod
        self.posterior_variance = self.betas * left / right
        clipped = np.concatenate([self.posterior_variance[1:2], self.posterior_variance[1:]])
        self.posterior_log_variance_clipped = np.log(clipped)
        self.posterior_mean_coef1 = self.betas * np.sqrt(self.alphas_cumprod_prev) / right
        self.posterior_mean_coef2 = left * np.sqrt(1.0 - self.betas) / right

    def ancestral_step(self, step: int, x: ArrayT, eps: ArrayT, noise: ArrayT) -> ArrayT:
        """Takes one DDPM step with the fixed small variance (Ho et al. 2020, algorithm 2); no noise at step 0."""
        abar = float(self.alphas_cumprod[step])
        x0 = x * abar ** -0.5 - eps * (1.0 / abar - 1.0) ** 0.5
        mean = float(self.posterior_mean_coef1[step]) * x0 + float(self.posterior_mean_coef2[step]) * x
        if step == 0:
            return mean
        return mean + float(np.exp(0.5 * self.posterior_log_variance_clipped[step])) * noise

    def ddim_timesteps(self, count: int) -> np.ndarray:
        """Returns the timesteps that `count` DDIM steps visit, ascending; one step visits the middle.

        Spacing `released`: 0, s, 2s, ... with the smallest stride that gives exactly `count`. Spacing `even` begins at 0 as well
        and spreads the timesteps as evenly as whole numbers allow. Neither starts to denoise at the last timestep: nothing of
        the action is left there, and the predicted noise is divided by 5e-4.

        Raises:
            ConfigurationError: No stride gives this count, or there are fewer timesteps.
        """
        if count == 1:
            return np.array([self.steps // 2])
        if self.spacing == "even":
            if not 1 <= count <= self.steps:
                raise ConfigurationError(f"{count} DDIM steps; use 1 to {self.steps}")
            return np.arange(count) * self.steps // count
        for stride in range(1, self.steps):
            kept = np.arange(0, self.steps, stride)
            if len(kept) == count:
                return kept
        raise ConfigurationError(f"{count} DDIM steps do not divide {self.steps} evenly; use one of "
                                 f"{', '.join(str(n) for n in self.valid_counts())}")

    def valid_counts(self) -> Tuple[int, ...]:
        counts = {len(range(0, self.steps, stride)) for stride in range(1, self.steps)} | {1}
        return tuple(sorted(counts))

    def ddim(self, count: int) -> SpacedSchedule:
        kept = self.ddim_timesteps(count)
        abar = self.alphas_cumprod[kept]
        return SpacedSchedule(kept, abar, np.concatenate([[1.0], abar[:-1]]))


@dataclass(frozen=True)
class SpacedSchedule:
    """The original timesteps that are kept.

    Attributes:
        timesteps: (n,) the timesteps, ascending.
        alphas_cumprod: (n,) cumulative products of alpha at these timesteps.
        alphas_cumprod_prev: (n,) cumulative products at the timestep before each; 1 for the first.
    """

    timesteps: np.ndarray
    alphas_cumprod: np.ndarray
    alphas_cumprod_prev: np.ndarray

    @property
    def betas(self) -> np.ndarray:
        return 1.0 - self.alphas_cumprod / self.alphas_cumprod_prev

    def __len__(self) -> int:
        return len(self.timesteps)

    def step(self, index: int, x: ArrayT, eps: ArrayT) -> Tuple[ArrayT, ArrayT]:
        """Takes one DDIM step, eta = 0, x0 not clipped; returns (predicted x0, x at the previous timestep)."""
        abar, previous = float(self.alphas_cumprod[index]), float(self.alphas_cumprod_prev[index])
        x0 = x * abar ** -0.5 - eps * (1.0 / abar - 1.0) ** 0.5
        return x0, x0 * previous ** 0.5 + eps * (1.0 - previous) ** 0.5
