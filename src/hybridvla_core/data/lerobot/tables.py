"""The parquet tables of LeRobotDataset v3: data, episodes, tasks."""
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.layout import Description

if TYPE_CHECKING:
    from hybridvla_core.data.lerobot.episode_writer import EpisodeWriter

INDICES = ("frame_index", "episode_index", "index", "task_index")


def data_schema(description: Description) -> pa.Schema:
    """Returns the columns of the data files."""
    fields = [pa.field(layout.STATE, pa.list_(pa.float32(), len(description.state_names))),
              pa.field(layout.ACTION, pa.list_(pa.float32(), len(description.action_names))),
              pa.field(layout.SUCCESS, pa.int64()), pa.field(layout.CORRECTION, pa.bool_())]
    if description.grounded:
        fields.append(pa.field(layout.GROUNDING, pa.string()))
    if description.subtasks:
        fields.append(pa.field(layout.SUBTASK, pa.string()))
    if description.moments:
        fields.append(pa.field(layout.MOMENT, pa.int64()))
    return pa.schema([*fields, pa.field("timestamp", pa.float32()), *(pa.field(name, pa.int64()) for name in INDICES)])


def data_table(schema: pa.Schema, episode: EpisodeWriter, number: int, first: int, tasks: np.ndarray,
               success: Optional[bool], fps: float) -> pa.Table:
    """Returns one episode's rows. first: index of its first frame in the data set; tasks: (N,) numbers."""
    length = episode.length
    frames = np.arange(length)
    label = -1 if success is None else int(success)
    columns: Dict[str, pa.Array] = {
        layout.STATE: _fixed(np.stack(episode.states)), layout.ACTION: _fixed(np.stack(episode.actions)),
        layout.SUCCESS: pa.array(np.full(length, label), pa.int64()),
        layout.CORRECTION: pa.array(episode.corrections, pa.bool_()),
        layout.GROUNDING: pa.array(episode.groundings, pa.string()), layout.MOMENT: pa.array(episode.moments, pa.int64()),
        layout.SUBTASK: pa.array(episode.subtasks, pa.string()),
        "timestamp": pa.array((frames / fps).astype(np.float32)), "frame_index": pa.array(frames, pa.int64()),
        "episode_index": pa.array(np.full(length, number), pa.int64()), "index": pa.array(first + frames, pa.int64()),
        "task_index": pa.array(tasks, pa.int64())}
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _fixed(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).ravel()), values.shape[1])


def episode_row(description: Description, number: int, tasks: List[str], length: int, first: int,
                parts: Mapping[str, Mapping[str, Any]]) -> Dict[str, Any]:
    """Returns one episode's row of `meta/episodes`. parts: feature -> its statistics over this episode."""
    chunk, file = layout.place(number)
    row: Dict[str, Any] = {"episode_index": number, "tasks": tasks, "length": length, "data/chunk_index": 0,
                           "data/file_index": 0, "dataset_from_index": first, "dataset_to_index": first + length}
    for view in description.views:
        key = f"videos/{layout.IMAGE_PREFIX}{view}"
        row.update({f"{key}/chunk_index": chunk, f"{key}/file_index": file, f"{key}/from_timestamp": 0.0,
                    f"{key}/to_timestamp": length / description.fps})
    for feature, entry in parts.items():
        row.update({f"stats/{feature}/{name}": value for name, value in entry.items() if name != "constant"})
    return {**row, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}


def write_episodes(folder: Path, rows: List[Dict[str, Any]]) -> None:
    """Writes all episodes into one file."""
    path = folder / layout.EPISODES.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), str(path))


def write_tasks(folder: Path, tasks: List[str]) -> None:
    """Writes the tasks as a pandas frame with the text as its index; the index's description is written without pandas."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    pandas = {"index_columns": ["task"], "column_indexes": [{
        "name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": {"encoding": "UTF-8"}}],
        "columns": [{"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64",
                     "metadata": None},
                    {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object",
                     "metadata": None}],
        "creator": {"library": "pyarrow", "version": pa.__version__}, "pandas_version": "2.0.0"}
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), str(folder / layout.TASKS))
