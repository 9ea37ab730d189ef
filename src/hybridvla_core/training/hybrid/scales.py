"""Normalisation of data sets: by their own statistics, or by those of a checkpoint if these cover them."""
from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from hybridvla_core.configuration import read_mapping
from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.data.lerobot.statistics import TAIL, for_checkpoint, of_columns, widened
from hybridvla_core.errors import DataError, few
from hybridvla_core.transforms.normalise import LEAST_RANGE_OF_DATA, Normaliser, rare

LOGGER = logging.getLogger(__name__)
#: Smallest share of numbers that the statistics of a checkpoint must cover.
COVERED = 0.9


@dataclass(frozen=True)
class OwnStatistics:
    """Statistics by which one data set is normalised.

    Attributes:
        entry: Entry of a `dataset_statistics.json`.
        widened: Channels scaled by min and max that are constant by the quantiles of the set, or by the file in it.
    """

    entry: Dict[str, Any]
    widened: Tuple[str, ...]


def own_names(datasets: Sequence[LeRobotDataset]) -> List[str]:
    """Returns the names of the sets' statistics in a checkpoint; renaming a folder does not rename its set.

    Args:
        datasets: Opened data sets.

    Returns:
        Their names, in the same order.

    Raises:
        DataError: Two sets have the same name.
    """
    first: Dict[str, LeRobotDataset] = {}
    for dataset in datasets:
        name, folder = dataset.description.name, dataset.folder
        other = first.setdefault(name, dataset).folder
        if first[name] is not dataset and other.resolve() == folder.resolve():
            raise DataError(f"{folder}: is given twice")
        if first[name] is not dataset:
            raise DataError(f"{other} and {folder}: both data sets are named {name}; write one under a name of its own with "
                            f"`hybridvla dataset merge {folder} -o NEWNAME`")
    return list(first)


def statistics_of(dataset: LeRobotDataset, tail: float = TAIL) -> OwnStatistics:
    """Reads the set's entry of a `dataset_statistics.json`, or computes it from every row.

    Args:
        dataset: Opened data set.
        tail: Share of the rows that is cut off on each side of a channel; the file in a data set has TAIL.

    Returns:
        The entry. Files of older data sets call a channel constant if it moves in few rows; here it is not constant.

    Raises:
        DataError: A number is not finite, or the file holds no entry for the set.
    """
    path = dataset.folder / layout.STATISTICS
    if path.is_file() and tail == TAIL:
        entry = _entry_of(dataset, path)
        raw = {part: entry[part] for part in ("action", "proprio") if isinstance(entry.get(part), Mapping)}
        entry.update({part: widened(found) for part, found in raw.items()})
    else:
        with tempfile.TemporaryDirectory() as scratch:
            raw = {part: of_columns(dataset.column(key, Path(scratch)), tail)
                   for part, key in (("action", layout.ACTION), ("proprio", layout.STATE))}
        entry = for_checkpoint(raw["action"], raw["proprio"], dataset.description.grippers, len(dataset.episodes))
    channels = tuple(f"{part} {channel}" for part, found in raw.items() for channel in rare(found))
    if channels:
        LOGGER.info("%s: %s move(s) in very few rows and is scaled by min and max", dataset.folder, ", ".join(channels))
    return OwnStatistics(entry, channels)


def _entry_of(dataset: LeRobotDataset, path: Path) -> Dict[str, Any]:
    """Returns the set's entry of its file; a single entry is the set's whatever its name, because sets are renamed."""
    entries, name = read_mapping(path), dataset.description.name
    entry = entries[name] if name in entries else next(iter(entries.values())) if len(entries) == 1 else None
    if not isinstance(entry, Mapping):
        found = f"{name} is {type(entry).__name__}" if name in entries else f"has no entry {name} (its entries: {few(entries)})"
        raise DataError(f"{path}: {found}; write it anew with `hybridvla dataset stats {dataset.folder} -o {path}`")
    return dict(entry)


def check_covered(dataset: LeRobotDataset, scales: Normaliser, where: Path) -> None:
    """Checks that the statistics of a checkpoint cover a data set, and names channels that are constant only in the statistics.

    Args:
        dataset: Opened data set.
        scales: Scales of the checkpoint.
        where: Folder of the checkpoint.

    Raises:
        DataError: The data are of another robot or place, so that too many numbers would be clipped, or a number is not finite.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for key, scale in ((layout.STATE, scales.state), (layout.ACTION, scales.action)):
            values = np.asarray(dataset.column(key, Path(scratch)), dtype=np.float64)
            slack = 0.05 * (scale.q99 - scale.q01) + 1e-6
            inside = ((values >= scale.q01 - slack) & (values <= scale.q99 + slack)).mean(axis=0)
            outside = scale.mask & (inside < COVERED)
            moves = np.abs(values - scale.q01).max(axis=0, initial=0.0) > LEAST_RANGE_OF_DATA
            still = scale.mask & scale.constant & (outside | moves)
            if key == layout.STATE and scale.constant_channel == "zero":
                outside = outside & ~scale.constant
            elif key == layout.STATE:
                still = np.zeros_like(still)
            wrong = [f"{channel} ({inside[channel]:.0%})" for channel in np.flatnonzero(outside)]
            if wrong:
                raise DataError(f"{dataset.folder}: {key} lies outside the statistics of {where} in channel {', '.join(wrong)} "
                                "inside; write statistics: data, so that the model learns their range")
            if still.any():
                seen = "the model sees 0 there" if key == layout.STATE else "no answer of the model moves it"
                LOGGER.warning("%s: %s channel %s moves, and never did in the data of %s: %s", dataset.folder,
                               "state" if key == layout.STATE else "action", ", ".join(map(str, np.flatnonzero(still))), where,
                               seen)
