"""How the stages of a prediction are run: directly here, as CUDA graphs in graphs.py."""
from __future__ import annotations

from typing import Callable, Hashable, List, Tuple, TypeVar

T = TypeVar("T")


class EagerStages:
    """Calls each stage. `dynamic_rows`: whether a later verifying pass may leave out the rows that are already exact.
    `batch_sizes`: the only batch sizes that are run, ascending; empty: any."""

    dynamic_rows = True
    batch_sizes: Tuple[int, ...] = ()

    def text_width(self, longest: int) -> int:
        """Returns how many ids a text takes: its own length, because no shape has to be static."""
        return longest

    def batches(self, count: int) -> List[Tuple[int, int]]:
        """Splits `count` observations into (how many, size to which they are padded), largest first."""
        if not self.batch_sizes:
            return [(count, count)]
        parts = []
        while count:
            size = next((size for size in self.batch_sizes if size >= count), self.batch_sizes[-1])
            parts.append((min(count, size), size))
            count -= parts[-1][0]
        return parts

    def begin(self, key: Hashable) -> None:
        """Notes that a prediction of this shape and mode starts."""

    def call(self, name: str, stage: Callable[..., T], *inputs: object) -> T:
        """Returns the output of the stage for the inputs."""
        return stage(*inputs)

    def forget(self, shape: Hashable) -> None:
        """Notes that the buffers of a shape are gone."""
