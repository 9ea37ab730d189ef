"""The numbers of one episode, as they lie in its parquet file."""
from __future__ import annotations

from dataclasses import dataclass
from typing import List, Mapping, Optional

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hybridvla_core.data.lerobot import layout


@dataclass(frozen=True)
class Rows:
    """One episode's numbers; N rows, S state and A action channels.

    Attributes:
        state: (N, S).
        action: (N, A).
        tasks: (N,) numbers of the instructions.
        success: (N,); -1: unknown.
        correction: (N,) a person was correcting a policy.
        timestamps: (N,) s.
        grounding: Where things are in the pictures, one text a row; None without.
        moments: (N,) rising from 0; rows with one number show one moment.
        pictures: View -> encoded images, where they lie beside the numbers.
    """

    state: np.ndarray
    action: np.ndarray
    tasks: np.ndarray
    success: np.ndarray
    correction: np.ndarray
    timestamps: np.ndarray
    grounding: Optional[List[str]]
    moments: np.ndarray
    pictures: Mapping[str, List[bytes]]


def moments_of(table: pa.Table) -> np.ndarray:
    """Which moment each row of an episode shows, (N,) rising from 0; each its own where the table does not say it."""
    if layout.MOMENT not in table.column_names:
        return np.arange(table.num_rows)
    said = table[layout.MOMENT].to_numpy()
    return np.cumsum(np.concatenate([[False], said[1:] != said[:-1]]))[:len(said)].astype(np.int64)


def groups_of(source: pq.ParquetFile, number: int) -> List[int]:
    """Row groups that may hold an episode, by their least and greatest episode."""
    column = source.schema_arrow.names.index("episode_index")
    chosen = []
    for group in range(source.num_row_groups):
        meta = source.metadata.row_group(group)
        leaf = next(meta.column(i) for i in range(meta.num_columns) if meta.column(i).path_in_schema == "episode_index")
        bounds = leaf.statistics
        if column < 0 or bounds is None or not bounds.has_min_max or bounds.min <= number <= bounds.max:
            chosen.append(group)
    return chosen or list(range(source.num_row_groups))
