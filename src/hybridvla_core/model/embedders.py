"""Small networks between numbers and embeddings, with the released names (docs/fidelity.md)."""
from __future__ import annotations

import math
from typing import List, Sequence

import torch
import torch.nn.functional as F
from torch import nn

FREQUENCIES = 256


class Mlp(nn.Module):
    """Linear, GELU(tanh), Linear."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VectorEmbedder(nn.Module):
    """Embedder of an action or a robot state (..., A) as one embedding (..., H)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.mlp = Mlp(inputs, hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(x)


def timestep_features(timestep: torch.Tensor) -> torch.Tensor:
    """Returns (N, 256) for (N,) timesteps: 128 cosines, then 128 sines, of t * 10000^(-i / 128), i = 0 .. 127."""
    half = FREQUENCIES // 2
    frequency = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half)
    argument = timestep.float()[:, None] * frequency
    return torch.cat([argument.cos(), argument.sin()], dim=-1)


class TimestepEmbedder(nn.Module):
    """Sinusoidal features, Linear, SiLU, Linear."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        """Embeds timesteps (N,) as (N, H)."""
        return self.mlp(timestep_features(timestep).to(next(self.mlp.parameters()).dtype))


class FinalNorm(nn.Module):
    """The norm of the final layer: `variance` divides by the unbiased deviation without centring, as the code at the
    released pins does; `mean_square` is RMSNorm, as in newer timm."""

    def __init__(self, hidden: int, kind: str, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.kind, self.eps = kind, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        power = x.var(dim=-1, keepdim=True) if self.kind == "variance" else x.square().mean(dim=-1, keepdim=True)
        return x * torch.rsqrt(power + self.eps) * self.weight


class FinalLayer(nn.Module):
    """Map from hidden states at the action positions (..., H) to predicted noise (..., A)."""

    def __init__(self, hidden: int, action_dim: int, norm: str) -> None:
        super().__init__()
        self.norm_final = FinalNorm(hidden, norm)
        self.mlp = Mlp(hidden, hidden, action_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.norm_final(x).to(self.mlp.fc1.weight.dtype))


class Projector(nn.Module):
    """Linear layers with exact GELU between them: fused towers Dv, 4 Dv, H, H; CLIP Dv, H, H."""

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: List[nn.Module] = []
        for index, width in enumerate(widths):
            layers += [nn.GELU()] if index else []
            layers.append(nn.Linear(inputs, width))
            inputs = width
        self.projector = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.projector(x)
