"""One recorded episode on disk until the data set is whole: a file of numbers, words and videos, all there or not at all."""
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
PARTIAL = ".part-"     # and the number of the process that writes it


class DamagedPart(HybridVLAError):
    """A part cannot be read; the episode must be recorded again."""


def write(recording: Recording, path: Path, fps: float) -> None:
    """Writes an episode by rename, its pictures as videos: who joins the parts copies these and encodes nothing.

    Args:
        recording: The episode.
        path: Of the part. Another process may write the same one beside this.
        fps: Frames a second of the data set.

    Raises:
        DataError: Not all views have as many pictures.
        OSError: The disk takes no more; nothing is left of the part.
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
    """The inverse of `write`.

    Args:
        path: Of the part.

    Returns:
        The episode without its pictures, and these as view -> footage.

    Raises:
        DamagedPart: The disk lost some of it.
        OSError: It cannot be read now; it may be whole all the same.
    """
    with open(path, "rb") as stream:
        text = stream.read()
    try:
        # From memory, so that what is raised here is about the bytes and not about the disk.
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
    """Tells whether a part is there and has an end; only `read` looks at all of it. OSError: it cannot be read now."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return zipfile.is_zipfile(stream)


def remove_damaged(path: Path) -> None:
    """Removes a part of which the disk lost some; one that cannot be read now (OSError) stays."""
    try:
        read(path)
    except DamagedPart:
        path.unlink()


def remove_partial(folder: Path) -> None:
    """Removes what processes that were killed have left half-written in a folder of parts."""
    for path in folder.glob(f"*{PARTIAL}*"):
        process = path.name.rpartition(PARTIAL)[2]
        if not process.isdigit() or not _runs(int(process)):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:         # somebody else's
        return True
    return True
