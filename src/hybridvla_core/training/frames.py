"""Samples of data sets with pictures fitted for the towers: decoded each time, or once into memory-mapped files."""
from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
from torch.utils.data import DataLoader, Dataset

from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.data.sample import Sample
from hybridvla_core.errors import DataError, ObservationError
from hybridvla_core.files import write_text
from hybridvla_core.model.config import TowerConfig
from hybridvla_core.transforms.images import PreparedImage
from hybridvla_core.transforms.normalise import Normaliser
from hybridvla_core.transforms.prompt import PromptEncoder

#: Number of episodes whose numbers stay in memory: some kilobytes each.
KEPT_EPISODES = 4096
#: Number of frames after which pictures are flushed to the disk, and of consecutive frames (of one video) per decoding task.
FLUSHED, TOGETHER = 500, 50
#: Files beside kept pictures: content of each file, and the number of complete frames.
KEYS, DONE = "keys.json", "done"
GIB = 2 ** 30
Fitted = Dict[Any, np.ndarray]


@dataclass(frozen=True)
class Pictures:
    """Fitting of pictures.

    Attributes:
        views: The model's views, in order.
        towers: Its vision towers.
        strategy: How a picture is made square.
    """

    views: Tuple[str, ...]
    towers: Tuple[TowerConfig, ...]
    strategy: str

    def fit(self, images: Dict[str, np.ndarray]) -> Fitted:
        """Returns key of a picture -> (V, S, S, 3) uint8."""
        prepared = [PreparedImage(images[view], view, self.towers, self.strategy).fitted for view in self.views]
        return {key: np.stack([views[key] for views in prepared]) for key in prepared[0]}

    @property
    def digest(self) -> str:
        """Returns a digest of everything that fitted pictures depend on."""
        text = json.dumps([self.views, [vars(tower) for tower in self.towers], self.strategy], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class FrameSet:
    """One data set as the trainer reads it.

    Args:
        dataset: Opened data set.
        views: Its own names for the model's views, in the model's order.
        pictures: Fitting of its pictures.
        scales: Scales by which its numbers are normalised.
        chunk: Actions per sample.
    """

    def __init__(self, dataset: LeRobotDataset, views: Sequence[str], pictures: Pictures, scales: Normaliser, chunk: int) -> None:
        self.dataset, self.pictures, self.scales, self.chunk = dataset, pictures, scales, chunk
        self._views = tuple(views)
        self._names = dict(zip(pictures.views, self._views))
        self._kept: Optional[Fitted] = None
        self.train, self.validation = dataset.frames_of("train"), dataset.frames_of("validation")
        self._moments = dataset.moments()
        if not len(self.train):
            splits = json.dumps(dataset.info.get("splits") or {})
            raise DataError(f"{dataset.folder}: has no frame to train on; its splits are {splits}; write it again with "
                            "training episodes (from-bags: --validation 0)")
        self._firsts = np.searchsorted(self._moments, np.arange(self.pictures_kept + 1))     # first frame of each moment, and end

    @property
    def name(self) -> str:
        return self.dataset.description.name

    @property
    def pictures_kept(self) -> int:
        """Number of moments of the data set: the pictures of each are kept once."""
        return int(self._moments[-1]) + 1

    @property
    def most(self) -> int:
        """Number of frames of the moment that has most of them."""
        return int(np.bincount(self._moments).max())

    def size(self, draw: str) -> int:
        """Returns how many `rows` or `moments` there are to train from."""
        return len(self.train) if draw == "rows" else int(self._moments[self.train[-1]] - self._moments[self.train[0]]) + 1

    def drawn(self, draw: str, place: int) -> range:
        """Returns the training frames that a place below `size` stands for: one row, or those of one moment."""
        if draw == "rows":
            return self.train[place:place + 1]
        return self._frames_of(int(self._moments[self.train[0]]) + place)

    def moment(self, frame: int) -> range:
        """Finds the frames that show the same moment as `frame`."""
        return self._frames_of(int(self._moments[frame]))

    def _frames_of(self, moment: int) -> range:
        return range(int(self._firsts[moment]), int(self._firsts[moment + 1]))

    def read(self, frames: Sequence[int]) -> Tuple[List[Sample], Fitted]:
        """Reads frames of one moment.

        Args:
            frames: Frames of the data set.

        Returns:
            A sample for each, with the model's views in its order, and the fitted pictures that they share: those of the
            moment's first frame.

        Raises:
            DataError: A frame cannot be read; the message names episode and frame.
        """
        images: Mapping[str, np.ndarray]
        if self._kept is None:
            first = self.dataset.sample(self.moment(frames[0]).start, self.chunk)
            fitted, images = self._fit(first), {ours: first.images[theirs] for ours, theirs in self._names.items()}
        else:
            moment = int(self._moments[frames[0]])
            fitted = {key: values[moment] for key, values in self._kept.items()}
            shown = next(iter(fitted.values()))
            images = {ours: shown[index] for index, ours in enumerate(self._names)}
        # If a moment has fewer frames than there are labels, some of them are repeated.
        made = {frame: self.dataset.sample(frame, self.chunk, images, self._names) for frame in dict.fromkeys(frames)}
        return [made[frame] for frame in frames], fitted

    def check_texts(self, prompts: PromptEncoder) -> None:
        """Checks that the model can read every task of the set; a step that draws an unreadable one would end the run.

        Args:
            prompts: Encoder of instructions to ids.

        Raises:
            DataError: A task cannot be read; the message names set and text.
        """
        for text in self.dataset.tasks.values():
            try:
                prompts.text_ids(text)
            except ObservationError as error:
                raise DataError(f"{self.dataset.folder}: nothing can be trained with the task {text[:200]!r}: {error}; give its "
                                "episodes another sentence, or leave them out") from error

    def keep(self, folder: Path, progress: Callable[[int], object] = lambda count: None, workers: int = 0) -> None:
        """Decodes every picture once, into `folder`, and reads from there afterwards; pictures that exist already are used.

        If the work is interrupted, decoded pictures are kept and the next call continues from them; only on a full disk are they
        removed. `workers` processes decode; with none, this process does.

        Raises:
            DataError: A picture cannot be read, or the disk is full.
        """
        whole = folder / f"{self.name}-{self.pictures.digest}-{self.dataset.identity(self._views)[:12]}"
        if not whole.is_dir():
            partial = folder / f".{whole.name}.partial"
            try:
                self._decode(partial, progress, workers)
                os.replace(partial, whole)
            except OSError as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise DataError(f"{folder}: pictures cannot be kept there ({error.strerror}); make room, or write keep_frames: "
                                "false") from error
        names = json.loads((whole / KEYS).read_text(encoding="utf-8"))
        # Plain arrays over the mapped files, because slicing a `memmap` is slower.
        self._kept = {_tuples(key): np.asarray(np.load(whole / file, mmap_mode="r")) for file, key in names}

    def _decode(self, folder: Path, progress: Callable[[int], object], workers: int) -> None:
        first = self._fit(self.dataset.sample(0))
        files = [folder / f"{index}.npy" for index in range(len(first))]
        done = int((folder / DONE).read_text(encoding="utf-8")) if (folder / DONE).is_file() else 0
        if not done:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            # A disk that fills up under a mapped file kills the process without a message.
            needed = self.pictures_kept * sum(pictures.nbytes for pictures in first.values())
            free = shutil.disk_usage(folder).free
            if needed > free:
                raise OSError(errno.ENOSPC, f"they need {needed / GIB:.3g} GiB, and {free / GIB:.3g} GiB are free")
            (folder / KEYS).write_text(json.dumps([[file.name, key] for file, key in zip(files, first)]), encoding="utf-8")
        arrays = [np.load(file, mmap_mode="r+") if done else _mapped(file, (self.pictures_kept, *pictures.shape))
                  for file, pictures in zip(files, first.values())]
        progress(done)
        parts = [range(begin, min(begin + TOGETHER, self.pictures_kept))
                 for begin in range(done, self.pictures_kept, TOGETHER)]
        loader = DataLoader(_Decoding(self), sampler=parts, batch_size=None, num_workers=workers)
        for part, fitted in zip(parts, loader):
            if isinstance(fitted, DataError):
                raise fitted
            for array, pictures in zip(arrays, fitted.values()):
                array[part.start:part.stop] = pictures
            progress(len(part))
            if part.stop // FLUSHED > part.start // FLUSHED or part is parts[-1]:
                for array in arrays:
                    array.flush()
                write_text(folder / DONE, str(part.stop))

    def decoded(self, numbers: range) -> Fitted:
        """Decodes the fitted pictures of consecutive moments anew."""
        found = [self._fit(self.dataset.sample(int(self._firsts[number]))) for number in numbers]
        return {key: np.stack([fitted[key] for fitted in found]) for key in found[0]}

    def _fit(self, sample: Sample) -> Fitted:
        return self.pictures.fit({ours: sample.images[theirs] for ours, theirs in zip(self.pictures.views, self._views)})


class _Decoding(Dataset):  # type: ignore[misc,unused-ignore]
    """Pictures by moments; if some cannot be read, the error itself is returned, so that its message is preserved."""

    def __init__(self, frames: FrameSet) -> None:
        self.frames = frames

    def __getitem__(self, numbers: range) -> Union[Fitted, DataError]:
        try:
            return self.frames.decoded(numbers)
        except DataError as error:
            return error


def _mapped(path: Path, shape: Tuple[int, ...]) -> np.memmap:
    """Creates a file in numpy's format, written through memory."""
    array: np.memmap = np.lib.format.open_memmap(str(path), "w+", np.uint8, shape)  # type: ignore[no-untyped-call]
    return array


def _tuples(value: object) -> object:
    """Turns lists of a JSON file back into the tuples that they were."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
