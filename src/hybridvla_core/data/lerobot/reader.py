"""Random access to a LeRobotDataset v3 or v2.1; memory holds the numbers of few episodes and pictures of one row group."""
from __future__ import annotations

import bisect
import collections
import hashlib
import json
from pathlib import Path
from typing import Dict, List, Mapping, Optional, OrderedDict, Sequence, Tuple

import numpy as np
import pyarrow as pa

from hybridvla_core.data.lerobot import episodes as of_episodes
from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.data_files import DataFiles
from hybridvla_core.data.lerobot.description import describe
from hybridvla_core.data.lerobot.rows import Rows, moments_of
from hybridvla_core.data.lerobot.statistics import Column
from hybridvla_core.data.lerobot.video import VideoShelf
from hybridvla_core.data.sample import GroundedObject, Sample, chunk_of
from hybridvla_core.errors import DataError, ObservationError
from hybridvla_core.transforms.pictures import decode

KEPT_EPISODES = 16
NUMBERS = (layout.STATE, layout.ACTION, layout.SUCCESS, layout.CORRECTION, layout.GROUNDING, layout.SUBTASK, "task_index",
           "timestamp")


class LeRobotDataset:
    """Data set in a folder, opened without reading any frame.

    Args:
        folder: Folder that holds `meta/info.json`.
        kept_episodes: Number of episodes whose numbers stay in memory.

    Raises:
        DataError: The folder is not a complete data set, or is one of another version.
    """

    def __init__(self, folder: Path, kept_episodes: int = KEPT_EPISODES) -> None:
        self.folder, self._kept = folder, kept_episodes
        if ".partial-" in folder.resolve().name:
            raise DataError(f"{folder}: was not finished; write it again")
        self.info = layout.read_json(folder / layout.INFO, "the description")
        version = self.info.get("codebase_version")
        try:
            reads = {layout.VERSION: of_episodes.of_v3, layout.OLD_VERSION: of_episodes.of_v21}[str(version)]
        except KeyError:
            raise DataError(f"{folder}: is a LeRobotDataset {version}; {layout.VERSION} and {layout.OLD_VERSION} are "
                            "read") from None
        try:
            self.episodes, self.tasks = reads(folder, self.info)
            self.fps = float(self.info["fps"])
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise DataError(f"{folder}: its tables do not fit its description ({type(error).__name__}: {error})") from error
        self._check_counts()
        self.ours = layout.read_json(folder / layout.OURS, "our notes") if (folder / layout.OURS).is_file() else {}
        self.description = describe(folder, self.info, self.ours)
        self._starts = [episode.first for episode in self.episodes]
        self._rows: OrderedDict[int, Rows] = collections.OrderedDict()
        self._files = DataFiles(folder, self.episodes, [
            key for key in (layout.IMAGE_PREFIX + view for view in self.description.views)
            if self.info["features"].get(key, {}).get("dtype") == "image"])
        self._videos = VideoShelf()

    def __len__(self) -> int:
        """Returns the number of frames."""
        return int(self.info["total_frames"])

    def close(self) -> None:
        """Closes the videos."""
        self._videos.close()

    def locate(self, index: int) -> Tuple[int, int]:
        """Returns (position in `episodes`, frame of that episode) of a frame of the data set."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        position = bisect.bisect_right(self._starts, index) - 1
        return position, index - self._starts[position]

    def frames_of(self, split: str) -> range:
        """Finds the frames of a split that `info.json` names.

        Args:
            split: Name of the split.

        Returns:
            Their numbers: none for a split that `info.json` does not name, and all for `train` if it names no split at all.

        Raises:
            DataError: The split is not a range of episodes.
        """
        splits = self.info.get("splits") or {}
        if split not in splits:
            # If only held-out splits are named, training on them would be validated by the same rows.
            return range(len(self)) if split == "train" and not splits else range(0)
        try:
            begin, end = (int(part) for part in str(splits[split]).split(":"))
            bounds = [*self._starts, len(self)]
            return range(bounds[begin], bounds[end])
        except (ValueError, IndexError) as error:
            raise DataError(f"{self.folder}: split {split} is {splits[split]!r}; it must be BEGIN:END in episodes") from error

    def sample(self, index: int, chunk: int = 1, images: Optional[Mapping[str, np.ndarray]] = None,
               views: Optional[Mapping[str, str]] = None) -> Sample:
        """Reads one moment.

        Args:
            index: Frame of the data set.
            chunk: Actions of the sample (K); above 1 only if consecutive rows follow each other in time. Rows of another task
                end the chunk, as the episode's end does.
            images: Pictures of the moment, if the caller has them already; otherwise they are decoded. Grounding in other views
                is left out.
            views: Name of each of these pictures -> its name in the data set; None if they are the same.

        Returns:
            Pictures, state (A,), actions (K, A) and the instruction, physical units.

        Raises:
            DataError: A file is damaged or a number cannot be used; the message names episode and frame.
        """
        if chunk > 1 and self.description.labels == layout.NEXT_KEYFRAME:
            raise DataError(f"{self.folder}: every row leads to the next keyframe, so consecutive rows do not make a chunk; "
                            "use chunk 1, or write the data set with keyframes or dense actions")
        position, frame = self.locate(index)
        rows, episode = self.rows(position), self.episodes[position]
        others = np.flatnonzero(rows.tasks[frame:frame + chunk] != rows.tasks[frame])
        actions, padding = chunk_of(rows.action[:frame + others[0]] if len(others) else rows.action, frame, chunk)
        shown = self._images(position, frame, rows) if images is None else images
        return Sample(shown, rows.state[frame], actions, padding, self._instruction(int(rows.tasks[frame]), episode.number),
                      episode.number, frame, layout.SUCCESS_VALUES.get(int(rows.success[frame])), bool(rows.correction[frame]),
                      _grounding(rows.grounding[frame], views or {view: view for view in shown}) if rows.grounding else (),
                      rows.subtasks[frame] if rows.subtasks else "")

    def identity(self, views: Sequence[str] = ()) -> str:
        """Returns a digest of all that the set says about itself and its numbers, and of `views`; it identifies the set."""
        found = hashlib.sha256(json.dumps(list(views)).encode())
        for name in (layout.INFO, layout.OURS, layout.STATS, layout.STATISTICS):
            if (self.folder / name).is_file():
                found.update(name.encode() + (self.folder / name).read_bytes())
        return found.hexdigest()

    def rows(self, position: int) -> Rows:
        """Returns the numbers of one episode; the last few episodes are kept in memory."""
        if position not in self._rows:
            self._rows[position] = self._read(position)
            if len(self._rows) > self._kept:
                self._rows.popitem(last=False)
        self._rows.move_to_end(position)
        return self._rows[position]

    def column(self, key: str, scratch: Path) -> np.ndarray:
        """Reads one column of the whole set.

        Args:
            key: `observation.state` or `action`.
            scratch: Folder for the file of the column.

        Returns:
            All rows, (N, A) float32, memory-mapped from that folder.

        Raises:
            DataError: A number is not finite: it allows no statistics, and would end a training at the step that draws it.
        """
        column, broken = Column(scratch / key, len(self._names(key))), []
        for episode, found in zip(self.episodes, self._files.tables(range(len(self.episodes)), (key,))):
            rows = self._matrix(found.table, key, f"{self.folder}: episode {episode.number}")
            broken += [(episode.number, frame) for frame in np.flatnonzero(~np.isfinite(rows).all(axis=1))]
            column.append(rows)
        if broken:
            number, frame = broken[0]
            raise DataError(f"{self.folder}: {key} holds a number that is not finite in {len(broken)} row(s), first in episode "
                            f"{number}, frame {frame}; `hybridvla dataset merge` of this set leaves out such episodes")
        return column.values()

    def subtasks(self) -> Tuple[str, ...]:
        """Returns the names of the task steps in the rows, each once, in alphabetical order; none if the rows have none."""
        if not self.description.subtasks:
            return ()
        tables = self._files.tables(range(len(self.episodes)), (layout.SUBTASK,))
        return tuple(sorted({name for table, _ in tables for name in table[layout.SUBTASK].unique().to_pylist() if name}))

    def moments(self) -> np.ndarray:
        """Returns the number of the moment that each frame shows, (N,) rising from 0 without gaps over the whole data set."""
        if not self.description.moments:
            return np.arange(len(self))
        found: List[np.ndarray] = []
        first = 0
        for read in self._files.tables(range(len(self.episodes)), (layout.MOMENT,)):
            moments = moments_of(read.table)
            found.append(first + moments)
            first += len(np.unique(moments))
        return np.concatenate(found)

    def _instruction(self, task: int, episode: int) -> str:
        if task not in self.tasks:
            raise DataError(f"{self.folder}: episode {episode} names task {task}, which the data set does not have")
        return self.tasks[task]

    def _images(self, position: int, frame: int, rows: Rows) -> Dict[str, np.ndarray]:
        episode = self.episodes[position]
        where = f"{self.folder}: episode {episode.number}, frame {frame}"
        found: Dict[str, np.ndarray] = {}
        beside = self._files.pictures(position, int(rows.places[frame]))
        for view in self.description.views:
            key = layout.IMAGE_PREFIX + view
            if key in beside:
                try:
                    found[view] = decode(beside[key], f"{where}, view {view}")
                except ObservationError as error:
                    raise DataError(str(error)) from error
            else:
                path, begin = episode.videos[key]
                found[view] = self._videos.frame(path, begin + float(rows.timestamps[frame]), self.fps, where)
            if found[view].shape[:2] != tuple(self.description.views[view]):
                raise DataError(f"{where}: view {view} is {found[view].shape[:2]}, the description says "
                                f"{self.description.views[view]}")
        return found

    def _read(self, position: int) -> Rows:
        where = f"{self.folder}: episode {self.episodes[position].number}"
        numbers = (*NUMBERS, layout.MOMENT) if self.description.moments else NUMBERS
        ((table, places),) = self._files.tables((position,), numbers)
        names, length = table.column_names, table.num_rows
        return Rows(
            _own(self._matrix(table, layout.STATE, where)), _own(self._matrix(table, layout.ACTION, where)),
            _own(table["task_index"].to_numpy()),
            _own(table[layout.SUCCESS].to_numpy()) if layout.SUCCESS in names else np.full(length, -1),
            _own(table[layout.CORRECTION].to_numpy()) if layout.CORRECTION in names else np.zeros(length, dtype=bool),
            _own(table["timestamp"].to_numpy()), table[layout.GROUNDING].to_pylist() if layout.GROUNDING in names else None,
            table[layout.SUBTASK].to_pylist() if layout.SUBTASK in names else None, moments_of(table), _own(places))

    def _matrix(self, table: pa.Table, key: str, where: str) -> np.ndarray:
        width = len(self._names(key))
        column = table[key].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
        flat = column.flatten().to_numpy(zero_copy_only=False) if hasattr(column, "flatten") else column.to_numpy()
        if flat.size != table.num_rows * width:
            raise DataError(f"{where}: {key} has {flat.size} numbers in {table.num_rows} rows; {width} per row are described")
        return np.asarray(flat, dtype=np.float32).reshape(-1, width)

    def _names(self, key: str) -> Tuple[str, ...]:
        return self.description.state_names if key == layout.STATE else self.description.action_names

    def _check_counts(self) -> None:
        frames = sum(episode.length for episode in self.episodes)
        for key, found in (("total_frames", frames), ("total_episodes", len(self.episodes))):
            if self.info.get(key) != found:
                raise DataError(f"{self.folder}: {key} is {self.info.get(key)} by its description and {found} by its episodes; "
                                "it was not finished or was changed by hand")


def _own(values: np.ndarray) -> np.ndarray:
    """Returns a copy: a view of a row group that many episodes share would keep the whole group in memory."""
    copied = np.array(values)
    copied.setflags(write=False)
    return copied


def _grounding(line: str, views: Mapping[str, str]) -> Tuple[GroundedObject, ...]:
    """Returns the grounding of a line in some views, under the caller's names of them."""
    return tuple([GroundedObject.from_json(item, views) for item in json.loads(line)])
