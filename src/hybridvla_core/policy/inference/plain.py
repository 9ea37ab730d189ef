"""The two paths on one cached prefix, plainly and stage by stage: a vision pass, a prefix pass, denoising steps, then one
decoding pass per token.

Nothing before the timestep token is computed twice. The prefix's keys and values stay in the cache; each denoising step
overwrites the [t, x] of the last step, and decoding continues after EOD. `DualPath` (dual_path.py) gives the same
results in fewer passes; this module is its reference.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Optional

import torch

from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.layers import KVCache
from hybridvla_core.model.schedule import DiffusionSchedule
from hybridvla_core.model.sequence import (
    branch_length,
    decoding_rows,
    denoising_rows,
    embed_bos,
    embed_markers,
    embed_state_row,
    prefix_rows,
)
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.policy.inference.drafts import confidence_of, trusted


@dataclass
class Prefix:
    """The part of the sequence that all passes share.

    Attributes:
        cache: Keys and values of BOS ... state.
        length: Number of slots that they fill.
    """

    cache: KVCache
    length: int


@dataclass
class Decoded:
    """Tokens, decoded one per pass.

    Attributes:
        ids: (B, A) token ids.
        values: (B, A) bin centres.
        confidence: (B, A) confidence, see `confidence_of`.
        trusted: (B, A) the same with 0 for tokens that are no actions.
        logits: (B, A, vocabulary) logits, if requested.
    """

    ids: torch.Tensor
    values: torch.Tensor
    confidence: torch.Tensor
    trusted: torch.Tensor
    logits: List[torch.Tensor] = field(default_factory=list)


class PlainDecoding:
    """Inference over a model in eval mode; all methods expect to run under `torch.inference_mode`.

    Args:
        model: The model.
        spacing: Spacing of the denoising steps, one of `schedule.SPACINGS`.
    """

    def __init__(self, model: HybridVLA, spacing: str = "released") -> None:
        self.model = model
        self.config = model.config
        self.tokens = ActionTokens(model.config)
        self.schedule = DiffusionSchedule(spacing=spacing)

    @property
    def dtype(self) -> torch.dtype:
        return self.model.llm.lm_head.weight.dtype

    def encode(self, pixels: Dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns image embeddings (B, V * P, H) of pixels: tower kind -> (B, V, 3, S, S)."""
        return self.model.encode_images({kind: views.to(self.dtype) for kind, views in pixels.items()})

    def prefix(self, patches: torch.Tensor, text: torch.Tensor, state: torch.Tensor) -> Prefix:
        """Runs the prefix: patches (B, N, H); text (B, T) ids from after BOS to before the state; state (B, A) normalised."""
        embeddings = prefix_rows(embed_bos(self.model, text.device), patches, self.model.embed_tokens(text),
                                 embed_state_row(self.model, state))
        batch, length = embeddings.shape[:2]
        room = branch_length(self.config) + self.config.action_dim
        cache = KVCache(self.config.decoder, batch, length + room, self.dtype, text.device)
        slots = torch.arange(length, device=text.device)
        self.model.llm(embeddings, slots, cache=cache, write_at=slots)
        return Prefix(cache, length)

    def noise_prediction(self, prefix: Prefix, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Returns eps (B, K, A) float32 for noisy actions x (B, K, A) at original timesteps (B,)."""
        hidden = self._tail(prefix, x, timestep)
        return self.model.noise_prediction(hidden[:, 1:1 + x.shape[1]]).float()

    def denoise(self, prefix: Prefix, noise: torch.Tensor, steps: int,
                trace: Optional[List[Dict[str, torch.Tensor]]] = None) -> torch.Tensor:
        """Runs DDIM from noise (B, K, A) with eta = 0; x stays float32. Returns the normalised action, not clipped."""
        spaced = self.schedule.ddim(steps)
        x = noise.float()
        for index in reversed(range(steps)):
            timestep = torch.full((x.shape[0],), int(spaced.timesteps[index]), device=x.device)
            eps = self.noise_prediction(prefix, x, timestep)
            x0, following = spaced.step(index, x, eps)
            if trace is not None:
                trace.append({"x_in": x, "eps": eps, "pred_x0": x0, "x_out": following, "timestep": timestep})
            x = following
        return x

    def decode(self, prefix: Prefix, x: torch.Tensor, timestep: torch.Tensor, window: int = 0,
               keep_logits: bool = False) -> Decoded:
        """Decodes A tokens greedily over the whole vocabulary after [t, x, EOD], x (B, K, A), timestep (B,)."""
        markers = embed_markers(self.model, x.device)
        hidden = self._tail(prefix, x, timestep, markers)[:, -1]
        slot = prefix.length + 1 + x.shape[1] + markers.shape[1]
        ids, confidence, kept = [], [], []
        for index in range(self.config.action_dim):
            logits = self.model.llm.logits(hidden).float()
            chosen = logits.argmax(dim=-1)
            ids.append(chosen)
            confidence.append(confidence_of(logits, chosen, window, self.tokens))
            if keep_logits:
                kept.append(logits)
            if index + 1 < self.config.action_dim:
                at = torch.tensor([slot + index], device=x.device)
                hidden = self.model.llm(self.model.embed_tokens(chosen)[:, None], at, cache=prefix.cache,
                                        write_at=at)[:, -1]
        tokens = torch.stack(ids, dim=1)
        certainty = torch.stack(confidence, dim=1)
        return Decoded(tokens, self.tokens.decode(tokens.cpu()), certainty, trusted(certainty, tokens, self.tokens), kept)

    def _tail(self, prefix: Prefix, x: torch.Tensor, timestep: torch.Tensor,
              markers: Optional[torch.Tensor] = None) -> torch.Tensor:
        """Returns the hidden states (B, 1 + K + ..., H) of [t, x_1 .. x_K, markers] after the prefix."""
        rows = denoising_rows(self.model.embed_timestep(timestep), self.model.embed_action(x))
        embeddings = (rows if markers is None else decoding_rows(rows, markers)).to(self.dtype)
        slots = prefix.length + torch.arange(embeddings.shape[1], device=x.device)
        return self.model.llm(embeddings, slots, cache=prefix.cache, write_at=slots)
