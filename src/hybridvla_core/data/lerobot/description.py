"""Description of a data set on disk: `info.json` as any program writes it, and above it what `hybridvla.json` says."""
from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Tuple

from hybridvla_core.configuration import from_mapping
from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.features import names_of, size_of
from hybridvla_core.data.lerobot.layout import Description, Provenance
from hybridvla_core.errors import ConfigurationError, DataError

DESCRIPTION = "description"


def describe(folder: Path, info: Mapping[str, Any], ours: Mapping[str, Any]) -> Description:
    """Describes a data set.

    Args:
        folder: Folder of the data set.
        info: Content of `info.json`.
        ours: Content of `hybridvla.json`; empty without one. Keys of a description are under `description`, as our writer puts
            them, or at the top of the file, as people write them. They replace what `info` says.

    Returns:
        The description.

    Raises:
        DataError: The features do not make a data set, or a key of `hybridvla.json` is unknown, given twice or wrong; the message
            names it.
    """
    file = folder / layout.OURS
    given = _given(file, ours)
    features: Mapping[str, Mapping[str, Any]] = info["features"]
    by_info: Dict[str, Callable[[], object]] = {
        "name": lambda: folder.resolve().name, "fps": lambda: float(info["fps"]), "views": lambda: _views(folder, features),
        "state_names": lambda: _names(folder, features, layout.STATE),
        "action_names": lambda: _names(folder, features, layout.ACTION),
        "robot": lambda: str(info.get("robot_type") or "unknown")}
    found = {key: value() for key, value in by_info.items() if key not in given}
    try:
        description = from_mapping(Description, {**found, **given}, str(file))
    except ConfigurationError as error:
        raise DataError(str(error)) from error
    except DataError as error:
        raise DataError(f"{file if given else folder / layout.INFO}: {error}") from error
    absent = [view for view in description.views if layout.IMAGE_PREFIX + view not in features]
    if absent:
        raise DataError(f"{file}: views has {', '.join(absent)}, of which {layout.INFO} knows nothing; its features are "
                        f"{', '.join(features)}")
    return description


def _given(file: Path, ours: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the keys of a description that `hybridvla.json` holds."""
    notes = [DESCRIPTION, *(field.name for field in fields(Provenance))]
    top = {key: value for key, value in ours.items() if key not in notes}
    under = ours.get(DESCRIPTION, {})
    if not isinstance(under, dict):
        raise DataError(f"{file}: {DESCRIPTION} holds {type(under).__name__}; write its keys and values, such as a convention")
    said = {key: value for key, value in under.items() if value is not None}      # our writer says so of what a source lacks
    twice = sorted(set(top) & set(said))
    if twice:
        raise DataError(f"{file}: {', '.join(twice)} is there twice, at the top and under {DESCRIPTION}; keep one of them")
    return {**said, **top}


def _names(folder: Path, features: Mapping[str, Mapping[str, Any]], key: str) -> Tuple[str, ...]:
    if key not in features:
        raise DataError(f"{folder}: has no {key}; features are {', '.join(features)}")
    return names_of(features[key])


def _views(folder: Path, features: Mapping[str, Mapping[str, Any]]) -> Dict[str, Tuple[int, int]]:
    pictures = {key: feature for key, feature in features.items() if feature["dtype"] in ("video", "image")}
    if not pictures:
        raise DataError(f"{folder}: has no pictures; features are {', '.join(features)}")
    strange = [key for key in pictures if not key.startswith(layout.IMAGE_PREFIX)]
    if strange:
        raise DataError(f"{folder}: pictures named {', '.join(strange)}; only {layout.IMAGE_PREFIX}VIEW is read")
    return {key[len(layout.IMAGE_PREFIX):]: size_of(feature) for key, feature in pictures.items()}
