"""The terms of the hybrid objective and its auxiliary supervision, each a function of tensors."""
from __future__ import annotations

import math
from typing import Tuple

import torch
import torch.nn.functional as F

from hybridvla_core.training.config import HybridLossConfig


def draw_timesteps(shape: Tuple[int, ...], visited: torch.Tensor, steps: int, share: float,
                   generator: torch.Generator) -> torch.Tensor:
    """Timesteps of the noise copies: `share` of them among those DDIM visits, the rest uniform in [0, steps)."""
    uniform = torch.randint(0, steps, shape, generator=generator)
    chosen = visited[torch.randint(0, len(visited), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < share, chosen, uniform)


def noisy_action(action: torch.Tensor, abar: torch.Tensor, jitter: float, generator: torch.Generator
                 ) -> Tuple[torch.Tensor, torch.Tensor]:
    """Computes x_t = sqrt(abar) (a + d) + sqrt(1 - abar) n and the noise that leads back to the true a.

    Half the copies carry an offset d: they teach the network to repair an earlier estimate instead of trusting it.

    Args:
        action: (..., C, K, A) normalised.
        abar: (..., C).
        jitter: Standard deviation of d.
        generator: Draws noise and offset.

    Returns:
        (x_t, eps), shaped as `action`.
    """
    abar = abar[..., None, None]
    noise = torch.randn(action.shape, generator=generator)
    offset = jitter * torch.randn(action.shape, generator=generator)
    offset = offset * (torch.rand(abar.shape, generator=generator) < 0.5)
    x = abar.sqrt() * (action + offset) + (1 - abar).sqrt() * noise
    return x, (x - abar.sqrt() * action) / (1 - abar).sqrt()


def diffusion_loss(prediction: torch.Tensor, noise: torch.Tensor, abar: torch.Tensor, weight_max: float
                   ) -> torch.Tensor:
    """Computes the weighted mean squared error of the noise.

    The weight (1 - abar) / abar within [1, weight_max] favours x0 accuracy.

    Args:
        prediction: (..., C, K, A).
        noise: (..., C, K, A).
        abar: (..., C).
        weight_max: Largest weight.

    Returns:
        A scalar.
    """
    weight = ((1 - abar) / abar).clamp(1.0, weight_max)[..., None, None]
    error = (prediction.float() - noise).clamp(-20.0, 20.0)
    return (weight * error.square()).mean()


def conditioning_action(action: torch.Tensor, abar_table: torch.Tensor, config: HybridLossConfig,
                        generator: torch.Generator) -> Tuple[torch.Tensor, torch.Tensor]:
    """Draws what the autoregressive branch sees as x and t.

    With share `condition_zero` it is a clean-looking action with log-uniform error and t = 0, as after denoising; else an
    ordinary noisy action.

    Args:
        action: (..., K, A) normalised.
        abar_table: (timesteps,).
        config: Shares and errors.
        generator: Draws them.

    Returns:
        x, shaped as `action`, and t, (...).
    """
    shape = action.shape[:-2]
    low, high = (math.log(value) for value in config.condition_sigma)
    sigma = torch.exp(low + (high - low) * torch.rand(shape, generator=generator))[..., None, None]
    noise = torch.randn(action.shape, generator=generator)
    timestep = torch.randint(0, len(abar_table), shape, generator=generator)
    abar = abar_table[timestep][..., None, None]
    noisy = abar.sqrt() * action + (1 - abar).sqrt() * noise
    clean = torch.rand(shape, generator=generator) < config.condition_zero
    x = torch.where(clean[..., None, None], action + sigma * noise, noisy)
    return x, torch.where(clean, torch.zeros_like(timestep), timestep)


def token_loss(logits: torch.Tensor, targets: torch.Tensor, first: int, bins: int, soften: float) -> torch.Tensor:
    """The mean of `token_losses`."""
    return token_losses(logits, targets, first, bins, soften).mean()


def token_losses(logits: torch.Tensor, targets: torch.Tensor, first: int, bins: int, soften: float) -> torch.Tensor:
    """Computes the cross entropy over the whole vocabulary.

    With `soften` > 0 the target is a Gaussian over neighbouring bins; other ids (EOS) stay hard.

    Args:
        logits: (M, V).
        targets: (M,) token ids.
        first: The first id of an action; the last one is first + bins - 1.
        bins: How many ids of an action there are.
        soften: Width of the Gaussian, bins.

    Returns:
        (M,) float32.
    """
    logits = logits.float()
    hard = F.cross_entropy(logits, targets, reduction="none")
    if soften <= 0.0:
        return hard
    log_probability = F.log_softmax(logits, dim=-1)[:, first:first + bins]
    centre = (targets - first).float()
    distance = torch.arange(bins, device=logits.device)[None, :] - centre[:, None]
    weight = torch.softmax(-0.5 * (distance / soften) ** 2, dim=-1)
    soft = -(weight * log_probability).sum(-1)
    is_action = (targets >= first) & (targets < first + bins)
    return torch.where(is_action, soft, hard)


def attention_loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Computes the cross entropy of attention towards the patches that show the named object.

    Args:
        scores: (N, heads, Q, S) logits of the noun tokens over the whole sequence, forbidden keys at -inf.
        target: (N, Q, P) distribution over the patches (keys 1 .. P), all zero where the object is hidden.

    Returns:
        The mean over heads and visible objects, a scalar.
    """
    patches = target.shape[-1]
    log_attention = F.log_softmax(scores.float(), dim=-1)[..., 1:1 + patches]
    # forbidden keys have -inf; the patches never do
    per_query = -(target[:, None] * log_attention).sum(-1)
    seen = target.sum(-1) > 0
    return (per_query * seen[:, None]).sum() / (seen.sum().clamp(min=1) * scores.shape[1])
