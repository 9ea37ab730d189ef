"""Static buffers for one shape of prediction: the cache, and the slots, mask and positions of every kind of pass.

Slots: the prefix (BOS ... state), then the denoising rows [t, x_1 .. x_K] of each noise sample, then the branch
[t, x_1 .. x_K, EOD, separators, a_1 .. a_(A-1)] that decodes. Both follow the same prefix at the same positions and do not
attend to each other, so they can travel in one pass. A prefix shorter than its slots leaves unused slots, to which no later
row attends.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import torch

from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.layers import KVCache, LastRows, Rotary, mask_bias
from hybridvla_core.model.sequence import branch_length

#: Rows of a bias start at multiples of this many numbers; otherwise a GPU's attention copies the bias in every layer.
ALIGNED = 8


@dataclass(frozen=True)
class Shape:
    """The numbers that fix every tensor's size.

    Attributes:
        batch: Batch size of the prediction.
        prefix: Number of slots of BOS ... state.
        samples: Number of noise samples.
        padded: Whether prefixes may be shorter than their slots.
    """

    batch: int
    prefix: int
    samples: int = 1
    padded: bool = False


@dataclass
class PassPlan:
    """What one kind of pass needs besides its rows.

    Attributes:
        rotary: Rotary embedding of the rows' positions.
        bias: Bias of the mask, (B or 1, 1, S, T); None: causal.
        write_at: Slots that are written.
        last: Rows that are wanted of a pass that is mostly prefix; None: every row.
    """

    rotary: Rotary
    bias: Optional[torch.Tensor]
    write_at: slice
    last: Optional[LastRows] = None

    def rows(self, start: int) -> PassPlan:
        """Returns the same pass without its first `start` rows, which an earlier pass has left in the cache."""
        rotary = object.__new__(Rotary)
        rotary.cos, rotary.sin = self.rotary.cos[..., start:, :], self.rotary.sin[..., start:, :]
        rotary.width = self.rotary.width
        bias = None if self.bias is None else self.bias[..., start:, :]
        return PassPlan(rotary, bias, slice(self.write_at.start + start, self.write_at.stop))


@dataclass
class LaterPlans:
    """The passes after a prefix.

    Attributes:
        denoise: Denoising rows.
        ride: Denoising rows with a branch.
        branch: The branch alone.
    """

    denoise: PassPlan
    ride: PassPlan
    branch: PassPlan


class Workspace:
    """The buffers of a shape, allocated once and reused by every prediction of that shape."""

    def __init__(self, config: ModelConfig, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.device, self.dtype = shape, device, dtype
        self.group = 1 + config.chunk
        self.denoise_rows = shape.samples * self.group
        self.branch_rows = branch_length(config) + config.action_dim - 1
        first, second = shape.prefix, shape.prefix + self.denoise_rows
        total = second + self.branch_rows
        self.cache = KVCache(config.decoder, shape.batch, total, dtype, device)
        self.slots = (first, second, total)
        positions = torch.arange(total, device=device)
        self.table = Rotary(config.decoder, positions, dtype)
        self._offsets, self._open = self._structure(positions)
        self._columns = torch.arange(self._open.shape[1], device=device)
        self.prefix_plan = PassPlan(self.table.select(positions[:first]), None, slice(0, first))
        within = torch.ones(first, self._open.shape[1], dtype=torch.bool, device=device).tril_()
        self._prefix_bias = mask_bias(within, dtype)[None, None]
        self._opening: Dict[bool, PassPlan] = {}
        if not shape.padded:
            self._prepare(self._offsets + first, self._open)

    def set_lengths(self, lengths: torch.Tensor) -> None:
        """Sets lengths (B,): how many prefix slots each row of the batch uses. Only for a padded shape."""
        used = (self._columns[None, :] < lengths[:, None]) | (self._columns[None, :] >= self.shape.prefix)
        self._prepare(lengths[:, None] + self._offsets[None, :], self._open[None] & used[:, None, :])

    def opening(self, with_branch: bool) -> PassPlan:
        """Plans the pass over the prefix and, at the same time, the first denoising rows.

        Only the rows after the prefix are wanted from this pass.

        Args:
            with_branch: Whether the branch follows them.

        Returns:
            The plan, made at its first use.
        """
        if with_branch not in self._opening:
            self._opening[with_branch] = self._open_plan(self.behind.ride if with_branch else self.behind.denoise,
                                                         causal=not with_branch)
        return self._opening[with_branch]

    def _structure(self, positions: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Returns positions after the prefix (tail rows,) and which row attends to which (tail rows, slots and unused ones)."""
        first, second, total = self.slots
        tail = positions[:total - first]
        denoising = tail < self.denoise_rows
        group = torch.where(denoising, tail // self.group, torch.full_like(tail, -1))
        offsets = torch.where(denoising, tail % self.group, tail - self.denoise_rows)
        same = (group[:, None] == group[None, :]) & (offsets[:, None] >= offsets[None, :])
        prefix = torch.ones(total - first, first, dtype=torch.bool, device=self.device)
        unused = torch.zeros(total - first, -total % ALIGNED, dtype=torch.bool, device=self.device)
        return offsets, torch.cat([prefix, same, unused], dim=1)

    def _prepare(self, positions: torch.Tensor, mask: torch.Tensor) -> None:
        first, second, total = self.slots
        bias = mask_bias(mask, self.dtype)
        self._tail_bias = bias[None, None] if bias.dim() == 2 else bias[:, None]
        self._opening = {}
        split = self.denoise_rows

        def plan(rows: slice, reach: int, write_at: slice) -> PassPlan:
            return PassPlan(self.table.select(positions[..., rows]), self._tail_bias[:, :, rows, :reach], write_at)

        self.behind = LaterPlans(denoise=plan(slice(0, split), second, slice(first, second)),
                                 ride=plan(slice(0, None), total, slice(first, total)),
                                 branch=plan(slice(split, None), total, slice(second, total)))

    def _open_plan(self, behind: PassPlan, causal: bool) -> PassPlan:
        """Plans the prefix's rows before those of `behind`. causal: a single denoising group follows, if anything does."""
        assert behind.bias is not None, "rows behind a prefix are masked"
        reach, rows = behind.write_at.stop, behind.bias.shape[2]
        bias = None
        if not causal or self.shape.padded or self.shape.samples > 1:
            tail = self._tail_bias[:, :, :rows]
            bias = torch.cat([self._prefix_bias.expand(len(tail), -1, -1, -1), tail], dim=2)[..., :reach]
        rotary = self.prefix_plan.rotary.followed_by(behind.rotary)
        return PassPlan(rotary, bias, slice(0, reach), LastRows(rows, behind.bias))
