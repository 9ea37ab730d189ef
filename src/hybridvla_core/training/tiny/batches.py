"""Training batches: images with several instructions each, drawn so that every phase of the task is seen enough."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Sequence

import numpy as np
import torch

from hybridvla_core.data.shards import ShardSet
from hybridvla_core.training.augment import augment_images, augment_state
from hybridvla_core.training.tiny.config import TrainingConfig
from hybridvla_core.training.tiny.targets import named_objects, patch_targets
from hybridvla_core.transforms.normalise import Scale


@dataclass(frozen=True)
class Batch:
    """N images with L labels each.

    Attributes:
        pixels: (N, 3, H, W) in [0, 1].
        text: (N, L, T) ids.
        state: (N, A) normalised.
        action: (N, L, A) normalised.
        phase: (N, L).
        patches: Targets of the auxiliary losses, by patch.
        named: Targets of the auxiliary losses, by name.
    """

    pixels: torch.Tensor
    text: torch.Tensor
    state: torch.Tensor
    action: torch.Tensor
    phase: torch.Tensor
    patches: Dict[str, torch.Tensor]
    named: Dict[str, torch.Tensor]


class BatchSource:
    """Draws batches; everything random comes from one seed, and shards may be appended between draws.

    text: (16, T) token ids of the sixteen instructions. grid: patches along one side of the image.
    """

    def __init__(self, shards: ShardSet, config: TrainingConfig, action: Scale, state: Scale,
                 text: torch.Tensor, grid: int) -> None:
        self.shards, self.config, self.text, self.grid = shards, config, text, grid
        self.action_scale, self.state_scale = action, state
        self.first_part = len(shards)
        self.rng = np.random.default_rng(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        phase = shards.column("phase")
        share = np.bincount(phase.ravel(), minlength=len(config.phase_weights)) / phase.size
        self.label_weight = np.asarray(config.phase_weights) / np.maximum(share, 1e-4)

    def draw(self, images: int, labels: int) -> Batch:
        samples = self.shards.take(self._indices(images))
        chosen = self._labels(samples["phase"], labels)
        rows = np.arange(images)[:, None]
        state, action = augment_state(samples["state"].astype(np.float64), samples["target"][rows, chosen]
                                      .astype(np.float64), self.config.augment, self.rng)
        return Batch(
            pixels=augment_images(torch.from_numpy(samples["images"]), self.config.augment, self.generator),
            text=self.text[torch.from_numpy(chosen)],
            state=torch.from_numpy(self.state_scale.normalise(state)).float(),
            action=torch.from_numpy(self.action_scale.normalise(action)).float(),
            phase=torch.from_numpy(samples["phase"][rows, chosen].astype(np.int64)),
            patches=patch_targets(samples, self.grid), named=named_objects(samples, chosen, self.grid))

    def _indices(self, count: int) -> np.ndarray:
        """State-sampled images, and the configured share of rollouts once there are any."""
        indices = self.rng.integers(0, self.first_part, count)
        added = len(self.shards) - self.first_part
        if added:
            from_rollouts = self.rng.random(count) < self.config.dagger.share
            indices[from_rollouts] = self.first_part + self.rng.integers(0, added, from_rollouts.sum())
        return indices

    def _labels(self, phase: np.ndarray, count: int) -> np.ndarray:
        """Instructions (N, count) without repetition, weighted by their phase (Gumbel top-k)."""
        keys = np.log(self.label_weight[phase]) + self.rng.gumbel(size=phase.shape)
        return np.argpartition(-keys, count - 1, axis=1)[:, :count] if count < phase.shape[1] else np.argsort(-keys, 1)


def instruction_ids(encode: Callable[[str], Sequence[int]], instructions: Sequence[str]) -> torch.Tensor:
    """Token ids (len, T) of instructions that must all be equally long."""
    ids = [list(encode(text)) for text in instructions]
    if len({len(row) for row in ids}) != 1:
        raise ValueError("the instructions of one recipe must have the same number of tokens")
    return torch.tensor(ids)
