"""Conversion between physical units and the model's [-1, 1], with the released arithmetic.

Two rules go beyond it (docs/fidelity.md). A channel that never moved in the data (q01 = q99) is constant: its action is that
constant whatever the model says, and its state is 0, as in training, or -1, as the released loop computes
(`constant_channel`). A gripper's action is a decision, 0 or 1, and is never scaled.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from hybridvla_core.errors import CheckpointError, few

#: Smallest range, in the channel's own units, that is not just rounding; smallest range that counts as one in data.
LEAST_RANGE, LEAST_RANGE_OF_DATA = 1e-8, 1e-4
CONSTANT_CHANNELS = ("zero", "released")


def rare(statistics: Mapping[str, Any]) -> List[int]:
    """Finds the channels that move in so few rows that the quantiles do not see it.

    Args:
        statistics: Statistics of one quantity, with `q01`, `q99`, `min` and `max`.

    Returns:
        Channels whose min and max differ by more than LEAST_RANGE_OF_DATA while q01 and q99 do not; none if a figure is missing
        or not a number.
    """
    try:
        low, high, least, most = (np.asarray(statistics[key], dtype=np.float64) for key in ("q01", "q99", "min", "max"))
        found = np.flatnonzero((high - low <= LEAST_RANGE_OF_DATA) & (most - least > LEAST_RANGE_OF_DATA))
    except (KeyError, TypeError, ValueError):
        return []       # the code that normalises with them names what is wrong
    return [int(channel) for channel in found]


@dataclass(frozen=True)
class Scale:
    """The quantiles q01, q99 (A,) in physical units and mask (A,) of one quantity: channels outside the mask pass unchanged.

    Attributes:
        q01: first percentile.
        q99: 99th percentile.
        mask: which channels are scaled.
        constant_channel: what the model sees of a constant channel: `zero`, or what the `released` loop computes.
    """

    q01: np.ndarray
    q99: np.ndarray
    mask: np.ndarray
    constant_channel: str = "zero"

    @classmethod
    def from_json(cls, data: Mapping[str, Any], dimensions: int, where: str, constant_channel: str = "zero") -> Scale:
        """Returns the scale of an entry of a `dataset_statistics.json`; without a mask all channels are scaled.

        Raises:
            CheckpointError: for a missing key, another number of dimensions, or q99 below q01, naming each.
        """
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
        turned = np.flatnonzero(q99 < q01)
        if turned.size:
            raise CheckpointError(f"{where}: q99 is below q01 in channel {turned.tolist()}; the statistics are damaged, copy "
                                  "them from the training run again")
        return cls(q01, q99, mask, constant_channel)

    @property
    def constant(self) -> np.ndarray:
        """Mask (A,) of the channels that never moved in the data."""
        return np.asarray(self.q99 - self.q01 <= LEAST_RANGE)

    @property
    def recorded(self) -> bool:
        """Whether any channel ever moved; otherwise the quantity was never recorded."""
        return not bool(self.constant.all())

    @property
    def hidden(self) -> np.ndarray:
        """Mask (A,) of the channels that the model sees as 0 whatever their value is."""
        zero = self.constant_channel == "zero"
        return np.asarray(self.constant & (self.mask | (not self.recorded)) & zero)

    def as_json(self) -> Dict[str, List[Any]]:
        """Returns the entry of a `dataset_statistics.json`."""
        return {"q01": self.q01.tolist(), "q99": self.q99.tolist(), "mask": self.mask.tolist()}

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Returns physical values (..., A) in the model's units, clipped to [-1, 1] in every channel."""
        values = np.asarray(values, dtype=np.float64)
        return np.clip(self._scaled(values), -1.0, 1.0)

    def clipped(self, values: np.ndarray) -> List[int]:
        """Returns the channels of physical values (A,) that are outside the range that the model can be shown."""
        return np.flatnonzero(np.abs(self._scaled(np.asarray(values, dtype=np.float64))) > 1.0 + 1e-6).tolist()

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        scaled = np.where(self.mask, 2.0 * (values - self.q01) / (self.q99 - self.q01 + 1e-8) - 1.0, values)
        return np.where(self.hidden, 0.0, scaled)

    def unnormalise(self, values: np.ndarray, grippers: Sequence[int]) -> np.ndarray:
        """Scales the model's values back: clipped, scaled where the mask says so, constant where the data was constant.

        Args:
            values: (..., A) values of the model.
            grippers: Channels that are decided at 0.5 as 0 or 1.

            Returns:
                (..., A) values in physical units.
        """
        values = np.clip(np.asarray(values, dtype=np.float64), -1.0, 1.0)
        result = np.where(self.mask, 0.5 * (values + 1.0) * (self.q99 - self.q01) + self.q01, values)
        result = np.where(self.constant, self.q01, result)
        for channel in grippers:
            result[..., channel] = np.where(values[..., channel] < 0.5, 0.0, 1.0)
        return result


@dataclass(frozen=True)
class Normaliser:
    """Action and state scales of one dataset key."""

    action: Scale
    state: Scale

    @classmethod
    def from_json(cls, statistics: Mapping[str, Any], key: Optional[str], dimensions: int, where: str,
                  constant_channel: str = "zero") -> Normaliser:
        """Returns the scales of one data set.

        Args:
            statistics: a `dataset_statistics.json`.
            key: which data set, or None if there is only one.
            dimensions: of actions and states, A.
            where: names the file in messages.
            constant_channel: see `Scale`.

        Raises:
            CheckpointError: naming what is missing or does not fit.
        """
        if key is None:
            if len(statistics) != 1:
                raise CheckpointError(f"{where}: holds {few(statistics, 8) if statistics else 'no data set'}; say which one "
                                      "normalises the actions")
            key = next(iter(statistics))
        if key not in statistics:
            raise CheckpointError(f"{where}: no data set {key!r}; it holds {few(statistics, 8)}")
        entry = statistics[key]
        if not isinstance(entry, Mapping) or not {"action", "proprio"} <= set(entry):
            found = f"it has {few(entry, 8)}" if isinstance(entry, Mapping) else f"it is {type(entry).__name__}"
            raise CheckpointError(f"{where}: data set {key!r} needs 'action' and 'proprio', and {found}; give the statistics "
                                  "in the released layout, {NAME: {action: {q01, q99, mask}, proprio: {...}}}")
        return cls(*(Scale.from_json(entry[name], dimensions, f"{where}: {key}: {name}", constant_channel)
                     for name in ("action", "proprio")))
