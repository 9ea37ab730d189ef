"""Losses of a batch: L_dif + L_ce over one shared prefix (paper, section 3.2), and the terms of grounding."""
from __future__ import annotations

from typing import Dict, FrozenSet, List, Optional

import torch
from torch import nn

from hybridvla_core.model.decoder import Probe
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.layers import LastRows, Rotary, constant, mask_bias
from hybridvla_core.model.sequence import denoising_rows
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.training.augment import apply_augmentation
from hybridvla_core.training.hybrid import parts
from hybridvla_core.training.hybrid.batch import Batch
from hybridvla_core.training.hybrid.config import ObjectiveConfig
from hybridvla_core.training.hybrid.grounding.heads import GroundingHeads
from hybridvla_core.training.hybrid.rows import Plan, markers_before_tokens, plan_of, shared_mask, shared_positions
from hybridvla_core.training.losses import token_losses
from hybridvla_core.transforms.images import normalise_pixels, picture_key

Terms = Dict[str, torch.Tensor]


class HybridObjective(nn.Module):
    """A model with the heads of its training. `forward` gives the sum of each term over a batch, and `counts` the divisor of
    these sums, so that parts of a step and processes can be added up."""

    def __init__(self, model: HybridVLA, config: ObjectiveConfig, strategy: str, heads: Optional[GroundingHeads] = None
                 ) -> None:
        super().__init__()
        self.model, self.heads = model, heads
        self.objective, self.strategy = config, strategy
        self.tokens = ActionTokens(model.config)

    def counts(self, batch: Batch, terms: FrozenSet[str]) -> Dict[str, float]:
        """Returns how many numbers each term is the mean of."""
        found: Dict[str, float] = {}
        if parts.DIFFUSION in terms:
            found[parts.DIFFUSION] = float((~batch.padding).sum()) * self.objective.repeats * batch.actions.shape[2]
        if parts.TOKENS in terms:
            found[parts.TOKENS] = float(batch.targets.numel() * self.plan(batch, terms).tokens_from(batch.lengths).shape[1])
        if self.heads is not None:
            found.update(self.heads.counts(batch, terms))
        return found

    def plan(self, batch: Batch, terms: FrozenSet[str]) -> Plan:
        """Plans the rows of a batch."""
        return plan_of(self.model.config, batch.text.shape[1], self.objective.repeats, parts.DIFFUSION in terms,
                       parts.TOKENS in terms, self.objective.token_condition == "own")

    def forward(self, batch: Batch, terms: FrozenSet[str], softening: float = 0.0) -> Terms:
        """Computes the terms of a batch.

        Args:
            batch: Batch on the model's device.
            terms: Wanted terms.
            softening: Width of softened token targets, bins.

        Returns:
            The sum of each term over the batch, a scalar, by name.
        """
        features = self._features(batch)
        found: Terms = {}
        if parts.PATCHES in terms and self.heads is not None:
            found[parts.PATCHES] = self.heads.patches(features, batch, self.model.llm.model.embed_tokens)
        if terms <= {parts.PATCHES}:
            return found
        plan, patches = self.plan(batch, terms), self.model.project(features)
        probe = None if self.heads is None else self.heads.probe(terms)
        hidden = self._hidden(plan, batch, self._rows(plan, batch, patches), probe)
        skipped = plan.text_at
        if parts.DIFFUSION in terms:
            found[parts.DIFFUSION] = self._diffusion(hidden[:, plan.noise_at(hidden.device) - skipped], batch)
        if parts.TOKENS in terms:
            at = plan.tokens_from(batch.lengths) - skipped
            rows = torch.arange(len(hidden), device=hidden.device)[:, None, None]
            targets = batch.targets[:, None].expand(-1, at.shape[1], -1)
            logits = self.model.llm.logits(hidden[rows, at].flatten(0, 2))
            found[parts.TOKENS] = token_losses(logits, targets.flatten(), self.tokens.first, self.tokens.bins, softening).sum()
        if self.heads is not None:
            end = hidden[torch.arange(len(hidden), device=hidden.device), plan.prefix_end(batch.lengths) - skipped]
            found.update(self.heads.words(hidden[:, :plan.text], patches, end, batch, terms))
            if probe is not None:
                found[parts.ATTENTION] = self.heads.attention(probe, batch, plan.length - skipped)
        return found

    def hidden(self, plan: Plan, batch: Batch) -> torch.Tensor:
        """Returns the hidden states of a plan's rows after the patches, (B, S - text_at, H)."""
        return self._hidden(plan, batch, self._rows(plan, batch, self.model.project(self._features(batch))))

    def pixels(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Returns tower kind -> (B, V, 3, S, S) normalised, with the same augmentation for all towers."""
        ready: Dict[object, torch.Tensor] = {}
        for key, pictures in batch.pixels.items():
            pixels = pictures.permute(0, 1, 4, 2, 3).float() / 255.0
            ready[key] = pixels if batch.augment is None else apply_augmentation(pixels, batch.augment)
        towers = self.model.config.towers
        return {tower.kind: normalise_pixels(ready[picture_key(tower, self.strategy)], tower) for tower in towers}

    def _features(self, batch: Batch) -> torch.Tensor:
        trained = any(parameter.requires_grad for parameter in self.model.vision_backbone.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return self.model.vision_features(self.pixels(batch))

    def _hidden(self, plan: Plan, batch: Batch, rows: torch.Tensor, probe: Optional[Probe] = None) -> torch.Tensor:
        """Returns the hidden states of the rows after the patches, (B, S - text_at, H); those of the others are not computed."""
        first = plan.text_at
        bias = mask_bias(shared_mask(plan.mask(batch.lengths, batch.even), first, batch.labels), rows.dtype)
        positions = shared_positions(plan.positions(batch.lengths, batch.even), first, batch.labels)
        rotary = Rotary(self.model.config.decoder, positions, rows.dtype)
        last = LastRows(rows.shape[1] - first, bias[..., first:, :])
        hidden = self.model.llm.run(rows, rotary, bias, attention_probe=probe, last=last)
        return hidden.reshape(len(batch), plan.length - first, -1)

    def _diffusion(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Computes the term of diffusion from hidden (B, R, K, H)."""
        error = self.model.noise_prediction(hidden).float() - batch.noise.target
        if self.objective.x0_jitter:
            error = error.clamp(-20.0, 20.0)   # re-targeted noise grows without bound towards timestep 0
        weighted = batch.noise.weight[..., None, None] * error.square()
        return weighted.masked_fill(batch.padding[:, None, :, None], 0.0).sum()

    def _rows(self, plan: Plan, batch: Batch, patches: torch.Tensor) -> torch.Tensor:
        """Embeds all rows, (M, S, H): BOS and patches of a moment, then the rest, sample by sample."""
        model, size = self.model, len(batch)
        words = model.embed_tokens(batch.text)
        rows = [words]
        if plan.state:
            rows.append(model.embed_state(batch.state)[:, None])
        tokens = model.embed_tokens(batch.tokens) if plan.tokens or plan.prefix_tokens else None
        if plan.prefix_tokens and tokens is not None:
            rows.append(tokens)
        tail = self._tail(plan, tokens)
        if plan.copies:
            noise = self._noise(batch.noise.noisy, batch.noise.timesteps)
            lead = self._ids([model.config.sequence.bod] * plan.lead, words).expand(size, plan.copies, -1, -1)
            behind = [part[:, None].expand(-1, plan.copies, -1, -1) for part in tail] if plan.copies_decode else []
            rows.append(_joined([lead, noise, *behind], words, 2).flatten(1, 2))
        if plan.own:
            start: List[torch.Tensor] = []
            if plan.noise:
                start = [self._noise(batch.noise.condition[:, None], batch.noise.condition_timesteps[:, None])[:, 0]]
            rows.append(_joined([*start, *tail], words, 1))
        own = _joined(rows, words, 1)
        bos = self._ids([model.config.sequence.bos], words).expand(len(patches), -1, -1)
        return _joined([bos, patches, own.reshape(len(patches), -1, own.shape[-1])], words, 1)

    def _tail(self, plan: Plan, tokens: Optional[torch.Tensor]) -> List[torch.Tensor]:
        if not plan.tokens or tokens is None:
            return []
        markers = self._ids(list(markers_before_tokens(self.model.config)), tokens)
        return [markers.expand(len(tokens), -1, -1), tokens]

    def _ids(self, ids: List[int], like: torch.Tensor) -> torch.Tensor:
        return self.model.embed_tokens(constant((tuple(ids),), torch.long, like.device))

    def _noise(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Embeds [t, x_1 .. x_K] as (B, R, 1 + K, H), from (B, R, K, A) and (B, R)."""
        time = self.model.embed_timestep(timesteps.flatten()).reshape(*timesteps.shape, -1)
        return denoising_rows(time, self.model.embed_action(noisy))


def _joined(rows: List[torch.Tensor], like: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.cat([row.to(like.dtype) for row in rows], dim=dim)
