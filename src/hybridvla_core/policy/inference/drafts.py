"""Drafts of the action tokens, what a pass over a draft proves, and when further tokens cannot matter.

A pass over the draft d_1 .. d_(A-1) gives the greedy token after every position (g_1 .. g_A). g_1 is exact; g_(j+1) is
exact if d_1 .. d_j are exact and were fed, so the exact prefix ends at the first difference. g is the next draft (Jacobi
iteration; Song et al. 2021, "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving"; Santilli et
al. 2023 for decoding). Every pass proves at least one more token, so there are never more passes than greedy ones.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence, Union

import numpy as np
import torch

from hybridvla_core.checkpoints.config import EnsembleConfig
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.transforms.normalise import Scale

#: Rounding of a sum of confidences; the gate counts as unreachable only beyond it.
ROUNDING = 1e-5
#: Largest range of a channel that counts as constant, in its own units, and largest value that counts as close to 0.
NEARLY_CONSTANT, NEAR_ZERO = 1e-3, 0.02


@dataclass
class Examined:
    """The result of one pass.

    Attributes:
        ids: (B, A) greedy ids.
        confidence: (B, A) confidence of the ids.
        exact: (B,) number of ids that are exact.
    """

    ids: torch.Tensor
    confidence: torch.Tensor
    exact: torch.Tensor


def confidence_of(logits: torch.Tensor, chosen: torch.Tensor, window: int, tokens: ActionTokens) -> torch.Tensor:
    """Computes the probability of chosen tokens over the whole vocabulary.

    Args:
        logits: (..., rows) logits.
        chosen: (...) chosen ids.
        window: Number of bins; above 0, the action tokens within so many bins of the chosen token count too.
        tokens: Tokens that say which ids are actions.

        Returns:
            (...) probabilities, 0 to 1.
    """
    # One operation over the vocabulary: logsumexp would take eight, which is noticeable in a small model's pass.
    probability = logits.softmax(dim=-1)
    if window == 0:
        return probability.gather(-1, chosen[..., None])[..., 0]
    near = chosen[..., None] + torch.arange(-window, window + 1, device=logits.device)
    counted = ((near >= tokens.first) & (near < tokens.end)) | (near == chosen[..., None])
    return (probability.gather(-1, near.clamp(0, logits.shape[-1] - 1)) * counted).sum(dim=-1)


def trusted(confidence: torch.Tensor, ids: torch.Tensor, tokens: ActionTokens) -> torch.Tensor:
    """Returns the confidence with 0 for every token outside the action range: such a token decodes to no intended action."""
    return torch.where(tokens.valid(ids), confidence, 0.0)


def examine(logits: torch.Tensor, fed: torch.Tensor, window: int, tokens: ActionTokens) -> Examined:
    """Compares a draft with the result of the pass over it.

    Args:
        logits: (B, n, rows) float32 of the last n positions.
        fed: (B, n - 1) the draft tokens between them, whose predecessors are all exact.
        window: Window of the confidence, bins.
        tokens: Tokens that say which ids are actions.

    Returns:
        Greedy ids and confidence of the n positions, and how many of them are exact.
    """
    ids = logits.argmax(dim=-1)
    matches = (ids[:, :-1] == fed).cumprod(dim=1).sum(dim=1)
    return Examined(ids, trusted(confidence_of(logits, ids, window, tokens), ids, tokens), matches + 1)


def merge(before: Examined, after: Examined, start: int) -> Examined:
    """Adds a pass over positions start .. A-1 to an earlier one.

    Args:
        before: Result of the earlier pass.
        after: Result for the positions from `start` on.
        start: First position of the later pass.

        Returns:
            The combined result: exact ids stay, the rest is replaced. For a row that was exact only up to less than `start`, the
            later pass proves nothing, because its input there was a guess.
    """
    place = torch.arange(before.ids.shape[1], device=before.ids.device)
    keep = place[None, :] < before.exact[:, None]
    ids, confidence = after.ids, after.confidence
    if start:
        ids, confidence = before.ids.clone(), before.confidence.clone()
        ids[:, start:], confidence[:, start:] = after.ids, after.confidence
    return Examined(torch.where(keep, before.ids, ids), torch.where(keep, before.confidence, confidence),
                    torch.where(before.exact >= start, torch.maximum(before.exact, start + after.exact), before.exact))


class ConfidenceGate:
    """Decides whether the ensemble rule can still be met when only the first `exact` confidences are known."""

    def __init__(self, config: EnsembleConfig, action_dim: int) -> None:
        self.config, self.action_dim = config, action_dim

    def reachable(self, confidence: np.ndarray, exact: int) -> bool:
        """Takes confidence (A,), 0 for a token that is no action. Unknown confidences count as 1, the most they can be."""
        if np.any(confidence[:exact] <= 0.0):
            return False
        counted = self.config.counted(self.action_dim)
        known = min(exact, counted)
        best = float(np.sum(confidence[:known], dtype=np.float64)) + counted - known
        needed = self.config.theta if self.config.rule == "released" else self.config.theta * self.action_dim
        return best > needed - ROUNDING


class FirstDraft:
    """Drafts tokens for a denoised action before any pass has seen it.

    Grippers are 0 or 1 in the labels (-1 or 1 if scaled), so their values are snapped to one of the two. A channel whose 1st
    and 99th percentile (nearly) agree in the training data is drafted at that value. A channel that the statistics leave
    unscaled is drafted at 0 if it is close to 0 (a rotation that never changes).
    """

    def __init__(self, tokens: ActionTokens, scale: Optional[Scale], grippers: Sequence[int],
                 device: Union[str, torch.device] = "cpu") -> None:
        self.first, self.end, self.bins = tokens.first, tokens.end, tokens.bins
        self.edges = torch.linspace(-1.0, 1.0, self.bins, device=device)
        dims = 0 if scale is None else len(scale.q01)
        self._gripper = torch.zeros(dims, dtype=torch.bool, device=device)
        self._unscaled = self._gripper.clone()
        self._closed = torch.zeros(dims, device=device)     # a gripper's 0 as the model was shown it
        usual = torch.full((dims,), float("nan"))
        for channel in range(dims):
            assert scale is not None, "without a scale there are no channels"
            if channel in grippers:
                self._gripper[channel] = True
                self._closed[channel] = -1.0 if scale.mask[channel] else 0.0
            elif not scale.mask[channel]:
                self._unscaled[channel] = True
                if scale.q99[channel] - scale.q01[channel] < NEARLY_CONSTANT:
                    usual[channel] = float(scale.q01[channel] + scale.q99[channel]) / 2
        self._usual = usual.to(device)
        self._constant = ~torch.isnan(self._usual)

    def __call__(self, action: torch.Tensor) -> torch.Tensor:
        """Returns normalised actions (B, A) as ids (B, A), on their own device."""
        value = action.float().clamp(-1.0, 1.0)
        if len(self._gripper):
            value = torch.where(self._gripper, torch.where(value >= 0.5, 1.0, self._closed), value)
            value = torch.where(self._unscaled & (value.abs() < NEAR_ZERO), torch.zeros_like(value), value)
            value = torch.where(self._constant, self._usual, value)
        ids = self.end - torch.bucketize(value.contiguous(), self.edges, right=True)
        return ids.clamp(self.first, self.end - 1)
