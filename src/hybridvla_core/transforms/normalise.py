"""Between physical units and the model's [-1, 1], with the released arithmetic."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.errors import CheckpointError


@dataclass(frozen=True)
class Scale:
    """q01, q99 (A,) in physical units and mask (A,) of one quantity: channels outside the mask pass unchanged."""

    q01: np.ndarray
    q99: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, unmasked: Tuple[int, ...], tail: float = 0.2) -> Scale:
        """Returns the scale of data.

        Args:
            values: (N, A) in physical units.
            unmasked: channels that are not scaled.
            tail: per cent of the values that are cut on each side.

        Raises:
            ValueError: for a masked-in channel that never varies: it has no scale.
        """
        mask = np.ones(values.shape[-1], dtype=bool)
        mask[list(unmasked)] = False
        q01, q99 = np.percentile(values, [tail, 100.0 - tail], axis=0)
        q01, q99 = np.where(mask, q01, 0.0), np.where(mask, q99, 1.0)
        if np.any((q99 - q01 < 1e-4) & mask):
            raise ValueError(f"channels {np.flatnonzero((q99 - q01 < 1e-4) & mask).tolist()} never vary; unmask them")
        return cls(q01, q99, mask)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], dimensions: int, where: str) -> Scale:
        """Raises CheckpointError for a missing key, another number of dimensions, or a masked-in channel without
        range, naming each."""
        if not isinstance(data, Mapping):
            raise CheckpointError(f"{where}: expected q01, q99 and mask, found {type(data).__name__}")
        for key in ("q01", "q99"):
            if key not in data:
                raise CheckpointError(f"{where}: {key} is missing")
        mask = data.get("mask", [True] * dimensions)
        if not isinstance(mask, list) or not all(isinstance(flag, bool) for flag in mask):
            raise CheckpointError(f"{where}: mask must be a list of true and false")
        try:
            q01, q99 = (np.asarray(data[key], dtype=np.float64) for key in ("q01", "q99"))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: q01 and q99 must be lists of numbers ({error})") from error
        mask = np.asarray(mask, dtype=bool)
        for key, array in (("q01", q01), ("q99", q99), ("mask", mask)):
            if array.shape != (dimensions,):
                raise CheckpointError(f"{where}: {key} has {array.size} numbers, the model has {dimensions} dimensions")
        if not (np.isfinite(q01).all() and np.isfinite(q99).all()):
            raise CheckpointError(f"{where}: q01 or q99 is not finite")
        flat = np.flatnonzero(mask & (q99 - q01 < 1e-9))
        if flat.size:
            raise CheckpointError(f"{where}: q99 is not above q01 in channel {flat.tolist()}; such a channel has no "
                                  "scale: set its mask to false or correct the statistics")
        return cls(q01, q99, mask)

    def as_json(self) -> Dict[str, List[Any]]:
        """Returns the entry of a `dataset_statistics.json`."""
        return {"q01": self.q01.tolist(), "q99": self.q99.tolist(), "mask": self.mask.tolist()}

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Returns physical values (..., A) as the model's, clipped to [-1, 1] in every channel."""
        values = np.asarray(values, dtype=np.float64)
        scaled = 2.0 * (values - self.q01) / (self.q99 - self.q01 + 1e-8) - 1.0
        return np.clip(np.where(self.mask, scaled, values), -1.0, 1.0)

    def unnormalise(self, values: np.ndarray, grippers: Sequence[int]) -> np.ndarray:
        """Normalised (..., A) to physical: clip, decide the grippers at 0.5, then scale where masked in."""
        values = np.clip(np.asarray(values, dtype=np.float64), -1.0, 1.0)
        for channel in grippers:
            values[..., channel] = np.where(values[..., channel] < 0.5, 0.0, 1.0)
        return np.where(self.mask, 0.5 * (values + 1.0) * (self.q99 - self.q01) + self.q01, values)


@dataclass(frozen=True)
class Normaliser:
    """Action and state scales of one dataset key."""

    action: Scale
    state: Scale

    @classmethod
    def from_json(cls, statistics: Mapping[str, Any], key: Optional[str], dimensions: int, where: str) -> Normaliser:
        """`statistics`: a `dataset_statistics.json`; `key`: which data set, or None if there is only one."""
        if key is None:
            if len(statistics) != 1:
                raise CheckpointError(f"{where}: holds {', '.join(sorted(statistics)) or 'no data set'}; say which one "
                                      "normalises the actions")
            key = next(iter(statistics))
        if key not in statistics:
            raise CheckpointError(f"{where}: no data set {key!r}; it holds {', '.join(sorted(statistics))}")
        entry = statistics[key]
        if not isinstance(entry, Mapping) or not {"action", "proprio"} <= set(entry):
            raise CheckpointError(f"{where}: data set {key!r} needs 'action' and 'proprio'")
        return cls(*(Scale.from_json(entry[name], dimensions, f"{where}: {key}: {name}") for name in ("action", "proprio")))
