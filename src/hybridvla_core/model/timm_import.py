"""Import of timm without a working torchvision.

timm imports torchvision, whose wheel beside a CPU build of torch fails with "operator torchvision::nms does not exist",
because its compiled part needs CUDA libraries. Declaring the two missing schemas first makes the import work; we call
neither. If the compiled part loads, it declares them itself, and a second declaration would crash the process.
"""
from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

_LIBRARY = None


def vision_transformer() -> ModuleType:
    """Returns the module `timm.models.vision_transformer`, imported with the schemas in place."""
    global _LIBRARY
    if _LIBRARY is None and not _has_operator() and not _compiled_part_loads():
        _LIBRARY = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("timm.models.vision_transformer")


def _compiled_part_loads() -> bool:
    """Loads torchvision's extension as torchvision itself would, without importing torchvision."""
    spec = importlib.util.find_spec("torchvision")
    files = sorted(Path(spec.origin).parent.glob("_C*.so")) if spec is not None and spec.origin else []
    for file in files:
        try:
            torch.ops.load_library(str(file))
        except (OSError, RuntimeError):
            continue
        if _has_operator():
            return True
    return False


def _has_operator() -> bool:
    try:
        return torch.ops.torchvision.nms is not None
    except (AttributeError, RuntimeError):
        return False
