"""Choice of precision: which one a device supports, and conversion of a decoder's blocks to it."""
from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Tuple

import torch
from torch import nn

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.joined import Joinable
from hybridvla_core.model.shrunk.layers import ShrunkLinear, shrunk
from hybridvla_core.processor import slowness

if TYPE_CHECKING:
    from hybridvla_core.model.decoder import Decoder

log = logging.getLogger(__name__)

#: Precisions that a policy's configuration may name, and one more for reports.
PRECISIONS, EMULATED = ("full", "fp8", "int8", "int4"), "fp8-emulated"
#: First compute capability with 8-bit floats, and with bfloat16.
FP8_CAPABILITY, BFLOAT16_CAPABILITY = (8, 9), (8, 0)


def check_precision(precision: str, device: str, dtype: str) -> None:
    """Checks that a device supports a precision.

    Args:
        precision: One of `PRECISIONS`, or `EMULATED`.
        device: torch's name of the device.
        dtype: Type of everything else, `float32` or `bfloat16`.

    Raises:
        ConfigurationError: The precision is unknown, or torch, the card or the processor does not support it.
    """
    if precision not in (*PRECISIONS, EMULATED):
        raise ConfigurationError(f"precision is {precision!r}; use one of {', '.join(PRECISIONS)}")
    if not precision.startswith("fp8"):
        return
    if not hasattr(torch, "float8_e4m3fn"):
        raise ConfigurationError(f"precision {precision}: torch {torch.__version__} has no 8-bit floats; use torch 2.4 or newer, "
                                 "or precision int8")
    if precision == EMULATED:
        return
    kind = torch.device(device).type
    if kind != "cuda":
        raise ConfigurationError(f"precision fp8 needs a GPU with 8-bit floats, and the device is {kind}; use precision int8 or "
                                 f"full (`hybridvla bench --precision-report {EMULATED}` says what fp8 would change)")
    if torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise ConfigurationError(f"precision fp8: {torch.cuda.get_device_name(device)} has no 8-bit floats (they came with "
                                 f"compute capability {'.'.join(map(str, FP8_CAPABILITY))}); use precision int8, int4 or full")
    if dtype != "bfloat16":
        raise ConfigurationError(f"precision fp8 multiplies into bfloat16, and dtype is {dtype}; use dtype bfloat16")


def check_dtype(dtype: str, device: str) -> None:
    """Checks that a device supports a type; warns of bfloat16 on a processor that emulates it.

    Raises:
        ConfigurationError: The type is bfloat16 and the card lacks it; torch would emulate it slowly or refuse it late.
    """
    slow = slowness(dtype, device)
    if slow:
        log.warning("dtype %s: %s; use dtype float32, which takes twice the memory", dtype, slow)
    if dtype != "bfloat16" or torch.device(device).type != "cuda":
        return
    if torch.cuda.get_device_capability(device) < BFLOAT16_CAPABILITY:
        raise ConfigurationError(f"dtype bfloat16: {torch.cuda.get_device_name(device)} has no bfloat16 (it came with compute "
                                 f"capability {'.'.join(map(str, BFLOAT16_CAPABILITY))}); use dtype float32")


@torch.no_grad()
def shrink(decoder: Decoder, precision: str) -> None:
    """Replaces the weights of a decoder's blocks, layer by layer, for inference; warns that predictions then differ.

    Embeddings, norms and the output matrix stay. Joined layers stay joined.

    Args:
        decoder: Decoder with its weights on the device.
        precision: Precision of the new weights.
    """
    for block in decoder.model.layers:
        for module in list(block.modules()):
            if isinstance(module, Joinable):
                module.replace_joined(lambda whole: shrunk(whole, precision))
        for module in list(block.modules()):
            for name, layer in list(module.named_children()):
                if type(layer) is nn.Linear:
                    setattr(module, name, shrunk(layer, precision))
    log.warning("the weights of the decoder's blocks are kept in %s: predictions differ from those of the checkpoint as it is; "
                "`hybridvla bench --precision-report %s` says by how much", precision, precision)


def size_of(module: nn.Module) -> Tuple[int, int]:
    """Returns (numbers, bytes) of a module's weights, including those in fewer bits."""
    fewer = [layer for layer in module.modules() if isinstance(layer, ShrunkLinear)]
    numbers = sum(p.numel() for p in module.parameters()) + sum(layer.numbers for layer in fewer)
    held = sum(p.numel() * p.element_size() for p in module.parameters()) + sum(layer.bytes for layer in fewer)
    return numbers, held
