"""Fast linear layers over few rows on a CPU.

torch multiplies (rows, in) by (out, in) transposed; with 2 to 24 rows its float32 library then reads the weights at a
fraction of the memory's speed. Other forms of the same product read them faster (measured: docs/performance.md). With very
few rows, it is the weight times the transposed rows. With more, it is the packed weight or, without one, the rows times
blocks of the weight, as one batch.

A packed weight is stored in the order in which oneDNN reads it; it is made once and not in every product. The copy is held
in addition to the parameters, so only models up to `MOST_PACKED` get one.
"""
from __future__ import annotations

from typing import List, Optional

import torch
from torch import nn

#: Most rows for which the weight comes first; the same for a narrow weight; the width below which a weight is narrow.
VERY_FEW, VERY_FEW_NARROW, NARROW = 4, 8, 1024
#: Most rows for which the weight is taken in blocks, and the outputs of a block.
FEW, BLOCK = 24, 32
#: Smaller weights stay in a core's cache and gain nothing.
SMALLEST_WEIGHT = 1 << 17

#: Most bytes of weights that may be held a second time.
MOST_PACKED = 1 << 30
#: Number of rows that the packed layout is chosen for, and the tolerance between the packed and the plain product.
HINT, NEAR = 16, 1e-3


def linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """Returns `layer(x)` for x (..., in), by the fastest form of the product."""
    if type(layer) is not nn.Linear:  # an adapter around a linear layer
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


def pack(layers: List[nn.Linear]) -> bool:
    """Gives every layer a packed copy of its weight.

    Args:
        layers: Layers with float32 weights on a CPU.

    Returns:
        Whether it did: False on another device, in another type, above `MOST_PACKED`, and if torch has no oneDNN.
    """
    weights = [layer.weight for layer in layers]
    if any(w.device.type != "cpu" or w.dtype != torch.float32 for w in weights):
        return False
    if sum(w.numel() * w.element_size() for w in weights) > MOST_PACKED:
        return False
    for layer in layers:
        copy = _packed(layer)
        if copy is None:
            unpack(layers)
            return False
        object.__setattr__(layer, "packed", copy)
    return True


def unpack(layers: List[nn.Linear]) -> None:
    """Drops the packed copies."""
    for layer in layers:
        layer.__dict__.pop("packed", None)


def packed_product(layer: nn.Linear, x: torch.Tensor) -> Optional[torch.Tensor]:
    """Returns `layer(x)` from the packed copy; None if there is no copy."""
    copy = layer.__dict__.get("packed")
    if copy is None:
        return None
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, copy, layer.bias, "none", [], "")
    return product


@torch.no_grad()
def _packed(layer: nn.Linear) -> Optional[torch.Tensor]:
    """Returns the copy, tested once on two rows: these are torch's internal operators for compiled models and vary by version."""
    weight = layer.weight.detach()
    rows = torch.linspace(-1.0, 1.0, 2 * weight.shape[1]).view(2, -1)
    try:
        copy: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, HINT)
        product = torch.ops.mkldnn._linear_pointwise(rows, copy, layer.bias, "none", [], "")
    except (RuntimeError, AttributeError, NotImplementedError):
        return None
    expected = layer(rows)
    near = NEAR * max(1.0, float(expected.abs().max()))
    return copy if bool(((product - expected).abs() <= near).all()) else None
