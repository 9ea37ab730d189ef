"""Exact statistics: `numpy.quantile` over memory-mapped columns of the whole data set, never the mean of parts."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.errors import DataError
from hybridvla_core.transforms.normalise import LEAST_RANGE, LEAST_RANGE_OF_DATA, rare

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
#: Share of the rows that the released rule cuts off on each side of a channel.
TAIL = QUANTILES["q01"]


class Column:
    """Column of rows (N, A) float32 on disk; it grows by `append` and is read memory-mapped."""

    def __init__(self, path: Path, width: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._width, self._rows = path, width, 0
        self._stream = open(path, "wb")  # noqa: SIM115 - closed by `values`

    def append(self, rows: np.ndarray) -> None:
        """Appends rows (n, A)."""
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self._width:
            raise DataError(f"rows of shape {rows.shape} do not fit a column of width {self._width}")
        self._stream.write(rows.tobytes())
        self._rows += len(rows)

    def values(self) -> np.ndarray:
        """Returns all rows (N, A), memory-mapped; nothing can be appended afterwards."""
        self._stream.close()
        if not self._rows:
            return np.zeros((0, self._width), dtype=np.float32)
        return np.memmap(self._path, dtype=np.float32, mode="r", shape=(self._rows, self._width))


def of_columns(values: np.ndarray, tail: float = TAIL) -> Dict[str, Any]:
    """Computes LeRobot's statistics channel by channel, so that only one channel at a time is in memory.

    Args:
        values: (N, A) rows.
        tail: Share of the rows below `q01` and above `q99`; the result states it if it is not TAIL.

    Returns:
        Each figure as a list of A. `constant` says which channels have no range: q99 exceeds q01 by at most LEAST_RANGE.

    Raises:
        DataError: N is 0.
    """
    if not len(values):
        raise DataError("there is no frame to compute statistics from")
    result: Dict[str, List[Any]] = {key: [] for key in ("min", "max", "mean", "std", *QUANTILES, "constant")}
    quantiles = QUANTILES if tail == TAIL else {**QUANTILES, "q01": tail, "q99": 1.0 - tail}
    for channel in range(values.shape[1]):
        column = np.array(values[:, channel], dtype=np.float64)
        low, high = float(column.min()), float(column.max())
        result["min"].append(low)
        result["max"].append(high)
        result["mean"].append(float(column.mean()))
        result["std"].append(float(column.std()))
        for key, value in zip(quantiles, np.quantile(column, list(quantiles.values()))):
            result[key].append(float(value))
        result["constant"].append(result["q99"][-1] - result["q01"][-1] <= LEAST_RANGE)
    return {**result, "count": [len(values)], **({} if tail == TAIL else {"tail": tail})}


def widened(statistics: Mapping[str, Any]) -> Dict[str, Any]:
    """Scales the channels that `rare` finds by min and max.

    By their quantiles they would be constant: their movement in those few rows could be neither learned nor predicted.

    Args:
        statistics: Statistics of one quantity, in the form of an entry of `dataset_statistics.json`.

    Returns:
        The same statistics, with `q01`, `q99` and `constant` of these channels changed.
    """
    found, channels = dict(statistics), rare(statistics)
    if channels:
        found["constant"] = list(statistics.get("constant", np.subtract(statistics["q99"], statistics["q01"]) <= LEAST_RANGE))
        for key, value in (("q01", statistics["min"]), ("q99", statistics["max"]), ("constant", [False] * len(found["q01"]))):
            found[key] = [value[channel] if channel in channels else own for channel, own in enumerate(found[key])]
    return found


def for_checkpoint(action: Dict[str, Any], state: Dict[str, Any], grippers: Sequence[int], episodes: int) -> Dict[str, Any]:
    """Returns a data set's entry of `dataset_statistics.json`: grippers unscaled (mask false), rare channels by min and max."""
    entry: Dict[str, Any] = {}
    for name, statistics in (("action", action), ("proprio", state)):
        width = len(statistics["min"])
        kept = ("mean", "std", "max", "min", "q01", "q99", "constant", *(["tail"] if "tail" in statistics else []))
        entry[name] = widened({key: statistics[key] for key in kept})
        entry[name]["mask"] = [not (channel in grippers and width == len(action["min"])) for channel in range(width)]
    return {**entry, "num_transitions": action["count"][0], "num_trajectories": episodes}


