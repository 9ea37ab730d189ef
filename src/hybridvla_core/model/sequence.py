"""The layout of the sequence, in one place (paper, section 3.2 and table 1).

    BOS, image patches, text ... BOD, state | [t, x_1 .. x_K] | [t, x_1 .. x_K, EOD, separators, a_1 .. a_A]

In table 1, kind 2 has no BOD, EOD and separators; kind 3 has the state as words before BOD and no state row; kind 4 has the
tokens before the noise: BOS, patches, text, state, a_1 .. a_A | [BOD, t, x_1 .. x_K].

The prefix is computed once. A denoising branch and a decoding branch follow it, at the same positions. B: batch, H: width
of the decoder, A: action dimensions, K: chunk.
"""
from __future__ import annotations

from typing import Optional

import torch

from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.hybridvla import HybridVLA


def prefix_length(config: ModelConfig, text: int) -> int:
    """Returns the number of rows of a prefix whose text, from after BOS to before the state, has `text` ids."""
    return 1 + config.views * config.patches + text + int(config.sequence.state_row)


def branch_length(config: ModelConfig) -> int:
    """Returns the number of rows of [t, x_1 .. x_K, EOD, separators], which precede the first action token."""
    return 1 + config.chunk + len(config.sequence.before_tokens)


def embed_bos(model: HybridVLA, device: torch.device) -> torch.Tensor:
    """Returns the first row, (1, 1, H)."""
    return model.embed_tokens(torch.tensor([[model.config.sequence.bos]], device=device))


def embed_markers(model: HybridVLA, device: torch.device) -> torch.Tensor:
    """Returns EOD and the separators that follow it, (1, M, H); M is 0 if there are none."""
    ids = model.config.sequence.before_tokens
    return model.embed_tokens(torch.tensor([ids], dtype=torch.long, device=device))


def embed_state_row(model: HybridVLA, state: torch.Tensor) -> Optional[torch.Tensor]:
    """Returns the row (B, H) of a normalised state (B, A); None if the sequence has no such row."""
    return model.embed_state(state) if model.config.sequence.state_row else None


def prefix_rows(bos: torch.Tensor, patches: torch.Tensor, words: torch.Tensor, state: Optional[torch.Tensor]) -> torch.Tensor:
    """Returns BOS, patches, text and state as (B, S, H), in the type of the words.

    Args:
        bos: (1, 1, H) first row, from `embed_bos`.
        patches: (B, N, H) image embeddings, views in order.
        words: (B, T, H) embedded ids from after BOS to BOD.
        state: (B, H) embedded robot state; None for no row.
    """
    rows = [bos.expand(len(words), -1, -1), patches, words] + ([] if state is None else [state[:, None]])
    return torch.cat([row.to(words.dtype) for row in rows], dim=1)


def denoising_rows(time: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """Returns [t, x_1 .. x_K], (..., 1 + K, H), from embeddings of the timestep (..., H) and of the actions (..., K, H)."""
    return torch.cat([time[..., None, :], noisy.to(time.dtype)], dim=-2)


def decoding_rows(start: torch.Tensor, markers: torch.Tensor, tokens: Optional[torch.Tensor] = None) -> torch.Tensor:
    """Returns [t, x_1 .. x_K, EOD, separators, a_1 ..], (B, S, H), in the type of the markers.

    Args:
        start: (B, 1 + K, H) timestep and actions, from `denoising_rows`.
        markers: (1, M, H) EOD and separators, from `embed_markers`.
        tokens: (B, n, H) embedded action tokens; None for none.
    """
    rows = [start, markers.expand(len(start), -1, -1)] + ([] if tokens is None else [tokens])
    return torch.cat([row.to(markers.dtype) for row in rows], dim=1)
