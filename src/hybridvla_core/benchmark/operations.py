"""Counts the operations of a stage, and on a GPU its kernels: what a pass costs in addition to its weights."""
from __future__ import annotations

from typing import Callable, Dict, Hashable, TypeVar

import torch
from torch._C._autograd import DeviceType
from torch.utils._python_dispatch import TorchDispatchMode

from hybridvla_core.benchmark.subject import Subject
from hybridvla_core.policy.inference.stages import EagerStages

T = TypeVar("T")


class OperationCounter(TorchDispatchMode):
    """Counts operations that compute or move numbers. Views do not count: they cost a CPU little and a GPU nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += not getattr(func, "is_view", False)
        return func(*args, **(kwargs or {}))


class CountedStages(EagerStages):
    """Runs stages as `inner` does, and counts them."""

    def __init__(self, inner: EagerStages, kernels: bool) -> None:
        self._inner, self._kernels = inner, kernels
        self.dynamic_rows, self.batch_sizes = inner.dynamic_rows, inner.batch_sizes
        self.counts: Dict[str, int] = {}

    def text_width(self, longest: int) -> int:
        return self._inner.text_width(longest)

    def begin(self, key: Hashable) -> None:
        self._inner.begin(key)

    def call(self, name: str, stage: Callable[..., T], *inputs: object) -> T:
        if self._kernels:
            torch.cuda.synchronize()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
                result = self._inner.call(name, stage, *inputs)
                torch.cuda.synchronize()
            found = [e for e in profiler.events() or () if e.device_type == DeviceType.CUDA]
            self.counts[name] = self.counts.get(name, 0) + len(found)
            return result
        with OperationCounter() as counter:
            result = self._inner.call(name, stage, *inputs)
        self.counts[name] = self.counts.get(name, 0) + counter.count
        return result


@torch.inference_mode()
def count_operations(subject: Subject) -> Dict[str, Dict[str, int]]:
    """Counts operations of one full prediction with a single verifying pass.

    Args:
        subject: Subject that makes the prediction.

    Returns:
        `operations` of each stage, called directly, and their sum as `all`; on a GPU also `kernels`, as it really runs (with
        graphs, if they are on).
    """
    path, inputs = subject.path, subject.inputs(subject.pixels())
    before, given = path.stages, path.passes_given
    path.passes_given = 1
    counted = {}
    try:
        kinds = {"operations": CountedStages(EagerStages(), False)}
        if subject.device.type == "cuda":
            path.run(inputs, all_tokens=False)      # records the graphs before anything is counted
            kinds["kernels"] = CountedStages(before, True)
        for kind, stages in kinds.items():
            path.stages = stages
            path.run(inputs, all_tokens=False)
            counts = {("decode" if name == "verify" else name): count for name, count in stages.counts.items()}
            counted[kind] = {**counts, "all": sum(counts.values())}
    finally:
        path.stages, path.passes_given = before, given
    return counted
