"""Heads that grounding teaches: which patches a name means, where the object is, and what to do about it.

A model trained from scratch does not learn from the hybrid objective alone that words name things in the picture; the
paper's model has this from pretraining. The heads shape the features and are not part of a checkpoint.
"""
from __future__ import annotations

from typing import Dict, FrozenSet, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from hybridvla_core.model.decoder import Probe
from hybridvla_core.model.layers import constant
from hybridvla_core.training.hybrid import parts
from hybridvla_core.training.hybrid.batch import Batch, Mentions
from hybridvla_core.training.hybrid.grounding.config import GroundingConfig
from hybridvla_core.training.losses import attention_loss

WIDTH = 64


class GroundingHeads(nn.Module):
    """Linear read-outs of tower features (`width`) and hidden states (`hidden`), for `actions` channels and `subtasks` names.

    `placing` says which patches of all views learn places (`GroundingConfig.placing`); empty for all.
    """

    def __init__(self, config: GroundingConfig, width: int, hidden: int, actions: int, subtasks: int = 0,
                 placing: Sequence[bool] = ()) -> None:
        super().__init__()
        self.config, self._placing = config, tuple(placing)
        self.patch_name, self.word_name = nn.Linear(width, WIDTH), nn.Linear(hidden, WIDTH)
        self.patch_place = nn.Linear(width, 3)
        self.query, self.key = nn.Linear(hidden, WIDTH), nn.Linear(hidden, WIDTH)
        self.place = nn.Linear(hidden, 3)
        self.action = nn.Linear(hidden, actions)
        self.subtask = nn.Linear(hidden, subtasks) if subtasks else None
        self.patch_turn, self.turn = (nn.Linear(size, 2) if config.turns else None for size in (width, hidden))

    def counts(self, batch: Batch, terms: FrozenSet[str]) -> Dict[str, float]:
        """Returns the number of mentions, or samples, that each wanted term is the mean of."""
        mentions = batch.mentions
        shown = 0.0 if mentions is None else float(mentions.patches.any(1).sum())
        known = 0.0 if mentions is None else float(self._places(mentions)[1].sum())
        found = {parts.PATCHES: shown, parts.POINTING: shown, parts.PLACES: known, parts.ATTENTION: shown,
                 parts.STATE_ACTION: float(len(batch)),
                 parts.SUBTASK: 0.0 if batch.subtasks is None else float((batch.subtasks >= 0).sum())}
        return {name: count for name, count in found.items() if name in terms}

    def patches(self, features: torch.Tensor, batch: Batch, embed: nn.Module) -> torch.Tensor:
        """Computes, for each name that is shown, the losses of telling its patches from the others and of their place.

        Args:
            features: (M, P, width) tower features of every moment.
            batch: Batch with mentions.
            embed: Embedding of ids.

        Returns:
            The sum of the losses of all names, a scalar.
        """
        mentions = batch.mentions
        if mentions is None or not len(mentions.sample):
            nothing = 0.0 * (features.float().sum() + embed(batch.text[:1]).float().sum())
            return nothing + _nothing(self.patch_name, self.word_name, self.patch_place, self.patch_turn)
        seen, target = features.float()[mentions.sample // batch.labels], mentions.patches.float()
        words = embed(batch.text[mentions.sample]).float()
        name = self.word_name(_mean_between(words, mentions))
        logits = torch.einsum("mpd,md->mp", self.patch_name(seen), name) * WIDTH ** -0.5
        per_patch = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # The few patches of an object weigh as much as all the others.
        inside, outside = target.sum(1), (1 - target).sum(1)
        named = (per_patch * target).sum(1) / inside.clamp(min=1) + (per_patch * (1 - target)).sum(1) / outside.clamp(min=1)
        place, known = self._places(mentions)
        error, knowing = (self.patch_place(seen) - place[:, None]).abs().mean(-1), self._knowing(mentions.patches).float()
        placed = (error * knowing).sum(1) / knowing.sum(1).clamp(min=1) * known
        if self.patch_turn is not None:
            turn, told = self._turns(mentions)
            error = (self.patch_turn(seen) - turn[:, None]).abs().mean(-1)
            placed = placed + self.config.turns * (error * knowing).sum(1) / knowing.sum(1).clamp(min=1) * told
        return ((named + placed) * (inside > 0)).sum()

    def words(self, words: torch.Tensor, patches: torch.Tensor, end: torch.Tensor, batch: Batch, terms: FrozenSet[str]
              ) -> Dict[str, torch.Tensor]:
        """Computes the terms of hidden states.

        Args:
            words: (B, T, H) hidden states of the text.
            patches: (M, P, H) embeddings of the patches, of every moment.
            end: (B, H) hidden state of the prefix's last row.
            batch: Batch with or without mentions.
            terms: Wanted terms.

        Returns:
            The sum of each term, a scalar, by name.
        """
        mentions = batch.mentions
        if mentions is not None and len(mentions.sample) and terms & {parts.POINTING, parts.PLACES}:
            last = words[mentions.sample, mentions.end - 1].float()
            target = mentions.patches.float()
            shown = target.sum(1)
            keys = self.key(patches.float())[mentions.sample // batch.labels]
            scores = torch.einsum("mpd,md->mp", keys, self.query(last)) * WIDTH ** -0.5
            pointing = -(target * F.log_softmax(scores, dim=-1)).sum(1) / shown.clamp(min=1)
            place, known = self._places(mentions)
            placed = F.smooth_l1_loss(self.place(last), place, beta=0.05, reduction="none").mean(-1) * known
            if self.turn is not None:
                turn, told = self._turns(mentions)
                turned = F.smooth_l1_loss(self.turn(last), turn, beta=0.2, reduction="none").mean(-1)
                placed = placed + self.config.turns * turned * known * told
            found = {parts.POINTING: pointing.sum(), parts.PLACES: placed.sum()}
        else:       # only a term's own heads, so that a process that names nothing has gradients of the same parameters
            found = {parts.POINTING: 0.0 * (words.float().sum() + patches.float().sum()) + _nothing(self.query, self.key),
                     parts.PLACES: 0.0 * words.float().sum() + _nothing(self.place, self.turn)}
        action = F.smooth_l1_loss(self.action(end.float()), batch.actions[:, 0], beta=0.05, reduction="none")
        found[parts.STATE_ACTION] = action.mean(-1).sum()
        if self.subtask is not None and batch.subtasks is not None:
            found[parts.SUBTASK] = F.cross_entropy(self.subtask(end.float()), batch.subtasks, ignore_index=-1, reduction="sum")
        return {name: value for name, value in found.items() if name in terms}

    def probe(self, terms: FrozenSet[str]) -> Optional[Probe]:
        """Returns the probe that a pass has to fill for `attention`; None if that term is not wanted."""
        return Probe.of(self.config.attention_layers) if parts.ATTENTION in terms else None

    def attention(self, probe: Probe, batch: Batch, behind: int) -> torch.Tensor:
        """Computes the loss of the taught heads' attention towards the patches of named objects.

        Args:
            probe: Layer -> attention logits (M, heads, Q, S) of the last Q rows of every moment, all layers of the configuration.
            batch: Batch with or without mentions.
            behind: Rows of each sample after the patches.

        Returns:
            The sum over all names that are shown, averaged over layers and heads; a scalar.
        """
        mentions, heads = batch.mentions, self.config.attention_heads
        logits = [scores[:, :heads] for scores in probe.values() if scores is not None]
        if mentions is None or not len(mentions.sample):
            return 0.0 * torch.stack([scores[:, :, 0, 0].float().sum() for scores in logits]).sum()
        target = mentions.patches.float()
        shown = target.sum(1)
        # The samples of a moment follow each other at the end of the rows.
        back = behind * (batch.labels - mentions.sample % batch.labels) - (mentions.end - 1)
        share = (target / shown.clamp(min=1)[:, None])[:, None]
        found = [attention_loss(scores[mentions.sample // batch.labels, :, scores.shape[2] - back][:, :, None], share)
                 for scores in logits]
        return torch.stack(found).mean() * (shown > 0).sum()

    def _places(self, mentions: Mentions) -> Tuple[torch.Tensor, torch.Tensor]:
        """Returns normalised places (M, 3), 0 where unknown, and which are known (M,), by a view that learns places."""
        centre = constant(tuple(self.config.centre), torch.float32, mentions.place.device)
        known = torch.isfinite(mentions.place).all(1)
        place = torch.where(known[:, None], (mentions.place - centre) / self.config.scale, torch.zeros_like(mentions.place))
        if self._placing:
            known = known & self._knowing(mentions.patches).any(1)
        return place, known.float()

    def _turns(self, mentions: Mentions) -> Tuple[torch.Tensor, torch.Tensor]:
        """Returns turns (M, 2), 0 where unknown, and which are known (M,)."""
        told = torch.isfinite(mentions.turn).all(1)
        return torch.where(told[:, None], mentions.turn, torch.zeros_like(mentions.turn)), told.float()

    def _knowing(self, patches: torch.Tensor) -> torch.Tensor:
        """Returns, of the patches (M, P) that show an object, those that learn its place."""
        return patches & constant(self._placing, torch.bool, patches.device) if self._placing else patches


def _nothing(*heads: Optional[nn.Module]) -> torch.Tensor:
    """Returns 0, computed from every parameter: if one process names nothing, it still has the gradients that others wait for."""
    modules = [head for head in heads if head is not None]
    return 0.0 * torch.stack([parameter.float().sum() for module in modules for parameter in module.parameters()]).sum()


def _mean_between(words: torch.Tensor, mentions: Mentions) -> torch.Tensor:
    """Returns the mean of (M, T, H) over each mention's words."""
    slots = torch.arange(words.shape[1], device=words.device)
    inside = ((slots >= mentions.begin[:, None]) & (slots < mentions.end[:, None])).float()
    return torch.einsum("mth,mt->mh", words, inside) / inside.sum(1, keepdim=True).clamp(min=1)
