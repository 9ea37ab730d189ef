"""Parquet files of a data set: each footer is read once, only the requested data are read, and no file stays open."""
from __future__ import annotations

import collections
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, OrderedDict, Sequence, Set, Tuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hybridvla_core.data.lerobot.episodes import Episode
from hybridvla_core.errors import DataError

KEPT_FOOTERS = 16
#: Most rows that are read at once when many episodes are read; a longer row group is read whole.
ROWS_AT_ONCE = 65536
NUMBER = "episode_index"


class EpisodeTable(NamedTuple):
    """Columns of one episode of N rows.

    Attributes:
        table: Columns that exist.
        places: (N,) row numbers in the data file.
    """

    table: pa.Table
    places: np.ndarray


class PictureGroup(NamedTuple):
    """Encoded pictures of a row group, as stored in the file."""

    path: Path
    group: int
    table: pa.Table


@dataclass(frozen=True)
class Footer:
    """Footer of a parquet file with G row groups.

    Attributes:
        metadata: The whole footer, with which pyarrow opens the file without reading the footer again.
        names: Names of the columns.
        begins: (G + 1,) first row of each group, then the number of rows in the file.
        least: (G,) least episode number of each group.
        greatest: (G,) greatest episode number. A group without statistics may hold any episode.
    """

    metadata: pq.FileMetaData
    names: Tuple[str, ...]
    begins: np.ndarray
    least: np.ndarray
    greatest: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Footer:
        """Reads the footer of a file.

        Args:
            path: Path of the file.

        Returns:
            The footer; it no longer changes and holds no file open, so forked processes share it.

        Raises:
            OSError: The file is missing or cannot be read.
            pa.ArrowException: The file is damaged.
            ValueError: The file does not say which episode a row belongs to.
        """
        with pq.ParquetFile(str(path)) as source:
            metadata, names = source.metadata, tuple(source.schema_arrow.names)
        column = [metadata.schema.column(index).path for index in range(metadata.num_columns)].index(NUMBER)
        any_number = np.iinfo(np.int64)
        sizes, bounds = [0], []
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            known = group.column(column).statistics
            told = known is not None and known.has_min_max
            sizes.append(group.num_rows)
            bounds.append((known.min, known.max) if told else (any_number.min, any_number.max))
        least, greatest = np.array(bounds, dtype=np.int64).reshape(-1, 2).T
        return cls(metadata, names, np.cumsum(sizes), least, greatest)

    def groups(self, number: int) -> List[int]:
        """Returns the row groups that may hold an episode, in the order of the file."""
        return [int(group) for group in np.flatnonzero((self.least <= number) & (number <= self.greatest))]

    def length(self, group: int) -> int:
        """Returns the number of rows of a group."""
        return int(self.begins[group + 1] - self.begins[group])


