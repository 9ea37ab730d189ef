"""The layout of the sequence, in one place (paper, section 3.2 and table 1).

    BOS, image patches, text ... BOD, state | [t, x_1 .. x_K] | [t, x_1 .. x_K, EOD, separators, a_1 .. a_A]

The prefix is computed once. A denoising branch and a decoding branch stand behind it, at the same positions. B: batch, H: width
of the decoder, A: action dimensions, K: chunk.
"""
from __future__ import annotations

from typing import Optional, Sequence

import torch

from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.hybridvla import HybridVLA


def prefix_length(config: ModelConfig, text: int) -> int:
    """Returns the rows of a prefix whose text, from after BOS to BOD, has `text` ids."""
    return 1 + config.views * config.patches + text + 1


def branch_length(config: ModelConfig) -> int:
    """Returns the rows of [t, x_1 .. x_K, EOD, separators], which stand before the first action token."""
    return 1 + config.chunk + 1 + len(config.sequence.after_eod)


def embed_bos(model: HybridVLA, device: torch.device) -> torch.Tensor:
    """Returns the first row, (1, 1, H)."""
    return model.embed_tokens(torch.tensor([[model.config.sequence.bos]], device=device))


def embed_markers(model: HybridVLA, device: torch.device) -> torch.Tensor:
    """Returns EOD and the separators that follow it, (1, M, H)."""
    sequence = model.config.sequence
    return model.embed_tokens(torch.tensor([[sequence.eod, *sequence.after_eod]], device=device))


def prefix_rows(bos: torch.Tensor, patches: torch.Tensor, words: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Returns BOS, patches, text and state as (B, S, H) in the type of the words.

    Args:
        bos: (1, 1, H), from `embed_bos`.
        patches: (B, N, H) image embeddings, views in order.
        words: (B, T, H) embedded ids from after BOS to BOD.
        state: (B, H) embedded robot state.
    """
    rows = [bos.expand(len(words), -1, -1), patches, words, state[:, None]]
    return torch.cat([row.to(words.dtype) for row in rows], dim=1)


def denoising_rows(time: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """Returns [t, x_1 .. x_K], (..., 1 + K, H), from embeddings of the timestep (..., H) and of the actions (..., K, H)."""
    return torch.cat([time[..., None, :], noisy.to(time.dtype)], dim=-2)


def decoding_rows(start: torch.Tensor, markers: torch.Tensor, tokens: Optional[torch.Tensor] = None) -> torch.Tensor:
    """Returns [t, x_1 .. x_K, EOD, separators, a_1 ..], (B, S, H) in the type of the markers.

    Args:
        start: (B, 1 + K, H), from `denoising_rows`.
        markers: (1, M, H), from `embed_markers`.
        tokens: (B, n, H) embedded action tokens; None for none.
    """
    rows = [start, markers.expand(len(start), -1, -1)] + ([] if tokens is None else [tokens])
    return torch.cat([row.to(markers.dtype) for row in rows], dim=1)


def training_rows(model: HybridVLA, patches: torch.Tensor, text: torch.Tensor, state: torch.Tensor,
                  branches: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns BOS and patches once, then for every label its text, BOD, state and branches, (N, S, H).

    Args:
        model: whose embeddings are used.
        patches: (N, P, H) image embeddings.
        text: (N, L, T) ids without BOS and BOD.
        state: (N, A) normalised.
        branches: (N, L, n, H) each, from `denoising_rows` or `decoding_rows`.
    """
    images, labels = text.shape[:2]
    bos = embed_bos(model, text.device).expand(images, 1, -1)
    bod = model.embed_tokens(torch.tensor([model.config.sequence.bod], device=text.device)).expand(images, labels, 1, -1)
    states = model.embed_state(state)[:, None, None].expand(-1, labels, -1, -1)
    blocks = [model.embed_tokens(text), bod, states, *branches]
    block = torch.cat([part.to(bod.dtype) for part in blocks], dim=2)
    return torch.cat([bos, patches.to(bos.dtype), block.flatten(1, 2)], dim=1)
