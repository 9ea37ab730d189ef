"""timm without a working torchvision.

timm imports torchvision, whose wheel beside a CPU build of torch fails with "operator torchvision::nms does not exist".
Declaring the two missing schemas first lets it import; we call neither.
"""
from __future__ import annotations

import importlib

import torch

_LIBRARY = None


def vision_transformer():
    """The module `timm.models.vision_transformer`, imported with the schemas in place."""
    global _LIBRARY
    if _LIBRARY is None and not _has_operator():
        _LIBRARY = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("timm.models.vision_transformer")


def _has_operator() -> bool:
    try:
        return torch.ops.torchvision.nms is not None
    except (AttributeError, RuntimeError):
        return False
