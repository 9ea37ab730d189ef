"""Linear layers over few rows on a CPU.

torch multiplies (rows, in) by (out, in) transposed; with 2 to 16 rows its float32 library then reads the weights at a
fraction of the memory's speed (measured: docs/performance.md). The same product written as weight times rows transposed
reads them at full speed.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

#: Rows for which the transposed product is used, and the number that 12 to 15 rows are filled up to.
FEW, FULL = 16, 16
#: Smaller weights stay in a core's cache and gain nothing.
SMALLEST_WEIGHT = 1 << 18


def linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """`layer(x)` for x (..., in), by the faster of the two products."""
    weight = layer.weight
    rows = x.numel() // x.shape[-1]
    if (rows < 2 or rows > FEW or weight.device.type != "cpu" or weight.dtype != torch.float32
            or weight.numel() < SMALLEST_WEIGHT or torch.is_grad_enabled()):
        return layer(x)
    flat = x.reshape(rows, -1)
    if rows >= 12:
        flat = F.pad(flat, (0, 0, 0, FULL - rows))
    result = (weight @ flat.t()).t()[:rows]
    if layer.bias is not None:
        result = result + layer.bias
    return result.reshape(*x.shape[:-1], -1)
