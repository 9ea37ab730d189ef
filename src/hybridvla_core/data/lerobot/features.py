"""Description of a feature in `info.json`, in the forms that other programs write."""
from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, Tuple

import numpy as np


def names_of(feature: Mapping[str, Any]) -> Tuple[str, ...]:
    """Returns the names of the channels; their numbers if names are missing or do not match the number of channels."""
    names, width = _listed(feature), int(np.prod(feature["shape"]))
    return tuple(map(str, names)) if names and len(names) == width else tuple(f"{i}" for i in range(width))


def size_of(feature: Mapping[str, Any]) -> Tuple[int, int]:
    """Returns (height, width) of a view, also if its channels come first."""
    shape, names = list(feature["shape"]), _listed(feature)
    if shape[0] == 3 and shape[-1] != 3 or names and str(names[0]).startswith("channel"):
        shape = [*shape[1:], shape[0]]
    return int(shape[0]), int(shape[1])


def _listed(feature: Mapping[str, Any]) -> Optional[Sequence[object]]:
    """Returns the names in order; some sets group them ({"motors": ["x", "y"]}), others number them ({"x": 0, "y": 1})."""
    names = feature.get("names")
    if not isinstance(names, Mapping):
        return names
    if all(isinstance(group, (list, tuple)) for group in names.values()):
        return [name for group in names.values() for name in group]
    numbered = all(isinstance(number, (int, float)) for number in names.values())
    return sorted(names, key=lambda name: names[name]) if numbered else None