class DataFiles:
    """Reader of the data files of a data set; it also works in processes forked from one that has already read.

    Args:
        folder: Folder of the data set, for messages.
        episodes: Location of each episode.
        pictures: Columns of encoded pictures, if these are stored beside the numbers.
    """

    def __init__(self, folder: Path, episodes: Sequence[Episode], pictures: Sequence[str]) -> None:
        self._folder, self._episodes, self._columns = folder, episodes, list(pictures)
        self._footers: OrderedDict[Path, Footer] = collections.OrderedDict()
        self._group: Optional[PictureGroup] = None

    def tables(self, positions: Sequence[int], wanted: Sequence[str]) -> Iterator[EpisodeTable]:
        """Reads columns of episodes, many episodes at once if they are stored together.

        Args:
            positions: Positions of the episodes.
            wanted: Wanted columns; those that a file lacks are left out.

        Yields:
            One table per episode, in the order of `positions`.

        Raises:
            DataError: A file is damaged or missing, or an episode's number of rows is not the described one.
        """
        for run, groups in self._runs(positions):
            yield from self._read(run, groups, wanted)

    def pictures(self, position: int, place: int) -> Dict[str, bytes]:
        """Reads the pictures of one row; those of its row group are kept until another group is wanted.

        Args:
            position: Position of its episode.
            place: Row of the data file.

        Returns:
            Column -> encoded picture.

        Raises:
            DataError: The file is damaged or missing, or holds no such picture.
        """
        if not self._columns:
            return {}
        path, footer, held = self._episodes[position].data, self._footer(position), self._group
        group = int(np.searchsorted(footer.begins, place, "right")) - 1
        with self._explained((position,)):
            if held is None or (held.path, held.group) != (path, group):
                held = self._group = None            # never hold two groups in memory
                with pq.ParquetFile(str(path), metadata=footer.metadata) as source:
                    table = source.read_row_group(group, columns=self._columns, use_threads=False)
                held = self._group = PictureGroup(path, group, table)
            row = place - int(footer.begins[group])
            found = {key: held.table[key][row]["bytes"].as_py() for key in self._columns}
        for key, encoded in found.items():
            if encoded is None:
                raise DataError(f"{self._where((position,))}: {path} holds no picture of {key} in row {place}")
        return found

    def _runs(self, positions: Sequence[int]) -> Iterator[Tuple[List[int], Set[int]]]:
        """Yields (consecutive episodes, row groups that one read of them needs)."""
        run: List[int] = []
        held: Set[int] = set()
        rows = 0
        for position in positions:
            episode, footer = self._episodes[position], self._footer(position)
            groups = set(footer.groups(episode.number))
            more = sum(footer.length(group) for group in groups - held)
            if run and (episode.data != self._episodes[run[0]].data or more and rows + more > ROWS_AT_ONCE):
                yield run, held
                run, held, rows = [], set(), 0
                more = sum(footer.length(group) for group in groups)
            run.append(position)
            held |= groups
            rows += more
        if run:
            yield run, held

    def _read(self, run: Sequence[int], groups: Set[int], wanted: Sequence[str]) -> Iterator[EpisodeTable]:
        footer, path, chosen = self._footer(run[0]), self._episodes[run[0]].data, sorted(groups)
        with self._explained(run):
            names = [name for name in (*wanted, NUMBER) if name in footer.names]
            with pq.ParquetFile(str(path), metadata=footer.metadata) as source:
                table = source.read_row_groups(chosen, columns=names, use_threads=False).combine_chunks()
            numbers = table[NUMBER].to_numpy()
        places = np.concatenate([np.arange(*footer.begins[group:group + 2]) for group in chosen] or [np.zeros(0, dtype=np.int64)])
        found = {int(number): (int(begin), int(count))
                 for number, begin, count in zip(*np.unique(numbers, return_index=True, return_counts=True))}
        for position in run:
            episode = self._episodes[position]
            begin, count = found.get(episode.number, (0, 0))
            if count != episode.length:
                raise DataError(f"{self._where((position,))}: has {count} rows in {episode.data} and {episode.length} by its "
                                "description")
            yield EpisodeTable(table.slice(begin, count), places[begin:begin + count])

    def _footer(self, position: int) -> Footer:
        path = self._episodes[position].data
        if path not in self._footers:
            with self._explained((position,)):
                self._footers[path] = Footer.read(path)
            if len(self._footers) > KEPT_FOOTERS:
                self._footers.popitem(last=False)
        self._footers.move_to_end(path)
        return self._footers[path]

    def _where(self, run: Sequence[int]) -> str:
        first, last = self._episodes[run[0]].number, self._episodes[run[-1]].number
        return f"{self._folder}: " + (f"episode {first}" if len(run) == 1 else f"episodes {first} to {last}")

    @contextmanager
    def _explained(self, run: Sequence[int]) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise DataError(f"{self._where(run)}: {self._episodes[run[0]].data} cannot be read "
                            f"({' '.join(str(error).split())[:200]}); the file is damaged or absent") from error
