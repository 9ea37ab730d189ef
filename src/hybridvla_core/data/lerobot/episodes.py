"""Location of each episode of a data set: v3 from its tables, v2.1 from its lines of JSON."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import pyarrow as pa
import pyarrow.parquet as pq

from hybridvla_core.data.lerobot import layout
from hybridvla_core.errors import DataError


@dataclass(frozen=True)
class Episode:
    """One episode on disk.

    Attributes:
        number: Number of the episode in the data set.
        first: Index of its first frame in the data set.
        length: Number of frames.
        data: Its parquet file.
        videos: Video key -> (file, start within the file, s).
    """

    number: int
    first: int
    length: int
    data: Path
    videos: Mapping[str, Tuple[Path, float]]


def video_keys(info: Mapping[str, Any]) -> List[str]:
    """Returns the features that are stored in video files."""
    return [key for key, feature in info["features"].items() if feature["dtype"] == "video"]


def of_v3(folder: Path, info: Mapping[str, Any]) -> Tuple[List[Episode], Dict[int, str]]:
    """Returns (episodes, task number -> text) of a v3 data set."""
    keys = video_keys(info)
    wanted = ["episode_index", "length", "dataset_from_index", "data/chunk_index", "data/file_index"]
    wanted += [f"videos/{key}/{name}" for key in keys for name in ("chunk_index", "file_index", "from_timestamp")]
    rows: List[Dict[str, Any]] = []
    for path in sorted((folder / "meta/episodes").glob("*/*.parquet")):
        rows += read_table(path, wanted).to_pylist()
    table = read_table(folder / layout.TASKS, None).to_pydict()
    texts = table.get("task") or table.get("__index_level_0__")
    if texts is None or "task_index" not in table:
        raise DataError(f"{folder / layout.TASKS}: holds no task_index and no texts")
    data, video = str(info["data_path"]), str(info.get("video_path") or layout.VIDEO)
    episodes = [Episode(
        row["episode_index"], row["dataset_from_index"], row["length"],
        folder / data.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]),
        {key: (folder / video.format(video_key=key, chunk_index=row[f"videos/{key}/chunk_index"],
                                     file_index=row[f"videos/{key}/file_index"]), row[f"videos/{key}/from_timestamp"])
         for key in keys}) for row in rows]
    return sorted(episodes, key=lambda item: item.first), dict(zip(table["task_index"], texts))


def of_v21(folder: Path, info: Mapping[str, Any]) -> Tuple[List[Episode], Dict[int, str]]:
    """Returns (episodes, task number -> text) of a v2.1 data set, which has one file per episode."""
    keys, chunk = video_keys(info), int(info.get("chunks_size", layout.CHUNK_FILES))
    data, video = str(info["data_path"]), str(info.get("video_path") or "")
    episodes, first = [], 0
    for row in _lines(folder / "meta/episodes.jsonl"):
        number, length = int(row["episode_index"]), int(row["length"])
        names = {"episode_chunk": number // chunk, "episode_index": number}
        episodes.append(Episode(number, first, length, folder / data.format(**names), {
            key: (folder / video.format(video_key=key, **names), 0.0) for key in keys}))
        first += length
    return episodes, {int(row["task_index"]): str(row["task"]) for row in _lines(folder / "meta/tasks.jsonl")}


def read_table(path: Path, columns: Optional[List[str]]) -> pa.Table:
    """Reads a parquet file.

    Args:
        path: Path of the file.
        columns: Wanted columns; None for all.

    Returns:
        The table.

    Raises:
        DataError: The file is missing or damaged, or lacks a column.
    """
    try:
        return pq.read_table(str(path), columns=columns, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); damaged or absent") from error


def _lines(path: Path) -> List[Dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
