"""The numbers of one episode, as they lie in its parquet file."""
from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional

import numpy as np
import pyarrow as pa

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
        subtasks: Step of the task, one text a row; None without.
        moments: (N,) rising from 0; rows with one number show one moment.
        places: (N,) rows of the data file.
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
    """Which moment each row of an episode shows, (N,) rising from 0; each its own where the table does not say it."""
    if layout.MOMENT not in table.column_names:
        return np.arange(table.num_rows)
    said = table[layout.MOMENT].to_numpy()
    return np.cumsum(np.concatenate([[False], said[1:] != said[:-1]]))[:len(said)].astype(np.int64)
