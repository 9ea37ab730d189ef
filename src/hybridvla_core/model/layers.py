"""Building blocks of a decoder: cache, masks, norm and rotary positions; and constants."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Tuple, Union

import torch
from torch import nn

from hybridvla_core.model.config import DecoderConfig


class KVCache:
    """Keys and values of every layer, preallocated: (layers, batch, kv_heads, length, head_dim) each."""

    def __init__(self, config: DecoderConfig, batch: int, length: int, dtype: torch.dtype,
                 device: Union[str, torch.device] = "cpu") -> None:
        shape = (config.layers, batch, config.kv_heads, length, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def length(self) -> int:
        return self.keys.shape[3]


@dataclass(frozen=True)
class LastRows:
    """Request for the last `count` rows of a pass alone, with their own part of the bias (.., count, T). The last block
    then computes only keys and values for the other rows."""

    count: int
    bias: torch.Tensor


@lru_cache(maxsize=256)
def constant(values: Tuple[object, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Returns numbers as a tensor. All callers share it, so none may change it.

    Making it anew each time stalls a GPU: the host copies the numbers and continues only when they have arrived.

    Args:
        values: The numbers; tuples of tuples for several dimensions.
        dtype: Type of the tensor.
        device: Device of the tensor.

    Returns:
        The tensor.
    """
    with torch.inference_mode(False):      # training may use it too, whoever asked first
        return torch.tensor(values, dtype=dtype, device=device)


def mask_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns 0 where a query may attend, minus infinity elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def causal_bias(length: int, like: torch.Tensor) -> torch.Tensor:
    return torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu_(1)


#: torch's own norm is one kernel on a GPU; it came with torch 2.4.
FUSED_NORM = hasattr(torch.nn.functional, "rms_norm")


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32 with a gain."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if FUSED_NORM and not torch.is_grad_enabled() and (x.dtype == torch.float32 or x.is_cuda):
            # In bfloat16 this rounds once, after the gain, and not twice.
            return torch.nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Rotary:
    """Cosines and sines of rotary position embeddings for one set of positions, computed in float32. The first half of the
    sines is negative."""

    def __init__(self, config: DecoderConfig, positions: torch.Tensor, dtype: torch.dtype) -> None:
        index = torch.arange(0, config.rotary_dim, 2, dtype=torch.float32, device=positions.device)
        frequency = config.rope_theta ** (-index / config.rotary_dim)
        angle = positions.float()[..., None] * frequency
        angle = torch.cat([angle, angle], dim=-1)
        if angle.dim() == 3:
            angle = angle[:, None]  # one row per sample, shared by the heads
        sign = torch.where(torch.arange(config.rotary_dim, device=positions.device) < config.rotary_dim // 2, -1.0, 1.0)
        self.cos, self.sin, self.width = angle.cos().to(dtype), (angle.sin() * sign).to(dtype), config.rotary_dim

    @classmethod
    def of(cls, cos: torch.Tensor, sin: torch.Tensor, width: int) -> Rotary:
        """Returns the embeddings of rows computed before."""
        made = object.__new__(cls)
        made.cos, made.sin, made.width = cos, sin, width
        return made

    def select(self, index: torch.Tensor) -> Rotary:
        """Returns rows of a table over positions 0, 1, 2, ... for other positions: index (S,) or (B, S)."""
        chosen = object.__new__(Rotary)
        chosen.cos, chosen.sin, chosen.width = self.cos[index], self.sin[index], self.width
        if index.dim() == 2:
            chosen.cos, chosen.sin = chosen.cos[:, None], chosen.sin[:, None]
        return chosen

    def followed_by(self, other: Rotary) -> Rotary:
        """Returns these rows, then the other's; rows (S, D) may also precede per-sample rows (B, 1, S, D)."""
        joined = object.__new__(Rotary)
        joined.width = self.width
        for name in ("cos", "sin"):
            first, second = getattr(self, name), getattr(other, name)
            setattr(joined, name, torch.cat([first.expand(*second.shape[:-2], -1, -1), second], dim=-2))
        return joined

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Rotates the first `rotary_dim` channels of (B, heads, S, head_dim)."""
        turned, rest = (x, None) if self.width == x.shape[-1] else (x[..., :self.width], x[..., self.width:])
        # The halves change places; the minus sign of the second one is in the sines.
        turned = torch.addcmul(turned * self.cos, turned.roll(self.width // 2, -1), self.sin)
        return turned if rest is None else torch.cat([turned, rest], dim=-1)
