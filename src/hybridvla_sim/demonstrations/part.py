"""One recorded episode on disk until the data set is complete: a file of numbers, words and videos, all there or not at all."""
from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Dict, Tuple

import numpy as np

from hybridvla_core.data.lerobot.footage import Footage, encode
from hybridvla_core.data.lerobot.statistics import ImageHistogram
from hybridvla_core.data.sample import GroundedObject
from hybridvla_core.errors import HybridVLAError
from hybridvla_sim.demonstrations.record import Recording

VIDEO, FRAMES, COUNTS, COUNTED = "video_", "frames_", "counts_", "counted_"
PARTIAL = ".part-"     # followed by the ID of the process that writes it


class DamagedPart(HybridVLAError):
    """A part cannot be read; the episode must be recorded again."""


def write(recording: Recording, path: Path, fps: float) -> None:
    """Writes an episode atomically, by rename. Pictures are stored as videos; joining the parts copies these and encodes nothing.

    Args:
        recording: The episode.
        path: Path of the part. Another process may write the same part at the same time.
        fps: Frame rate of the data set, frames per second.

    Raises:
        DataError: The views differ in their number of pictures.
        OSError: The disk is full; nothing of the part is left behind.
    """
    words = json.dumps({"texts": recording.texts, "again": recording.again, "subtasks": recording.subtasks,
                        "success": recording.success,
                        "grounding": [[item.as_json() for item in items] for items in recording.grounding]})
    arrays = {"state": np.stack(recording.state), "action": np.stack(recording.action), "words": np.array(words)}
    for view, footage in encode(recording.images, fps).items():
        arrays[VIDEO + view] = np.frombuffer(footage.video, np.uint8)
        arrays[FRAMES + view] = np.array(footage.frames)
        arrays[COUNTS + view] = footage.histogram.counts
        arrays[COUNTED + view] = np.array(footage.histogram.pictures)
    partial = path.with_name(f"{path.name}{PARTIAL}{os.getpid()}")
    try:
        with open(partial, "wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.replace(str(partial), str(path))
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> Tuple[Recording, Dict[str, Footage]]:
    """Reads an episode: the inverse of `write`.

    Args:
        path: Path of the part.

    Returns:
        The episode without its pictures, and the pictures as view -> footage.

    Raises:
        DamagedPart: The disk lost some of it.
        OSError: It cannot be read now, but may still be whole.
    """
    with open(path, "rb") as stream:
        text = stream.read()
    try:
        # Parse from memory, so that errors raised here concern the bytes and not the disk.
        with np.load(io.BytesIO(text), allow_pickle=False) as found:
            words, state = json.loads(str(found["words"])), list(found["state"])
            footage = {key[len(VIDEO):]: Footage(found[key].tobytes(), int(found[FRAMES + key[len(VIDEO):]]), ImageHistogram(
                found[COUNTS + key[len(VIDEO):]], int(found[COUNTED + key[len(VIDEO):]])))
                for key in found.files if key.startswith(VIDEO)}
            recording = Recording({}, state, list(found["action"]), words["texts"],
                                  [[GroundedObject.from_json(item) for item in items] for items in words["grounding"]],
                                  words["again"], words["subtasks"], words["success"])
            return recording, footage
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedPart(f"{path}: cannot be read ({error}); remove it, and it is made again") from error


def looks_whole(path: Path) -> bool:
    """Tells whether a part exists and has an end; only `read` checks all of it. OSError: it cannot be read now."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return zipfile.is_zipfile(stream)


def remove_damaged(path: Path) -> None:
    """Removes a part if the disk lost some of it; a part that cannot be read now (OSError) stays."""
    try:
        read(path)
    except DamagedPart:
        path.unlink()


def remove_partial(folder: Path) -> None:
    """Removes half-written files of killed processes from a folder of parts."""
    for path in folder.glob(f"*{PARTIAL}*"):
        process = path.name.rpartition(PARTIAL)[2]
        if not process.isdigit() or not _runs(int(process)):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:         # another user's process
        return True
    return True
