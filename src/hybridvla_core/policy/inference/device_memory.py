"""Too little memory, on a GPU or on the CPU, as one sentence that names what to lower."""
from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import Iterator

import torch

from hybridvla_core.errors import DeviceError
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.hybridvla import HybridVLA

#: What torch says in a plain RuntimeError when the CPU's allocator gets nothing.
CPU_WORDS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "Cannot allocate memory", "std::bad_alloc")


def ran_out(error: BaseException) -> bool:
    """Whether an error of torch or Python means that memory was refused."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_WORDS)


@contextmanager
def explained(config: ModelConfig, dtype: str, device: str) -> Iterator[None]:
    """What happens inside is done for a model on a device; refused memory becomes a DeviceError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        traceback.clear_frames(error.__traceback__)   # half of a model may hang there, and what follows needs a little
        raise DeviceError(out_of_memory(config, dtype, device)) from error


def out_of_memory(config: ModelConfig, dtype: str, device: str) -> str:
    """What to say when the weights and buffers of a model do not fit a device."""
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in HybridVLA(config).parameters())
        gib = count * (2 if dtype == "bfloat16" else 4) / 2 ** 30
        size = f" ({count / 1e9:.2f} billion parameters, {gib:.1f} GiB in {dtype})"
    except (RuntimeError, MemoryError):    # not even room to count
        size = ""
    on_cpu = torch.device(device).type == "cpu"
    if dtype == "float32":
        advice = "use dtype bfloat16"
    else:
        advice = "use fewer views or a smaller model" if on_cpu else "lower noise_samples, set graphs to off"
    return (f"{device} has too little memory for this model{size}; {advice}, or free "
            f"{'the computer' if on_cpu else 'the device'} of other programs")
