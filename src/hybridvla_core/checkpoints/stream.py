"""Writing of safetensors tensor by tensor, in shards, so that memory holds one piece of one tensor at a time.

The library's own `save_file` needs a whole shard in memory, and twice if the type changes. The format is a length, a
JSON header and the raw values (https://github.com/huggingface/safetensors, "Format").
"""
from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import torch

from hybridvla_core.errors import CheckpointError

#: Values handled at once; temporary copies stay a few MiB.
PIECE = 1 << 20
NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}


class TooLargeError(CheckpointError):
    """A tensor has values that the type in which it is to be stored cannot hold; the message does not say what to do."""


def pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields the tensor's values in order, a million at a time, as flat views (a copy only if not contiguous)."""
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), PIECE):
        yield flat[start:start + PIECE]


def all_finite(piece: torch.Tensor) -> bool:
    """Tells whether all values are finite. A finite sum, which is much faster, proves it; an overflow is checked closely."""
    if not piece.is_floating_point() or math.isfinite(float(piece.sum(dtype=torch.float32))):
        return True
    return bool(torch.isfinite(piece).all())


def stored_type(tensor: torch.Tensor, dtype: Optional[torch.dtype]) -> torch.dtype:
    """Returns `dtype` for floating-point tensors if given, else the tensor's own type."""
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def stored_bytes(tensor: torch.Tensor, dtype: Optional[torch.dtype]) -> int:
    return tensor.numel() * torch.empty(0, dtype=stored_type(tensor, dtype)).element_size()


def plan_shards(tensors: Mapping[str, torch.Tensor], dtype: Optional[torch.dtype], limit: int) -> List[List[str]]:
    """Returns the names by shard, in order; a shard stays within `limit` bytes unless one tensor alone exceeds it."""
    shards: List[List[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        size = stored_bytes(tensor, dtype)
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def write_shard(path: Path, tensors: Mapping[str, torch.Tensor], dtype: Optional[torch.dtype],
                progress: Callable[[int], None] = lambda count: None) -> Tuple[str, int]:
    """Writes one safetensors file.

    Args:
        path: Path of the file.
        tensors: Tensors by name, in the order of writing.
        dtype: Type in which they are stored; None for their own.
        progress: Called with the number of bytes just written.

    Returns:
        Its sha256 and size in bytes.

    Raises:
        TooLargeError: A tensor has values that the stored type cannot hold; the message names it.
        CheckpointError: A tensor holds values that are not finite; the message names it.
    """
    header: Dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        size = stored_bytes(tensor, dtype)
        header[name] = {"dtype": NAMES[stored_type(tensor, dtype)], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, "wb") as out:
        for block in (len(text).to_bytes(8, "little"), text):
            out.write(block)
            digest.update(block)
        for name, tensor in tensors.items():
            for piece in pieces(tensor):
                converted = piece.to(stored_type(tensor, dtype))
                if not all_finite(converted):
                    if not all_finite(piece):
                        raise CheckpointError(f"{name}: it holds values that are not finite; its source is damaged")
                    raise TooLargeError(f"{name}: as {stored_type(tensor, dtype)} it would hold values that are not finite")
                values = converted.contiguous().view(torch.uint8).numpy()
                out.write(values.data)
                digest.update(values.data)
                progress(values.nbytes)
    return digest.hexdigest(), 8 + len(text) + offset
