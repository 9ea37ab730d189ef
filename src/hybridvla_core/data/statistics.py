"""Normalisation statistics of a data set (`dataset_statistics.json`)."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Tuple

import numpy as np


@dataclass(frozen=True)
class Statistics:
    """q01, q99 (A,) in physical units and mask (A,): channels outside the mask pass unchanged."""

    q01: np.ndarray
    q99: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, unmasked: Tuple[int, ...], tail: float = 0.2) -> Statistics:
        """From values (N, A); `tail` per cent are cut on each side, `unmasked` channels are not scaled.

        Raises ValueError for a masked-in channel that never varies: it has no scale.
        """
        mask = np.ones(values.shape[-1], dtype=bool)
        mask[list(unmasked)] = False
        q01, q99 = np.percentile(values, [tail, 100.0 - tail], axis=0)
        q01, q99 = np.where(mask, q01, 0.0), np.where(mask, q99, 1.0)
        if np.any((q99 - q01 < 1e-4) & mask):
            raise ValueError(f"channels {np.flatnonzero((q99 - q01 < 1e-4) & mask).tolist()} never vary; unmask them")
        return cls(q01, q99, mask)

    @classmethod
    def from_json(cls, entry: Mapping[str, List]) -> Statistics:
        """One entry (`action` or `proprio`) of a checkpoint's `dataset_statistics.json`, with its mask."""
        return cls(np.asarray(entry["q01"], dtype=float), np.asarray(entry["q99"], dtype=float),
                   np.asarray(entry["mask"], dtype=bool))

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Physical units (..., A) to [-1, 1] where masked in (not clipped)."""
        scaled = 2.0 * (values - self.q01) / (self.q99 - self.q01 + 1e-8) - 1.0
        return np.where(self.mask, scaled, values)

    def as_json(self) -> Dict[str, List]:
        return {"q01": self.q01.tolist(), "q99": self.q99.tolist(), "mask": self.mask.tolist()}
