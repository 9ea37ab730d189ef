"""Conversion between action values and token ids: 256 bins at the end of the vocabulary (docs/fidelity.md)."""
from __future__ import annotations

import numpy as np
import torch

from hybridvla_core.model.config import ModelConfig


class ActionTokens:
    """Converter of normalised action values in [-1, 1] to ids and back.

    Bin edges are linspace(-1, 1, bins); an id decodes to the centre of its bin.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.end = config.sequence.action_vocab_end - config.sequence.need_to_sub
        self.bins = config.bins
        self.edges = torch.from_numpy(np.linspace(-1.0, 1.0, self.bins))

    @property
    def first(self) -> int:
        """The lowest action id; ids first .. first + bins - 1 are actions."""
        return self.end - self.bins

    def valid(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns which ids (...) are action ids; a model may choose any token of its vocabulary."""
        return (ids >= self.first) & (ids < self.end)

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        """Converts values (...) to ids (...): end - digitize(clip(v, -1, 1))."""
        clipped = values.detach().to(torch.float64).clamp(-1.0, 1.0).contiguous()
        return self.end - torch.bucketize(clipped, self.edges, right=True)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """Converts ids (...) to bin centres (...), float64; ids outside the range give the first or last centre."""
        index = (self.end - ids - 1).clamp(0, self.bins - 2)
        centres = (self.edges[:-1] + self.edges[1:]) / 2
        return centres[index]
