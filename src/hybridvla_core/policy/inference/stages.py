"""How the stages of a prediction are run and timed. Here: directly. As CUDA graphs: policy/graphs.py."""
from __future__ import annotations

import time
from typing import Any, Callable, Dict, Hashable, List, Tuple

import torch

from hybridvla_core.errors import ConfigurationError


class EagerStages:
    """Calls each stage. `dynamic_rows`: a later verifying pass may leave out the rows that are exact already."""

    dynamic_rows = True

    def text_width(self, longest: int) -> int:
        """How many ids a text takes: its own length, because no shape has to be static."""
        return longest

    def begin(self, key: Hashable) -> None:
        """A prediction of this shape and mode starts."""

    def call(self, name: str, stage: Callable[..., Any], *inputs: Any) -> Any:
        return stage(*inputs)

    def forget(self, shape: Hashable) -> None:
        """The buffers of a shape are gone."""


def choose_stages(graphs: str, device: torch.device) -> EagerStages:
    """`auto`: CUDA graphs on a GPU and direct calls elsewhere; `on` refuses other devices; `off`: direct calls."""
    if graphs not in ("auto", "on", "off"):
        raise ConfigurationError(f"graphs is {graphs!r}; use auto, on or off")
    if graphs == "on" and device.type != "cuda":
        raise ConfigurationError(f"graphs is on, but the device is {device.type}; CUDA graphs need a GPU, use auto or off")
    if graphs == "off" or device.type != "cuda":
        return EagerStages()
    from hybridvla_core.policy.inference.graphs import GraphStages

    return GraphStages()


class StageClock:
    """Time of the stages of a prediction, ms. On a GPU by events, read once at the end, so that no stage waits."""

    def __init__(self, device: torch.device) -> None:
        self._events = device.type == "cuda"
        self._marks: List[Tuple[str, Any]] = [("", self._mark())]

    def lap(self, name: str) -> None:
        self._marks.append((name, self._mark()))

    def per(self, count: int) -> Dict[str, float]:
        """Stage times divided by the size of the batch."""
        if self._events:
            torch.cuda.synchronize()
        pairs = zip(self._marks, self._marks[1:])
        return {name: self._between(before, after) / count for (_, before), (name, after) in pairs}

    def _mark(self) -> Any:
        if not self._events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, before: Any, after: Any) -> float:
        return before.elapsed_time(after) if self._events else (after - before) * 1e3
