"""Videos of simulated episodes: a wrapper of a rig that draws all views side by side while time passes."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Optional, Sequence

import numpy as np

from hybridvla_core.data.lerobot.video import BROKEN, VideoWriter
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.episode import SimulatedRig
from hybridvla_sim.task import EpisodeSpec

#: Pictures per simulated second.
RATE_HZ = 10.0
WORDS = 150     # characters of the instructions in a file's name


class Filmed:
    """A rig that is filmed while it steps; everything else is the rig's own.

    Args:
        rig: Rig that the episode runs on.
        camera: The same rig, if `rig` hides its pictures.
        views: Views in the order of the picture, from the left.
        folder: Folder of the videos; made if it is missing.
    """

    def __init__(self, rig: SimulatedRig, camera: SimulatedRig, views: Sequence[str], folder: Path) -> None:
        self._rig, self._camera, self._views, self._folder = rig, camera, tuple(views), folder
        self._writer: Optional[VideoWriter] = None
        self._path, self._next = folder, 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._rig, name)

    def step(self, seconds: float) -> None:
        """Lets time pass, and draws a picture when one is due.

        Raises:
            HybridVLAError: The video cannot be written.
        """
        self._rig.step(seconds)
        if self._rig.time >= self._next - 1e-9:
            self._next += 1.0 / RATE_HZ
            self._draw()

    def begin(self, task: str, spec: EpisodeSpec) -> None:
        """Begins the video of an episode; an earlier one of the same name is replaced when this one ends."""
        words = f"{spec.instruction} then {spec.second}" if spec.second else spec.instruction
        slug = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[:WORDS]
        self._path, self._writer, self._next = self._folder / f"{task}-{spec.seed}-{slug}", None, self._rig.time

    def end(self, success: bool) -> None:
        """Ends the video; its name then says how the episode ended.

        Raises:
            HybridVLAError: The video cannot be written.
        """
        if self._writer is None:
            return
        try:
            self._writer.close()
            self._unnamed.replace(self._path.with_name(f"{self._path.name}-{'success' if success else 'failure'}.mp4"))
        except BROKEN as error:
            raise self._cannot(error) from error
        finally:
            self._writer = None

    @property
    def _unnamed(self) -> Path:
        """Name of a video whose episode has not ended; the muxer needs the suffix."""
        return self._path.with_name(f".{self._path.name}.mp4")

    def _draw(self) -> None:
        pictures = [np.asarray(self._camera.render(view)) for view in self._views]
        tallest = max(len(picture) for picture in pictures)
        image = np.concatenate([np.pad(picture, ((0, tallest - len(picture)), (0, 0), (0, 0))) for picture in pictures], axis=1)
        try:
            if self._writer is None:
                self._writer = VideoWriter(self._unnamed, *image.shape[:2], RATE_HZ, keyframe_distance=int(RATE_HZ))
            self._writer.add(image)
        except BROKEN as error:
            raise self._cannot(error) from error

    def _cannot(self, error: BaseException) -> HybridVLAError:
        return HybridVLAError(f"--film {self._folder}: {self._path.name}.mp4 cannot be written ({' '.join(str(error).split())}); "
                              "make room, or name another folder")
