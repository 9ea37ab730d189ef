"""The three stages for a small model trained from nothing: see, ground, act.

The paper starts from a pretrained vision-language model (section 3.2); a tiny one has none, so the first two stages give
it what pretraining would: features that tell objects and places, and words that find them. The third is the paper's
hybrid objective, L = L_dif + L_ce, with the auxiliary terms kept on.
"""
from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple

import torch
from torch import nn

from hybridvla_core.model.decoder import Probe
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.schedule import DiffusionSchedule
from hybridvla_core.model.sequence import denoising_rows, training_rows
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.training.layout import Layout
from hybridvla_core.training.losses import (
    attention_loss,
    conditioning_action,
    diffusion_loss,
    draw_timesteps,
    noisy_action,
    token_loss,
)
from hybridvla_core.training.tiny.batches import Batch, BatchSource
from hybridvla_core.training.tiny.config import TrainingConfig
from hybridvla_core.training.tiny.heads import AuxiliaryHeads
from hybridvla_core.training.trainer import Losses, Trainer
from hybridvla_core.transforms.images import normalise_pixels

#: Positions of the words "block" and "pad" in "put the {colour} block on the {colour} pad".
NOUNS = (3, 7)


class Recipe:
    """Losses of the three stages over one model; `source` gives the batches."""

    def __init__(self, model: HybridVLA, heads: AuxiliaryHeads, source: BatchSource, config: TrainingConfig) -> None:
        self.model, self.heads, self.source, self.config = model, heads, source, config
        self.schedule = DiffusionSchedule()
        self.abar = torch.as_tensor(self.schedule.alphas_cumprod, dtype=torch.float32)
        self.visited = torch.as_tensor(self.schedule.ddim_timesteps(4))
        self.tokens = ActionTokens(model.config)
        self.generator = torch.Generator().manual_seed(config.seed + 1)

    def run(self, trainer: Trainer, hooks: Callable[[int], None]) -> None:
        """All stages in order; stages already done (a resumed run) are skipped. `hooks(step)` runs in the last one."""
        config = self.config
        tower = list(self.model.vision_backbone.parameters())
        head = list(self.heads.parameters())
        rest = [p for name, p in self.model.named_parameters() if not name.startswith("vision_backbone.")]
        trainer.run("tower", config.tower, groups([(tower + head, 1.0)]), self.tower_losses)
        trainer.run("grounding", config.grounding, groups([(rest + head, 1.0)]), self.grounding_losses)
        trainer.run("policy", config.policy, groups([(rest + head, 1.0), (tower, config.policy.tower_rate)]),
                    self.policy_losses, hooks)

    def tower_losses(self, step: int, share: float) -> Losses:
        """Stage 1: what and where is in each patch."""
        batch = self.source.draw(self.config.tower.images, 1)
        return self.heads.tower_loss(self._features(batch), batch.patches)

    def grounding_losses(self, step: int, share: float) -> Losses:
        """Stage 2: the words find the named objects; the towers are frozen."""
        stage = self.config.grounding
        batch = self.source.draw(stage.images, stage.labels)
        with torch.no_grad():
            features = self._features(batch)
        layout = self._layout(batch, copies=0, tokens=False)
        hidden, scores = self._forward(layout, batch, self.model.project(features), [])
        return self._auxiliary(layout, batch, hidden, scores)

    def policy_losses(self, step: int, share: float) -> Losses:
        """Stage 3: noise and tokens in one sequence, with the auxiliary terms."""
        stage, loss = self.config.policy, self.config.loss
        batch = self.source.draw(stage.images, stage.labels)
        features = self._features(batch)
        layout = self._layout(batch, copies=loss.noise_copies, tokens=True)
        action = batch.action[:, :, None, :]  # chunk of one
        timestep = draw_timesteps((stage.images, stage.labels, loss.noise_copies), self.visited, len(self.abar),
                                  loss.inference_share, self.generator)
        copies = action[:, :, None].expand(-1, -1, loss.noise_copies, -1, -1)
        x, noise = noisy_action(copies, self.abar[timestep], loss.x0_jitter, self.generator)
        condition, condition_t = conditioning_action(action, self.abar, loss, self.generator)
        ids, targets = self._action_tokens(batch.action)
        branches = [self._branch(x, timestep), self._token_branch(condition, condition_t, ids)]
        hidden, scores = self._forward(layout, batch, self.model.project(features), branches)
        blocks = self._blocks(layout, hidden)
        predicted = self.model.noise_prediction(blocks[:, :, layout.noise_at])
        logits = self.model.llm.logits(blocks[:, :, layout.tokens_at].flatten(0, 2))
        terms = {"diffusion": diffusion_loss(predicted, noise, self.abar[timestep], loss.weight_max),
                 "tokens": token_loss(logits, targets.flatten(), self.tokens.first, self.tokens.bins,
                                      self._softening(share))}
        terms.update(self._auxiliary(layout, batch, hidden, scores))
        for key, value in self.heads.tower_loss(features, batch.patches).items():
            terms["patch_" + key] = 0.3 * value
        return terms

    def _softening(self, share: float) -> float:
        loss = self.config.loss
        if share >= loss.soften_until:
            return 0.0
        ratio = share / loss.soften_until
        return loss.soften_from * (loss.soften_to / loss.soften_from) ** ratio

    def _layout(self, batch: Batch, copies: int, tokens: bool) -> Layout:
        model = self.model.config
        return Layout(patches=self.source.grid ** 2, text=batch.text.shape[-1], labels=batch.text.shape[1],
                      copies=copies, chunk=1, action=model.action_dim if tokens else 0)

    def _features(self, batch: Batch) -> torch.Tensor:
        """Concatenated tower features (N, P, width) of one view."""
        towers = self.model.config.towers
        pixels = {tower.kind: normalise_pixels(batch.pixels, tower)[:, None] for tower in towers}
        return self.model.vision_features(pixels)

    def _forward(self, layout: Layout, batch: Batch, patches: torch.Tensor, branches: List[torch.Tensor]
                 ) -> Tuple[torch.Tensor, Probe]:
        """One pass over the block-masked sequence; returns hidden (N, S, H) and attention logits by layer."""
        embeddings = training_rows(self.model, patches, batch.text, batch.state, branches)
        probe = Probe.of(self.config.loss.attention_layers)
        hidden = self.model.llm(embeddings, layout.positions(), layout.mask(), attention_probe=probe)
        return hidden, probe

    def _branch(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, L, C * (1 + K), H) of [t, x] for x (N, L, C, K, A) and timestep (N, L, C)."""
        embedded = self.model.embed_action(x.flatten(0, 2)).unflatten(0, x.shape[:3])
        time = self.model.embed_timestep(timestep.flatten()).unflatten(0, timestep.shape)
        return denoising_rows(time, embedded).flatten(2, 3)

    def _token_branch(self, x: torch.Tensor, timestep: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, L, 1 + K + 1 + A, H) of [t, x, EOD, a_1 .. a_A]."""
        start = self._branch(x[:, :, None], timestep[:, :, None])
        eod = torch.full_like(ids[..., :1], self.model.config.sequence.eod)
        return torch.cat([start, self.model.embed_tokens(torch.cat([eod, ids], dim=-1))], dim=2)

    def _action_tokens(self, action: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Token ids (N, L, A) of normalised actions, and the targets (N, L, A + 1) with EOS at the end."""
        ids = self.tokens.encode(action)
        eos = torch.full_like(ids[..., :1], self.model.config.sequence.eos)
        return ids, torch.cat([ids, eos], dim=-1)

    @staticmethod
    def _blocks(layout: Layout, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (N, L, block, H) of the labels."""
        return hidden[:, layout.prefix:].unflatten(1, (layout.labels, layout.block))

    def _auxiliary(self, layout: Layout, batch: Batch, hidden: torch.Tensor, scores: Probe) -> Losses:
        loss = self.config.loss
        blocks = self._blocks(layout, hidden)
        nouns = [blocks[:, :, at] for at in NOUNS]
        terms = {key: loss.grounding_weight * value
                 for key, value in self.heads.grounding_loss(nouns[0], nouns[1], batch.named).items()}
        state = blocks[:, :, layout.label_prefix - 1]
        for key, value in self.heads.state_loss(state, batch.action, batch.phase).items():
            terms["state_" + key] = loss.state_weight * value
        queries = (layout.prefix + layout.block * torch.arange(layout.labels)[:, None] + torch.tensor(NOUNS)).flatten()
        attention = [attention_loss(values[:, :loss.attention_heads, queries], batch.named["attention"])
                     for values in scores.values() if values is not None]
        terms["attention"] = loss.attention_weight * functools.reduce(torch.add, attention) / len(attention)
        return terms


def groups(pairs: Iterable[Tuple[Sequence[nn.Parameter], float]]) -> List[Dict[str, Any]]:
    """Parameter groups for `Trainer.run` from (parameters, factor on the learning rate)."""
    return [{"params": params, "scale": scale} for params, scale in pairs]
