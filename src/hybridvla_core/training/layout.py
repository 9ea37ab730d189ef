"""The training sequence: many labels and noise copies of one image in a single pass.

One image prefix is shared by L labels (instructions), and each label's prefix by C noise copies and one autoregressive
branch, under a block mask (the paper's type-1 sequence, section 3.2, with the repeated parts written once):

    BOS patches | label 1: text BOD state | t x | t x | ... | t x EOD a_1 .. a_A | label 2: ...

Every branch sees only its own label and its own tokens, at the positions it has at inference, so the loss is the same as
for L * (C + 1) separate sequences.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Layout:
    """Sizes of a training sequence.

    Attributes:
        patches: Of all views.
        text: Ids of the prompt.
        labels: An image.
        copies: Noisy actions a label.
        chunk: Actions.
        action: Tokens of one action.
    """

    patches: int
    text: int
    labels: int
    copies: int
    chunk: int
    action: int

    @property
    def prefix(self) -> int:
        """BOS and patches."""
        return 1 + self.patches

    @property
    def label_prefix(self) -> int:
        """Text, BOD and state."""
        return self.text + 2

    @property
    def branch(self) -> int:
        """Timestep and noisy action tokens."""
        return 1 + self.chunk

    @property
    def block(self) -> int:
        """All tokens of one label. The autoregressive branch is t, x, EOD and A action tokens; absent with A = 0."""
        return self.label_prefix + self.copies * self.branch + (self.branch + 1 + self.action if self.action else 0)

    @property
    def length(self) -> int:
        return self.prefix + self.labels * self.block

    @property
    def noise_at(self) -> torch.Tensor:
        """Offsets within a block of the x tokens of each copy, (C, K)."""
        starts = self.label_prefix + self.branch * torch.arange(self.copies) + 1
        return starts[:, None] + torch.arange(self.chunk)[None, :]

    @property
    def tokens_at(self) -> torch.Tensor:
        """Offsets within a block whose hidden states predict a_1 .. a_A and EOS, (A + 1,)."""
        start = self.label_prefix + (self.copies + 1) * self.branch
        return start + torch.arange(self.action + 1)

    def positions(self) -> torch.Tensor:
        """Position of every token as it counts at inference, (length,)."""
        block = list(range(self.label_prefix))
        for _ in range(self.copies):
            block += [self.label_prefix + i for i in range(self.branch)]
        block += [self.label_prefix + i for i in range(self.block - len(block))]
        start = torch.tensor(block) + self.prefix
        return torch.cat([torch.arange(self.prefix), start.repeat(self.labels)])

    def mask(self) -> torch.Tensor:
        """True where a query (row) may attend to a key (column), (1, 1, length, length)."""
        return _mask(self)


@lru_cache(maxsize=8)
def _mask(layout: Layout) -> torch.Tensor:
    # Two numbers for each token tell what it may see: its label (-1 = shared) and its branch (-1 = label prefix).
    label = torch.full((layout.length,), -1)
    branch = torch.full((layout.length,), -1)
    for index in range(layout.labels):
        start = layout.prefix + index * layout.block
        label[start:start + layout.block] = index
        for copy in range(layout.copies):
            at = start + layout.label_prefix + copy * layout.branch
            branch[at:at + layout.branch] = copy
        branch[start + layout.label_prefix + layout.copies * layout.branch:start + layout.block] = layout.copies
    causal = torch.ones(layout.length, layout.length, dtype=torch.bool).tril()
    same_label = (label[None, :] == label[:, None]) | (label[None, :] == -1)
    same_branch = (branch[None, :] == branch[:, None]) | (branch[None, :] == -1)
    return (causal & same_label & same_branch)[None, None]
