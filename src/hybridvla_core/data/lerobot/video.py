"""H.264 video files of one view, written and read. A keyframe every second frame keeps random access cheap."""
from __future__ import annotations

import collections
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, OrderedDict

import av
import numpy as np

from hybridvla_core.data.lerobot.layout import pixel_format
from hybridvla_core.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer

KEYFRAME_DISTANCE = 2
QUALITY = "20"              # x264's constant rate factor: about 40 dB
OPEN_FILES = 8
BROKEN = (av.error.FFmpegError, OSError, ValueError, EOFError)


class VideoWriter:
    """Writer of one file, which is complete only once `close` has been called.

    Args:
        path: Path of the file; its folder is made if it is missing.
        height, width: Size of every picture, pixels.
        fps: Pictures per second.
        keyframe_distance: Pictures from one keyframe to the next. A film that is only watched may have few.
    """

    def __init__(self, path: Path, height: int, width: int, fps: float, keyframe_distance: int = KEYFRAME_DISTANCE) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._shape = path, (height, width, 3)
        self._container = av.open(str(path), "w")
        rate = Fraction(fps).limit_denominator(1000)
        self._stream: Any = self._container.add_stream("libx264", rate=rate, options={
            "g": str(keyframe_distance), "bf": "0", "crf": QUALITY, "preset": "veryfast"})
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = pixel_format(height, width)
        self._stream.thread_count = 1

    def add(self, image: np.ndarray) -> None:
        """Adds an image (height, width, 3) uint8 RGB."""
        if image.shape != self._shape or image.dtype != np.uint8:
            raise DataError(f"{self._path.name}: an image is {image.dtype} {image.shape}, the video {self._shape} uint8")
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")):
            self._container.mux(packet)

    def close(self) -> None:
        """Writes the frames still in the encoder, and the index."""
        try:
            for packet in self._stream.encode():
                self._container.mux(packet)
        finally:
            self._container.close()


#: If several threads convert colours, a forked process waits forever for the threads of its parent. PyAV below 15 always uses
#: one thread.
ONE_THREAD: Dict[str, Any] = {"threads": 1} if "threads" in str(av.VideoFrame.reformat.__doc__) else {}


class VideoShelf:
    """Reader of single frames that keeps the last few files open.

    A forked process shares the position in an open file with its parent, so it opens the files anew.
    """

    def __init__(self, most: int = OPEN_FILES) -> None:
        self._open: OrderedDict[Path, InputContainer] = collections.OrderedDict()
        self._most, self._process = most, os.getpid()
        self._inherited: List[InputContainer] = []      # files of another process: neither read nor closed here

    def __getstate__(self) -> Dict[str, Any]:
        """Leaves out open files, so that the shelf can also be sent to a process that is not forked."""
        return {**self.__dict__, "_open": collections.OrderedDict(), "_inherited": []}

    def frame(self, path: Path, timestamp: float, fps: float, where: str) -> np.ndarray:
        """Reads the frame at `timestamp`.

        Args:
            path: Path of the video file.
            timestamp: Time from the start of the file, s.
            fps: Frames per second of the data set; the frame may be half a period off.
            where: Episode and frame, for messages.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            DataError: The file is missing, damaged or too short.
        """
        try:
            container = self._container(path)
            stream = container.streams.video[0]
            if not stream.time_base:
                raise DataError(f"{where}: {path} has no time base; make the data set again")
            container.seek(max(0, int(round(timestamp / stream.time_base))), stream=stream, backward=True, any_frame=False)
            for found in container.decode(stream):
                if found.time is not None and found.time >= timestamp - 0.5 / fps:
                    if found.time > timestamp + 0.5 / fps:
                        break
                    return np.asarray(found.to_ndarray(format="rgb24", **ONE_THREAD))
        except BROKEN as error:
            self._forget(path)
            raise DataError(f"{where}: {path} cannot be decoded ({' '.join(str(error).split())}); the video is damaged or "
                            "absent, make the data set again") from error
        raise DataError(f"{where}: {path} holds no frame at {timestamp:.3f} s; the video is shorter than its episode")

    def close(self) -> None:
        """Closes every file that this process opened."""
        self._leave_inherited()
        for path in list(self._open):
            self._forget(path)

    def _leave_inherited(self) -> None:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._inherited += self._open.values()
            self._open.clear()

    def _container(self, path: Path) -> InputContainer:
        self._leave_inherited()
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        self._open[path] = container = av.open(str(path))
        container.streams.video[0].thread_count = 1
        if len(self._open) > self._most:
            self._forget(next(iter(self._open)))
        return container

    def _forget(self, path: Path) -> None:
        container = self._open.pop(path, None)
        if container is not None:
            container.close()
