"""Batch that goes through the model in one step of one process."""
from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Callable, Dict, Iterator, Optional, TypeVar

import torch

from hybridvla_core.training.hybrid.draws import NoiseDraw

T = TypeVar("T")


@dataclass(frozen=True)
class Mentions:
    """M names of objects in the instructions of a batch; P patches of all views.

    Attributes:
        sample: (M,) row of the batch.
        begin, end: (M,) position of the name's first word id in the text, and one past its last.
        patches: (M, P) bool, which patches show the object.
        place: (M, 3) place of the object, m; NaN if not known.
        turn: (M, 2) cosine and sine of the yaw times the symmetry; NaN if not known.
    """

    sample: torch.Tensor
    begin: torch.Tensor
    end: torch.Tensor
    patches: torch.Tensor
    place: torch.Tensor
    turn: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """B samples of M moments, B / M consecutive ones of each; V views, T text, K chunk, A action dimensions.

    Attributes:
        pixels: Key of a fitted picture -> (M, V, S, S, 3) uint8.
        augment: (M, V, n) numbers that `augment.py` applies; None for no augmentation.
        text: (B, T) ids from after BOS to before the state, padded at the end.
        lengths: (B,) lengths of the texts.
        state: (B, A) normalised states.
        actions: (B, K, A) normalised actions.
        padding: (B, K) bool; True rows carry no label.
        tokens: (B, n) ids after the noise; the objective adds the markers of the sequence.
        targets: (B, n + 1) ids to be predicted: the tokens and the id that follows them.
        noise: Noise of the step, see `NoiseDraw`.
        mentions: Named objects; None if nothing is grounded.
        subtasks: (B,) numbers of the task steps, -1 if not known; None if nothing is grounded.
        even: Whether all texts are as long as the longest; None if not checked. `to` checks before it moves them.
    """

    pixels: Dict[Any, torch.Tensor]
    augment: Optional[torch.Tensor]
    text: torch.Tensor
    lengths: torch.Tensor
    state: torch.Tensor
    actions: torch.Tensor
    padding: torch.Tensor
    tokens: torch.Tensor
    targets: torch.Tensor
    noise: NoiseDraw
    mentions: Optional[Mentions] = None
    subtasks: Optional[torch.Tensor] = None
    even: Optional[bool] = None

    def __len__(self) -> int:
        return len(self.text)

    @property
    def labels(self) -> int:
        """Samples of each moment."""
        return len(self.text) // len(next(iter(self.pixels.values())))

    def to(self, device: torch.device) -> Batch:
        """Copies to a device without waiting if the memory is pinned. The augmentation stays on the host, which decides by it."""
        moved: Batch = _each(replace(self, augment=None), lambda tensor: tensor.to(device, non_blocking=True))
        even = self.even
        if even is None and self.lengths.device.type == "cpu":
            even = bool((self.lengths == self.text.shape[1]).all())
        return replace(moved, augment=self.augment, even=even)

    def pin_memory(self) -> Batch:
        """Copies to memory that the device can read directly; called by the data loader."""
        return _each(self, lambda tensor: tensor.pin_memory())

    def parts(self, size: int) -> Iterator[Batch]:
        """Yields the batch in parts of at most `size` samples, but at least one moment: no moment is split."""
        size = max(size - size % self.labels, self.labels)
        for begin in range(0, len(self), size):
            yield self._part(begin, min(begin + size, len(self)))

    def _part(self, begin: int, end: int) -> Batch:
        if (begin, end) == (0, len(self)):
            return self
        moments = slice(begin // self.labels, end // self.labels)
        shown: Dict[str, Any] = _each({"pixels": self.pixels, "augment": self.augment}, lambda tensor: tensor[moments])
        part: Batch = _each(replace(self, pixels={}, augment=None, mentions=None, even=None), lambda tensor: tensor[begin:end])
        part = replace(part, **shown)
        if self.mentions is None:
            return part
        inside = (self.mentions.sample >= begin) & (self.mentions.sample < end)
        mentions: Mentions = _each(self.mentions, lambda tensor: tensor[inside])
        return replace(part, mentions=replace(mentions, sample=mentions.sample - begin))


def _each(value: T, change: Callable[[torch.Tensor], torch.Tensor]) -> T:
    """Applies `change` to every tensor of a dataclass, including those in nested mappings and dataclasses."""
    if isinstance(value, torch.Tensor):
        return change(value)  # type: ignore[return-value]
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}  # type: ignore[return-value]
    if value is None or isinstance(value, bool):
        return value
    changed = {field.name: _each(getattr(value, field.name), change) for field in fields(value)}  # type: ignore[arg-type]
    return replace(value, **changed)  # type: ignore[type-var]
