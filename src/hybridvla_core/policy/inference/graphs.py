"""The stages of a prediction as CUDA graphs: captured at the first prediction of a shape, replayed afterwards.

A graph repeats kernels on fixed addresses. Inputs are therefore copied into the buffers that were used at capture, outputs
appear in the same buffers every time, and texts are padded to a multiple of `TEXT_STEP` ids, so that few shapes occur. All
graphs share one memory pool.
"""
from __future__ import annotations

import dataclasses
import logging
from typing import Any, Callable, Dict, Generic, Hashable, List, Optional, Protocol, Tuple, TypeVar

import torch

from hybridvla_core.configuration import one_of
from hybridvla_core.errors import ConfigurationError, DeviceError
from hybridvla_core.policy.config import GRAPHS
from hybridvla_core.policy.inference.device_memory import ran_out
from hybridvla_core.policy.inference.stages import EagerStages

log = logging.getLogger(__name__)

TEXT_STEP = 16
WARM_UP = 2

T = TypeVar("T")


class Backend(Protocol):
    """Records a call and repeats it."""

    def capture(self, call: Callable[[], T]) -> Tuple[Callable[[], None], T]:
        """Returns (replay, what `call` returned while it was recorded)."""


class CudaBackend:
    """Recording and replaying with torch. Tests replace it with another backend."""

    def __init__(self) -> None:
        self._pool: Optional[torch.cuda._POOL_HANDLE] = None

    def capture(self, call: Callable[[], T]) -> Tuple[Callable[[], None], T]:
        """Returns (replay, what `call` returned while it was recorded)."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Libraries choose kernels and allocate their own memory at the first call; that cannot be recorded.
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = call()
        self._pool = self._pool or graph.pool()
        return graph.replay, outputs


class GraphStages(EagerStages):
    """Replays stages. A verifying pass always takes all rows: on a GPU rows are free and shapes are not.

    A graph keeps memory of its own. If there is too little, stages run directly from then on, which is reported once;
    required: this is refused instead.
    """

    dynamic_rows = False
    batch_sizes = (1, 4, 16)

    def __init__(self, backend: Optional[Backend] = None, required: bool = False) -> None:
        self._backend = backend or CudaBackend()
        self._required, self.without_graphs = required, False
        self._captured: Dict[Tuple[Hashable, str], Captured[Any]] = {}
        self._key: Hashable = None

    def text_width(self, longest: int) -> int:
        return -(-longest // TEXT_STEP) * TEXT_STEP

    def begin(self, key: Hashable) -> None:
        self._key = key

    def call(self, name: str, stage: Callable[..., T], *inputs: object) -> T:
        key = (self._key, name)
        if self.without_graphs:
            return stage(*inputs)
        if key not in self._captured:
            try:
                self._captured[key] = Captured(self._backend, stage, inputs)
            except (RuntimeError, MemoryError) as error:
                self._give_up(error)
                return stage(*inputs)
        return self._captured[key](inputs)

    def _give_up(self, error: BaseException) -> None:
        """Stops using graphs if memory was refused. A capture that ends early raises its own error about that."""
        before = error.__cause__ or error.__context__
        if not ran_out(error) and (before is None or not ran_out(before)):
            raise error
        if self._required:
            raise DeviceError("there is too little memory for CUDA graphs, and graphs is on; set graphs to auto or off, use "
                              "fewer views or noise_samples, or free the device of other programs") from error
        log.warning("too little memory for CUDA graphs; predictions run without them, which is slower and gives the same")
        self._captured.clear()
        self.without_graphs = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def forget(self, shape: Hashable) -> None:
        self._captured = {key: graph for key, graph in self._captured.items()
                          if not (isinstance(key[0], tuple) and key[0][0] == shape)}


class Captured(Generic[T]):
    """One stage, recorded on buffers of its own. The stage may change its inputs (the cache) and not only its outputs. The
    next call overwrites the inputs, so outputs that feed a later call are copied there."""

    def __init__(self, backend: Backend, stage: Callable[..., T], inputs: Tuple[object, ...]) -> None:
        self._inputs = map_tensors(inputs, torch.clone)
        self._replay, self._outputs = backend.capture(lambda: stage(*self._inputs))

    def __call__(self, inputs: Tuple[object, ...]) -> T:
        for buffer, given in zip(tensors_of(self._inputs), tensors_of(inputs)):
            if buffer.shape != given.shape:
                raise ValueError(f"a captured stage takes {tuple(buffer.shape)}, not {tuple(given.shape)}")
            buffer.copy_(given, non_blocking=True)
        self._replay()
        return self._outputs


def map_tensors(value: T, change: Callable[[torch.Tensor], torch.Tensor]) -> T:
    """Returns the same nest of tuples, dictionaries and dataclasses with other tensors."""
    if isinstance(value, torch.Tensor):
        return change(value)  # type: ignore[return-value]      # T is Tensor here
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return {key: map_tensors(item, change) for key, item in value.items()}  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{field.name: map_tensors(getattr(value, field.name), change)
                                             for field in dataclasses.fields(value)})
    return value


def tensors_of(value: object) -> List[torch.Tensor]:
    """Returns the tensors of a nest, always in the same order."""
    found: List[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, keep)
    return found


def choose_stages(graphs: str, device: torch.device) -> EagerStages:
    """Chooses stages. `auto`: CUDA graphs on a GPU, direct calls elsewhere; `on`: refuses other devices; `off`: direct calls."""
    one_of("graphs", graphs, GRAPHS)
    if graphs == "on" and device.type != "cuda":
        raise ConfigurationError(f"graphs is on, but the device is {device.type}; CUDA graphs need a GPU, use auto or off")
    if graphs == "off" or device.type != "cuda":
        return EagerStages()
    return GraphStages(required=graphs == "on")
