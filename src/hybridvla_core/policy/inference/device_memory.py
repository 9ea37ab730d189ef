"""Errors of a missing device and of too little memory on a device, as one sentence that names what to change."""
from __future__ import annotations

import os
import traceback
from contextlib import contextmanager
from typing import Iterator

import torch

from hybridvla_core.errors import ConfigurationError, DeviceError
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.hybridvla import HybridVLA

#: What torch says in a plain RuntimeError when the CPU's allocator gets no memory.
CPU_WORDS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "Cannot allocate memory", "std::bad_alloc")


def check_device(name: str) -> None:
    """Checks that a device can be used here.

    Args:
        name: `cpu` or `cuda`, as in options and policy configurations.

    Raises:
        ConfigurationError: for another name, for a GPU that torch does not find, and for any GPU but the first that it finds:
            streams, graphs, events and compiled kernels use the current device of a thread, and nobody sets it.
    """
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or name.endswith(":"):
        raise ConfigurationError(f"device {name!r}: use cpu or cuda")
    if kind == "cpu":
        return
    if number and int(number):
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        wanted = shown[int(number)].strip() if int(number) < len(shown) else str(int(number))
        raise ConfigurationError(f"device {name!r}: only the first GPU that torch sees is used; start with CUDA_VISIBLE_DEVICES="
                                 f"{wanted} in the environment, which makes this one the first, and device cuda")
    if not torch.cuda.is_available():
        raise ConfigurationError(f"device {name!r}: there is no GPU that torch can use here ({_why_no_gpu()}); use --device cpu "
                                 "(device: cpu in a policy configuration), or ask `hybridvla doctor`")


def _why_no_gpu() -> str:
    """Returns torch's explanation for the missing GPU, shortened."""
    if torch.version.cuda is None:
        return "this torch is the one for processors"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        said = str(error).strip()
        if "too old" in said or "driver version is insufficient" in said:
            return (f"the graphics driver is older than torch's CUDA {torch.version.cuda}; update the driver, or install a torch "
                    "made for it")
        return said.splitlines()[0].rstrip(".") if said else type(error).__name__
    return "no card is visible"


def ran_out(error: BaseException) -> bool:
    """Returns whether an error of torch or Python means that memory was refused."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_WORDS)


@contextmanager
def explained(config: ModelConfig, dtype: str, device: str) -> Iterator[None]:
    """Runs the code inside for a model on a device; turns refused memory into a DeviceError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        traceback.clear_frames(error.__traceback__)   # it may hold half of a model, and the code below needs some memory
        raise DeviceError(out_of_memory(config, dtype, device)) from error


def out_of_memory(config: ModelConfig, dtype: str, device: str) -> str:
    """Returns the message for a model whose weights and buffers do not fit a device."""
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in HybridVLA(config).parameters())
        gib = count * (2 if dtype == "bfloat16" else 4) / 2 ** 30
        size = f" ({count / 1e9:.2f} billion parameters, {gib:.1f} GiB in {dtype})"
    except (RuntimeError, MemoryError):    # not even enough memory to count
        size = ""
    on_cpu = torch.device(device).type == "cpu"
    if dtype == "float32":
        advice = "use dtype bfloat16"
    else:
        advice = "use fewer views or a smaller model" if on_cpu else "lower noise_samples, set graphs to off"
    return (f"{device} has too little memory for this model{size}; {advice}, or free "
            f"{'the computer' if on_cpu else 'the device'} of other programs")
