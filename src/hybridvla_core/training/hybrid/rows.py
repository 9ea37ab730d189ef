"""The training sequence of a batch: one prefix per sample, shared by all noisy copies of its action under a block mask.

    kind 1, 3   BOS patches text BOD state | t x EOD a_1 .. a_A | t x EOD a_1 .. a_A | ...
    kind 2      BOS patches text state     | t x a_1 .. a_A     | ...
    kind 4      BOS patches text state a_1 .. a_A | BOD t x     | ...

Every branch attends to the prefix and itself, at the positions it would have alone after the prefix. So losses and gradients
are those of one sequence per copy (the released trainer runs vision and language that often). Texts of one batch differ in
length; no row attends to the padding between, and positions do not count it.

Samples of one moment also share BOS and patches. The rest follows sample by sample, and attends to nothing of another
sample:

    BOS patches | text BOD state, its copies | text BOD state, its copies | ...
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import List, Optional, Tuple

import torch

from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.layers import constant

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Plan:
    """Sizes of the parts of the sequence, in rows.

    Attributes:
        patches: Patches of all views.
        text: Longest text of the batch, including markers of the prefix.
        state: 1 if the state has its own row.
        prefix_tokens: Action tokens in the prefix (kind 4).
        copies: Noisy copies of the action.
        lead: Markers before the timestep (kind 4).
        noise: Timestep and chunk; 0 without diffusion.
        markers: Markers between noise and tokens.
        tokens: Action tokens of a branch.
        copies_decode: Whether the tokens follow every copy.
        own: Whether there is one more branch, for the tokens alone.
    """

    patches: int
    text: int
    state: int
    prefix_tokens: int
    copies: int
    lead: int
    noise: int
    markers: int
    tokens: int
    copies_decode: bool
    own: bool

    @property
    def text_at(self) -> int:
        """First row of the text."""
        return 1 + self.patches

    @property
    def prefix(self) -> int:
        """Number of rows that all branches attend to."""
        return self.text_at + self.text + self.state + self.prefix_tokens

    @property
    def decoding(self) -> int:
        """Number of rows of a branch that ends in tokens."""
        return self.lead + self.noise + self.markers + self.tokens

    @property
    def branches(self) -> Tuple[int, ...]:
        """Number of rows of every branch."""
        copy = self.decoding if self.copies_decode else self.lead + self.noise
        return (copy,) * self.copies + ((self.decoding,) if self.own else ())

    @property
    def length(self) -> int:
        return self.prefix + sum(self.branches)

    def starts(self) -> List[int]:
        """Returns the first row of every branch."""
        return [self.prefix + sum(self.branches[:index]) for index in range(len(self.branches))]

    def noise_at(self, device: torch.device = CPU) -> torch.Tensor:
        """Returns the rows of x_1 .. x_K of every copy, (C, K)."""
        first = constant(tuple(self.starts()[:self.copies]), torch.long, device)[:, None] + self.lead + 1
        return first + torch.arange(self.noise - 1, device=device)[None]

    def prefix_end(self, lengths: torch.Tensor) -> torch.Tensor:
        """Returns the row of the state, or of the last word, (B,); lengths: (B,) lengths of the texts."""
        if self.state:
            return torch.full_like(lengths, self.text_at + self.text)
        return self.text_at + lengths - 1

    def tokens_from(self, lengths: torch.Tensor) -> torch.Tensor:
        """Returns the rows whose hidden states predict a_1 .. a_A and what follows them, (B, branches that decode, A + 1)."""
        end = self.prefix_end(lengths)[:, None]
        if self.prefix_tokens:
            first = self.prefix - self.prefix_tokens
            inside = first + torch.arange(self.prefix_tokens, device=lengths.device)
            return torch.cat([end, inside.expand(len(end), -1)], dim=1)[:, None]
        starts = self.starts()
        decoding = (starts[:self.copies] if self.copies_decode else []) + (starts[self.copies:] if self.own else [])
        rows = constant(tuple(decoding), torch.long, lengths.device)[:, None] + self.decoding - self.tokens
        rows = rows + torch.arange(-1, self.tokens, device=lengths.device)
        rows = rows.expand(len(end), -1, -1)
        if self.noise + self.markers:
            return rows
        return torch.cat([end[:, None].expand(-1, rows.shape[1], -1), rows[..., 1:]], dim=-1)

    def positions(self, lengths: torch.Tensor, even: Optional[bool] = None) -> torch.Tensor:
        """Computes the position that every row has at inference.

        Args:
            lengths: (B,) lengths of the texts.
            even: Whether all are as long as the plan's; None reads the numbers, which makes the host wait for a GPU.

        Returns:
            (B, S), or (S,) if all texts are equally long.
        """
        offsets = _offsets(self, lengths.device)
        if self._even(lengths, even):
            return offsets
        behind = torch.arange(self.length, device=lengths.device) >= self.text_at + self.text
        return offsets - behind * (self.text - lengths)[:, None]

    def mask(self, lengths: torch.Tensor, even: Optional[bool] = None) -> torch.Tensor:
        """Returns True where a query (row) may attend to a key (column), (B or 1, 1, S, S); `even` as in `positions`."""
        fixed = _mask(self, lengths.device)[None, None]
        if self._even(lengths, even):
            return fixed
        slots = torch.arange(self.length, device=lengths.device)
        unused = (slots >= self.text_at + lengths[:, None]) & (slots < self.text_at + self.text)
        # A row that no row attends to must itself attend to something to stay finite.
        return fixed & ~unused[:, None, None] | torch.eye(self.length, dtype=torch.bool, device=lengths.device)

    def _even(self, lengths: torch.Tensor, known: Optional[bool]) -> bool:
        return bool((lengths == self.text).all()) if known is None else known


@lru_cache(maxsize=32)
def _offsets(plan: Plan, device: torch.device) -> torch.Tensor:
    prefix = torch.arange(plan.prefix)
    return torch.cat([prefix] + [plan.prefix + torch.arange(rows) for rows in plan.branches]).to(device)


@lru_cache(maxsize=32)
def _mask(plan: Plan, device: torch.device) -> torch.Tensor:
    branch = torch.full((plan.length,), -1)
    for index, (start, rows) in enumerate(zip(plan.starts(), plan.branches)):
        branch[start:start + rows] = index
    causal = torch.ones(plan.length, plan.length, dtype=torch.bool).tril()
    return (causal & ((branch[None, :] == branch[:, None]) | (branch[None, :] == -1))).to(device)


def shared_mask(mask: torch.Tensor, first: int, labels: int) -> torch.Tensor:
    """Builds the mask for samples of a moment that follow each other.

    Args:
        mask: (B or 1, 1, S, S) mask of each sample alone.
        first: Number of rows that the samples of a moment share.
        labels: Number of samples per moment.

    Returns:
        (B / labels or 1, 1, L, L) with L = first + labels (S - first).
    """
    if labels == 1:
        return mask
    alone = mask.expand(max(len(mask), labels), -1, -1, -1)[:, 0].unflatten(0, (-1, labels))
    behind = alone[:, :, first:]
    same = torch.eye(labels, dtype=torch.bool, device=mask.device)[:, None, :, None]
    own = (behind[..., None, first:] & same).flatten(3, 4).flatten(1, 2)
    below = torch.cat([behind[..., :first].flatten(1, 2), own], dim=2)
    above = alone[:, 0, :first, :first]
    return torch.cat([torch.cat([above, own.new_zeros(len(own), first, own.shape[2])], dim=2), below], dim=1)[:, None]


def shared_positions(positions: torch.Tensor, first: int, labels: int) -> torch.Tensor:
    """Returns the positions accordingly: (B / labels, L) or (L,), from (B, S) or (S,)."""
    if labels == 1:
        return positions
    if positions.dim() == 1:
        return torch.cat([positions[:first], positions[first:].repeat(labels)])
    return torch.cat([positions[::labels, :first], positions[:, first:].reshape(len(positions) // labels, -1)], dim=1)


def markers_behind_text(config: ModelConfig) -> Tuple[int, ...]:
    """Returns the ids between the words and the state."""
    return config.sequence.behind_text


def markers_before_tokens(config: ModelConfig) -> Tuple[int, ...]:
    """Returns the ids between the noise, or the prefix, and the first action token of a branch."""
    return config.sequence.before_tokens


def token_behind_actions(config: ModelConfig) -> int:
    """Returns the id that follows the last action token: the end, or in kind 4 the begin of the noise."""
    return config.sequence.bod if config.sequence.kind == 4 else config.sequence.eos


def plan_of(config: ModelConfig, text: int, copies: int, diffusion: bool, tokens: bool, own: bool) -> Plan:
    """Plans the rows of a batch.

    Args:
        config: Architecture, whose sequence determines the plan.
        text: Length of the longest text.
        copies: Noisy copies of each action.
        diffusion: Whether there is noise at all.
        tokens: Whether there are action tokens.
        own: Whether the tokens follow their own condition instead of every copy.

    Returns:
        The number of rows of each kind, and which tokens follow what.
    """
    sequence, actions = config.sequence, config.action_dim
    in_prefix = tokens and sequence.kind == 4
    behind = tokens and not in_prefix
    alone = behind and (own or not diffusion)
    return Plan(
        patches=config.views * config.patches, text=text, state=int(sequence.state_row),
        prefix_tokens=actions if in_prefix else 0, copies=copies if diffusion else 0,
        lead=int(sequence.kind == 4 and diffusion), noise=1 + config.chunk if diffusion else 0,
        markers=len(markers_before_tokens(config)) if behind else 0, tokens=actions if behind else 0,
        copies_decode=behind and not alone, own=alone)
