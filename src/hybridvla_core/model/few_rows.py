"""Linear layers over few rows on a CPU.

torch multiplies (rows, in) by (out, in) transposed; with 2 to 24 rows its float32 library then reads the weights at a
fraction of the memory's speed. Two other forms of the same product read them faster (measured: docs/performance.md):
weight times rows transposed while the rows are very few, and beyond that the packed weight (packed.py), or without one rows
times blocks of the weight, as one batch.
"""
from __future__ import annotations

import torch
from torch import nn

from hybridvla_core.model.packed import packed_product

#: Up to so many rows the weight comes first; up to so many more if it is narrow.
VERY_FEW, VERY_FEW_NARROW, NARROW = 4, 8, 1024
#: Up to so many rows the weight is taken in blocks of so many outputs.
FEW, BLOCK = 24, 32
#: Smaller weights stay in a core's cache and gain nothing.
SMALLEST_WEIGHT = 1 << 17


def linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """`layer(x)` for x (..., in), by the fastest form of the product."""
    if type(layer) is not nn.Linear:  # an adapter around one
        return layer(x)
    weight = layer.weight
    outputs, width = weight.shape
    rows = x.numel() // x.shape[-1]
    if rows > VERY_FEW and not torch.is_grad_enabled():
        product = packed_product(layer, x)
        if product is not None:
            return product
    very_few = rows <= (VERY_FEW_NARROW if width < NARROW else VERY_FEW)
    if (rows < 2 or rows > FEW or weight.device.type != "cpu" or weight.dtype != torch.float32
            or weight.numel() < SMALLEST_WEIGHT or torch.is_grad_enabled() or (not very_few and outputs % BLOCK)):
        return layer(x)
    flat = x.reshape(rows, width)
    if very_few:
        result = (weight @ flat.t()).t()
    else:
        blocks = weight.view(-1, BLOCK, width).transpose(1, 2)
        result = torch.bmm(flat.expand(len(blocks), rows, width), blocks).transpose(0, 1).reshape(rows, outputs)
    if layer.bias is not None:
        result = result + layer.bias
    return result.reshape(*x.shape[:-1], outputs)
