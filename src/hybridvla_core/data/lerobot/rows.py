"""Numbers of one episode, as stored in its parquet file."""
from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional

import numpy as np
import pyarrow as pa

from hybridvla_core.data.lerobot import layout


@dataclass(frozen=True)
class Rows:
    """Numbers of one episode: N rows, S state channels and A action channels.

    Attributes:
        state: (N, S) states.
        action: (N, A) actions.
        tasks: (N,) numbers of the instructions.
        success: (N,) success labels; -1: unknown.
        correction: (N,) whether a person was correcting a policy.
        timestamps: (N,) timestamps, s.
        grounding: Grounding of the pictures, one text per row; None without.
        subtasks: Steps of the task, one text per row; None without.
        moments: (N,) rising from 0; rows with the same number show the same moment.
        places: (N,) row numbers in the data file.
    """

    state: np.ndarray
    action: np.ndarray
    tasks: np.ndarray
    success: np.ndarray
    correction: np.ndarray
    timestamps: np.ndarray
    grounding: Optional[List[str]]
    subtasks: Optional[List[str]]
    moments: np.ndarray
    places: np.ndarray


def moments_of(table: pa.Table) -> np.ndarray:
    """Returns the moment that each row shows, (N,) rising from 0; each row its own if the table does not say."""
    if layout.MOMENT not in table.column_names:
        return np.arange(table.num_rows)
    said = table[layout.MOMENT].to_numpy()
    return np.cumsum(np.concatenate([[False], said[1:] != said[:-1]]))[:len(said)].astype(np.int64)
