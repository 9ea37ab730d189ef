"""Writer of LeRobotDataset v3: it writes into a folder beside the target and renames it when everything is complete."""
from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hybridvla_core.data.lerobot import layout, tables
from hybridvla_core.data.lerobot.episode_writer import EpisodeWriter
from hybridvla_core.data.lerobot.footage import Footage
from hybridvla_core.data.lerobot.layout import Description, Provenance
from hybridvla_core.data.lerobot.statistics import Column, ImageHistogram, for_checkpoint, of_columns
from hybridvla_core.errors import DataError
from hybridvla_core.files import sync_folder, unused, write_json

TRAIN, VALIDATION = SPLITS = ("train", "validation")


class WriteError(DataError):
    """The disk is full or refuses to write; no further episode can be written."""


class DatasetWriter:
    """Writer of a data set, one episode after the other; the target folder does not exist before `finish`.

    An unfinished or dropped episode leaves no files. Leaving the `with` block without `finish` removes everything that was
    written.
    """

    def __init__(self, target: Path, description: Description) -> None:
        self.target, self.description, self.provenance = target, description, Provenance()
        check_free(target)
        self._folder = unused(target.resolve().parent / f".{target.resolve().name}.partial-{os.getpid()}")
        with _explained(target):
            self._folder.mkdir(parents=True)
        self._tasks: Dict[str, int] = {}
        self._rows: List[Dict[str, Any]] = []
        self._splits: List[str] = []
        self._pictures = {view: ImageHistogram() for view in description.views}
        self._columns = {key: Column(self._folder / f".columns/{key}", len(names)) for key, names in
                         ((layout.STATE, description.state_names), (layout.ACTION, description.action_names))}
        self._schema = tables.data_schema(description)
        self._parquet: Optional[pq.ParquetWriter] = None
        self._frames = 0
        self._finished = False

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *_exception: object) -> None:
        if not self._finished:
            if self._parquet is not None:
                try:
                    self._parquet.close()
                except OSError:      # the disk is full: the file is removed next
                    self._parquet = None
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def episodes(self) -> int:
        return len(self._rows)

    @property
    def frames(self) -> int:
        return self._frames

    @property
    def trains(self) -> bool:
        """Whether there is an episode to train from."""
        return TRAIN in self._splits

    @contextmanager
    def episode(self, source: str, success: Optional[bool] = None, split: str = TRAIN,
                footage: Optional[Mapping[str, Footage]] = None) -> Iterator[EpisodeWriter]:
        """Writes one episode; it counts if the block ends without an exception, and otherwise leaves nothing.

        Args:
            source: Where the episode comes from, for people: a bag, a record.
            success: Success label; None if there is none.
            split: `train` or `validation`; all `train` episodes come before the `validation` ones.
            footage: Pictures of each view, if already encoded (`footage.encode`); the frames then come without pictures.

        Yields:
            The writer of its frames.

        Raises:
            DataError: The episode has no frames, the order of splits is wrong, or the disk is full.
        """
        if split not in SPLITS:
            raise DataError(f"split {split!r} is unknown; use {' or '.join(SPLITS)}")
        if self._splits and SPLITS.index(split) < SPLITS.index(self._splits[-1]):
            raise DataError("training episodes come before validation episodes")
        with _explained(self.target):
            writer = EpisodeWriter(self._folder, self.description, len(self._rows), footage)
            try:
                yield writer
                writer.close()
                if not writer.length:
                    raise DataError(f"{source}: no frame of it can be used")
                self._keep(writer, source, success, split)
            except BaseException:
                writer.drop()
                raise

    def finish(self) -> Path:
        """Writes tables and statistics and renames the folder to its final name.

        Returns:
            The folder.

        Raises:
            DataError: There is no episode.
            WriteError: The folder cannot be renamed; it stays where the message says.
        """
        if not self._rows or self._parquet is None:
            raise DataError(f"{self.target}: no episode can be used, so no data set is written")
        with _explained(self.target):
            self._parquet.close()
            self._write_meta()
            shutil.rmtree(self._folder / ".columns")
            sync_folder(self._folder)
            self._finished = True
            try:
                os.replace(self._folder, self.target)
            except OSError as error:
                raise WriteError(f"{self.target}: the finished data set cannot take this name ({error.strerror}); it is "
                                f"complete and is in {self._folder}: move it yourself") from error
        return self.target

    def _keep(self, episode: EpisodeWriter, source: str, success: Optional[bool], split: str) -> None:
        number, length = len(self._rows), episode.length
        for text in episode.instructions:
            self._tasks.setdefault(text, len(self._tasks))
        tasks = np.array([self._tasks[text] for text in episode.instructions])
        table = tables.data_table(self._schema, episode, number, self._frames, tasks, success, self.description.fps)
        if self._parquet is None:
            path = self._folder / layout.DATA.format(chunk_index=0, file_index=0)
            path.parent.mkdir(parents=True)
            self._parquet = pq.ParquetWriter(str(path), self._schema)
        self._parquet.write_table(table, row_group_size=length)
        state, action = np.stack(episode.states), np.stack(episode.actions)
        self._columns[layout.STATE].append(state)
        self._columns[layout.ACTION].append(action)
        parts = {layout.STATE: of_columns(state), layout.ACTION: of_columns(action)}
        for view, histogram in episode.histograms().items():
            self._pictures[view].merge(histogram)
            parts[layout.IMAGE_PREFIX + view] = histogram.statistics()
        self._rows.append(tables.episode_row(self.description, number, list(dict.fromkeys(episode.instructions)), length,
                                             self._frames, parts))
        self.provenance.episodes.append({"source": source, "success": success, "split": split,
                                         "corrections": int(sum(episode.corrections))})
        self._splits.append(split)
        self._frames += length

    def _write_meta(self) -> None:
        values = {key: column.values() for key, column in self._columns.items()}
        whole = {key: of_columns(column) for key, column in values.items()}
        stats: Dict[str, Any] = {layout.IMAGE_PREFIX + view: found.statistics() for view, found in self._pictures.items()}
        stats.update({key: {name: value for name, value in entry.items() if name != "constant"}
                      for key, entry in whole.items()})
        tables.write_episodes(self._folder, self._rows)
        tables.write_tasks(self._folder, list(self._tasks))
        write_json(self._folder / layout.STATS, stats)
        write_json(self._folder / layout.STATISTICS, {self.description.name: for_checkpoint(
            whole[layout.ACTION], whole[layout.STATE], self.description.grippers, len(self._rows))})
        notes = {key: value for key, value in asdict(self.provenance).items() if value or key != "made_with"}
        write_json(self._folder / layout.OURS, {"description": asdict(self.description), **notes})
        train = self._splits.count(TRAIN)
        splits = {name: f"{begin}:{end}" for name, begin, end in
                  ((TRAIN, 0, train), (VALIDATION, train, len(self._rows))) if end > begin}
        # Written last: without info.json, no reader takes a folder for a data set.
        write_json(self._folder / layout.INFO, {
            "codebase_version": layout.VERSION, "robot_type": self.description.robot, "total_episodes": len(self._rows),
            "total_frames": self._frames, "total_tasks": len(self._tasks), "chunks_size": layout.CHUNK_FILES,
            "data_files_size_in_mb": 100, "video_files_size_in_mb": 200,
            "fps": int(self.description.fps) if float(self.description.fps).is_integer() else self.description.fps,
            "splits": splits, "data_path": layout.DATA, "video_path": layout.VIDEO,
            "features": self.description.features()})


def check_free(target: Path) -> None:
    """Checks that a `DatasetWriter` can start; for callers with work to do before the first episode.

    Args:
        target: The wanted folder.

    Raises:
        DataError: The folder exists and is not empty.
        WriteError: Nothing can be written beside it.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target}: exists and is not empty; choose another folder, nothing is overwritten")
    folder = target.resolve().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with _explained(target), tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (OSError, pa.ArrowException) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        raise WriteError(f"{target}: " + ("the disk is full; free space and start again, nothing half-written is kept" if full
                        else f"cannot be written ({' '.join(str(error).split())})")) from error


def split_of(count: int, share: float, seed: int) -> Tuple[List[int], List[int]]:
    """Draws, by `seed`, the numbers of the episodes to train from and to validate with; each in rising order."""
    held = int(round(count * share)) if count > 1 else 0
    held = min(max(held, 1 if share > 0.0 and count > 1 else 0), max(count - 1, 0))
    order = np.random.default_rng(seed).permutation(count)
    return sorted(int(i) for i in order[held:]), sorted(int(i) for i in order[:held])
