"""How the stages of a prediction are run. Here: directly. As CUDA graphs: graphs.py."""
from __future__ import annotations

from typing import Callable, Hashable, TypeVar

T = TypeVar("T")


class EagerStages:
    """Calls each stage. `dynamic_rows`: a later verifying pass may leave out the rows that are exact already."""

    dynamic_rows = True

    def text_width(self, longest: int) -> int:
        """How many ids a text takes: its own length, because no shape has to be static."""
        return longest

    def begin(self, key: Hashable) -> None:
        """A prediction of this shape and mode starts."""

    def call(self, name: str, stage: Callable[..., T], *inputs: object) -> T:
        """Returns what the stage makes of the inputs."""
        return stage(*inputs)

    def forget(self, shape: Hashable) -> None:
        """The buffers of a shape are gone."""
