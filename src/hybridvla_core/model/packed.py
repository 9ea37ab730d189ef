"""Weights in the order in which a CPU's matrix library reads them, made once and not in every product.

oneDNN multiplies rows by a matrix that lies in blocks of its own choice; torch's linear layer reorders it in every call or
does without (measured: docs/performance.md). The packed copy stands beside the parameters, so only models up to
`MOST_PACKED` get one.
"""
from __future__ import annotations

from typing import List, Optional

import torch
from torch import nn

#: Bytes of weights that may be held a second time.
MOST_PACKED = 1 << 30
#: Rows that the blocks are chosen for, and how near the packed product must come to the plain one.
HINT, NEAR = 16, 1e-3


def pack(layers: List[nn.Linear]) -> bool:
    """Gives every layer a packed copy of its weight; returns whether it did: not on another device than the CPU, not in
    another type than float32, not above `MOST_PACKED`, and not where torch has no oneDNN."""
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
    """`layer(x)` from the packed copy; None where there is none."""
    copy = layer.__dict__.get("packed")
    if copy is None:
        return None
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, copy, layer.bias, "none", [], "")
    return product


@torch.no_grad()
def _packed(layer: nn.Linear) -> Optional[torch.Tensor]:
    """The copy, tried once on two rows: these operators are torch's own for compiled models, and versions differ."""
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
