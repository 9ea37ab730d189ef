"""How the stages of a prediction are run. Here: directly. As CUDA graphs: graphs.py."""
from __future__ import annotations

from typing import Callable, Hashable, List, Tuple, TypeVar

T = TypeVar("T")


class EagerStages:
    """Calls each stage. `dynamic_rows`: a later verifying pass may leave out the rows that are exact already.
    `batch_sizes`: the only ones that are run, ascending; empty: any."""

    dynamic_rows = True
    batch_sizes: Tuple[int, ...] = ()

    def text_width(self, longest: int) -> int:
        """How many ids a text takes: its own length, because no shape has to be static."""
        return longest

    def batches(self, count: int) -> List[Tuple[int, int]]:
        """`count` observations as (how many, size they are filled up to), largest first."""
        if not self.batch_sizes:
            return [(count, count)]
        parts = []
        while count:
            size = next((size for size in self.batch_sizes if size >= count), self.batch_sizes[-1])
            parts.append((min(count, size), size))
            count -= parts[-1][0]
        return parts

    def begin(self, key: Hashable) -> None:
        """A prediction of this shape and mode starts."""

    def call(self, name: str, stage: Callable[..., T], *inputs: object) -> T:
        """Returns what the stage makes of the inputs."""
        return stage(*inputs)

    def forget(self, shape: Hashable) -> None:
        """The buffers of a shape are gone."""
