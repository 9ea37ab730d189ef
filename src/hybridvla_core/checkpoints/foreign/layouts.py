"""Layouts of statistics: the released one is used, others are converted to it or refused by name."""
from __future__ import annotations

from typing import Any, Dict, Mapping

from hybridvla_core.errors import CheckpointError, few

#: Other names of the two quantities, and of the two percentiles.
QUANTITIES = {"action": "action", "actions": "action", "proprio": "proprio", "state": "proprio",
              "observation.state": "proprio", "observation/state": "proprio"}
PERCENTILES = {"p01": "q01", "p99": "q99", "1%": "q01", "99%": "q99"}
#: Name of the one data set of a file without names.
UNNAMED = "data"


def released_layout(statistics: Mapping[str, Any], where: str) -> Dict[str, Any]:
    """Returns statistics as `{NAME: {action: {q01, q99, mask}, proprio: {...}}}`.

    Also accepted: one data set without a name (Octo), quantities called `state` or `actions`, LeRobot's `stats.json`,
    percentiles called p01 and p99, and all of these inside `norm_stats`.

    Raises:
        CheckpointError: The statistics have only mean and deviation; their models scale by another formula.
    """
    inner = statistics.get("norm_stats")
    if isinstance(inner, Mapping) and len(statistics) == 1:
        statistics = inner
    if _is_entry(statistics):
        return {UNNAMED: _entry(statistics, where)}
    return {str(name): _entry(entry, f"{where}: {name}") if isinstance(entry, Mapping) and _is_entry(entry) else entry
            for name, entry in statistics.items()}


def _is_entry(entry: Mapping[str, Any]) -> bool:
    return any(name in QUANTITIES and isinstance(value, Mapping) and not set(value) & set(QUANTITIES)
               for name, value in entry.items())


def _entry(entry: Mapping[str, Any], where: str) -> Dict[str, Any]:
    """Returns one data set's quantities and percentiles under the released names."""
    found: Dict[str, Any] = {}
    for name, value in entry.items():
        quantity = QUANTITIES.get(name)
        if quantity is None or not isinstance(value, Mapping):
            found[name] = value
            continue
        if quantity in found:
            raise CheckpointError(f"{where}: {name} is a second {quantity}; leave the one that the model was trained with")
        renamed = {PERCENTILES.get(key, key): one for key, one in value.items()}
        if not {"q01", "q99"} & set(renamed) and {"mean", "std"} & set(renamed):
            raise CheckpointError(f"{where}: {name} has {few(value, 8)} but no q01 and q99; a model that was scaled by mean and "
                                  "deviation, or by least and largest value, is none of these. Give the statistics of its own "
                                  "training, with both percentiles")
        found[quantity] = renamed
    return found
