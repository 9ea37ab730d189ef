"""Encoding of an episode's pictures as videos while they arrive, with statistics of a sample; here or in another process."""
from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np

from hybridvla_core.data.lerobot.statistics import ImageHistogram
from hybridvla_core.data.lerobot.video import VideoWriter
from hybridvla_core.errors import DataError

SAMPLED_PICTURES = 32       # per episode and view, for the statistics of pictures


@dataclass(frozen=True)
class Footage:
    """One view of an episode, encoded.

    Attributes:
        video: Bytes of the file.
        frames: Number of frames in it.
        histogram: Histogram of some of its pictures.
    """

    video: bytes
    frames: int
    histogram: ImageHistogram


class FootageWriter:
    """Writer of the videos of one episode, one per view; they are complete only once `close` has been called.

    Args:
        paths: View -> file.
        sizes: View -> (height, width), pixels.
        fps: Frames per second.
    """

    def __init__(self, paths: Mapping[str, Path], sizes: Mapping[str, Tuple[int, int]], fps: float) -> None:
        self._paths, self._sizes, self._fps = dict(paths), sizes, fps
        self._videos: Dict[str, VideoWriter] = {}
        self._sampled: Dict[str, List[np.ndarray]] = {view: [] for view in paths}
        self._frames, self._every = 0, 1

    def add(self, images: Mapping[str, np.ndarray]) -> None:
        """Adds a frame. images: view -> (height, width, 3) uint8 RGB, all views."""
        for view, image in images.items():
            if view not in self._videos:
                self._videos[view] = VideoWriter(self._paths[view], *self._sizes[view], self._fps)
            self._videos[view].add(image)
            self._sample(view, image)
        self._frames += 1

    def _sample(self, view: str, image: np.ndarray) -> None:
        kept = self._sampled[view]
        if self._frames % self._every == 0:
            kept.append(image.copy())
        if len(kept) > SAMPLED_PICTURES:      # every second one is dropped, so that memory stays bounded in long episodes
            for pictures in self._sampled.values():
                del pictures[1::2]
            self._every *= 2

    def histograms(self) -> Dict[str, ImageHistogram]:
        """Returns view -> histogram so far."""
        found = {view: ImageHistogram() for view in self._sampled}
        for view, pictures in self._sampled.items():
            for picture in pictures:
                found[view].add(picture)
        return found

    def close(self) -> None:
        """Finishes the videos."""
        videos, self._videos = list(self._videos.values()), {}
        for video in videos:
            video.close()

    def drop(self) -> None:
        """Removes the files on disk."""
        try:
            self.close()
        except OSError:              # a video that cannot be finished is removed all the same
            self._videos = {}
        for path in self._paths.values():
            path.unlink(missing_ok=True)


def encode(images: Mapping[str, Sequence[np.ndarray]], fps: float) -> Dict[str, Footage]:
    """Encodes the pictures of an episode exactly as the data set writer does.

    Args:
        images: View -> pictures (height, width, 3) uint8 RGB, one per frame.
        fps: Frames per second.

    Returns:
        View -> footage, which `DatasetWriter.episode` takes in place of pictures.

    Raises:
        DataError: A picture differs in size from the first of its view, or the views differ in their number of pictures.
    """
    if len({len(pictures) for pictures in images.values()}) > 1:
        lengths = ", ".join(f"{view} {len(pictures)}" for view, pictures in images.items())
        raise DataError(f"the views of an episode have different numbers of pictures ({lengths}); record one "
                        "per view and frame")
    sizes = {view: (pictures[0].shape[0], pictures[0].shape[1]) for view, pictures in images.items()}
    with tempfile.TemporaryDirectory(prefix="hybridvla-") as folder:
        paths = {view: Path(folder) / f"{number}.mp4" for number, view in enumerate(images)}
        writer = FootageWriter(paths, sizes, fps)
        frames = list(zip(*images.values()))
        for pictures in frames:
            writer.add(dict(zip(images, pictures)))
        writer.close()
        histograms = writer.histograms()
        return {view: Footage(path.read_bytes(), len(frames), histograms[view]) for view, path in paths.items()}