class ImageHistogram:
    """Histogram of the values of sampled pictures, so that their statistics are exact over the sample.

    Attributes:
        counts: (3, 256) int64, by channel and value.
        pictures: Number of pictures counted.
    """

    def __init__(self, counts: Optional[np.ndarray] = None, pictures: int = 0) -> None:
        self.counts = np.zeros((3, 256), dtype=np.int64) if counts is None else counts
        self.pictures = pictures

    def add(self, image: np.ndarray) -> None:
        """Counts an image (h, w, 3) uint8."""
        for channel in range(3):
            self.counts[channel] += np.bincount(image[:, :, channel].ravel(), minlength=256)
        self.pictures += 1

    def merge(self, other: ImageHistogram) -> None:
        """Adds the counts of another histogram."""
        self.counts += other.counts
        self.pictures += other.pictures

    def statistics(self) -> Dict[str, Any]:
        """Returns statistics in LeRobot's form: (3, 1, 1) nested lists of values in [0, 1]."""
        if not self.pictures:
            raise DataError("there is no picture to compute statistics from")
        levels = np.arange(256) / 255.0
        total = self.counts.sum(axis=1)
        mean = (self.counts @ levels) / total
        std = np.sqrt(np.maximum((self.counts @ levels ** 2) / total - mean ** 2, 0.0))
        cumulated = np.cumsum(self.counts, axis=1) / total[:, None]
        result: Dict[str, Any] = {"mean": mean, "std": std,
                                  "min": [levels[np.flatnonzero(row)[0]] for row in self.counts],
                                  "max": [levels[np.flatnonzero(row)[-1]] for row in self.counts]}
        for key, share in QUANTILES.items():
            result[key] = [levels[int(np.searchsorted(row, share))] for row in cumulated]
        nested = {key: [[[float(value)]] for value in values] for key, values in result.items()}
        return {**nested, "count": [self.pictures]}


def outside(values: np.ndarray, entry: Dict[str, Any]) -> List[Tuple[int, float]]:
    """Finds channels that a statistics entry does not fit.

    By construction, two of a hundred values lie outside. More than ten, or a range four times too wide, means that the entry is
    another data set's. The range of the data is measured as the entry's was: with its `tail`, and a rare channel from min to max.

    Args:
        values: (N, A) rows.
        entry: Statistics with q01 and q99.

    Returns:
        (channel, share outside q01 to q99) of each.

    Raises:
        DataError: The entry has another number of channels, or a number that is not finite, which would fit any data.
    """
    low, high = np.asarray(entry["q01"], dtype=float), np.asarray(entry["q99"], dtype=float)
    if low.shape != (values.shape[1],) or high.shape != low.shape:
        raise DataError(f"the statistics have {low.size} channels, the data set {values.shape[1]}")
    if not np.isfinite([low, high]).all():
        raise DataError("the statistics hold a number that is not finite; compute them with `hybridvla dataset stats`")
    mask, tail = entry.get("mask", [True] * len(low)), float(entry.get("tail", TAIL))
    wrong = []
    for channel in range(values.shape[1]):
        column = np.array(values[:, channel], dtype=np.float64)
        slack = 1e-6 + 1e-6 * abs(high[channel])
        share = float(np.mean((column < low[channel] - slack) | (column > high[channel] + slack)))
        spread = float(np.subtract(*np.quantile(column, [1.0 - tail, tail])))
        if spread <= LEAST_RANGE_OF_DATA:
            spread = float(np.ptp(column))
        if mask[channel] and (share > 0.10 or high[channel] - low[channel] > 4.0 * spread + 1e-3):
            wrong.append((channel, share))
    return wrong
