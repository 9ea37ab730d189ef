"""Losses of the tokens and of the decoder's attention, as functions of tensors."""
from __future__ import annotations

import torch
import torch.nn.functional as F


def token_losses(logits: torch.Tensor, targets: torch.Tensor, first: int, bins: int, soften: float) -> torch.Tensor:
    """Computes the cross entropy over the whole vocabulary.

    With `soften` > 0 the target is a Gaussian over neighbouring bins; other ids (EOS) stay hard.

    Args:
        logits: (M, V) logits.
        targets: (M,) token ids.
        first: First action id; the last one is first + bins - 1.
        bins: Number of action ids.
        soften: Width of the Gaussian, bins.

    Returns:
        (M,) losses, float32.
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
    # forbidden keys are at -inf; patches never are
    per_query = -(target[:, None] * log_attention).sum(-1)
    seen = target.sum(-1) > 0
    return (per_query * seen[:, None]).sum() / (seen.sum().clamp(min=1) * scores.shape[1])
