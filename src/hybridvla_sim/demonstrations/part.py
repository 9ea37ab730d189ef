"""One recorded episode on disk until the data set is whole: a file of numbers, words and videos, all there or not at all."""
from __future__ import annotations

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

VIDEO, COUNTS, COUNTED = "video_", "counts_", "counted_"


class DamagedPart(HybridVLAError):
    """A part cannot be read; the episode must be recorded again."""


def write(recording: Recording, path: Path, fps: float) -> None:
    """Writes an episode by rename, its pictures as videos: who joins the parts copies these and encodes nothing.

    Args:
        recording: The episode.
        path: Of the part. Another process may write the same one beside this.
        fps: Frames a second of the data set.
    """
    words = json.dumps({"texts": recording.texts, "again": recording.again, "subtasks": recording.subtasks,
                        "success": recording.success,
                        "grounding": [[item.as_json() for item in items] for items in recording.grounding]})
    arrays = {"state": np.stack(recording.state), "action": np.stack(recording.action), "words": np.array(words)}
    for view, footage in encode(recording.images, fps).items():
        arrays[VIDEO + view] = np.frombuffer(footage.video, np.uint8)
        arrays[COUNTS + view] = footage.histogram.counts
        arrays[COUNTED + view] = np.array(footage.histogram.pictures)
    partial = path.with_name(f"{path.name}.part-{os.getpid()}")
    with open(partial, "wb") as stream:
        np.savez_compressed(stream, **arrays)
    os.replace(str(partial), str(path))


def read(path: Path) -> Tuple[Recording, Dict[str, Footage]]:
    """The inverse of `write`.

    Args:
        path: Of the part.

    Returns:
        The episode without its pictures, and these as view -> footage.

    Raises:
        DamagedPart: The disk lost some of it.
    """
    try:
        with np.load(str(path), allow_pickle=False) as found:
            words, state = json.loads(str(found["words"])), list(found["state"])
            footage = {key[len(VIDEO):]: Footage(found[key].tobytes(), len(state), ImageHistogram(
                found[COUNTS + key[len(VIDEO):]], int(found[COUNTED + key[len(VIDEO):]])))
                for key in found.files if key.startswith(VIDEO)}
            recording = Recording({}, state, list(found["action"]), words["texts"],
                                  [[GroundedObject.from_json(item) for item in items] for items in words["grounding"]],
                                  words["again"], words["subtasks"], words["success"])
            return recording, footage
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedPart(f"{path}: cannot be read ({error}); remove it, and it is made again") from error


def looks_whole(path: Path) -> bool:
    """Tells whether a part is there and has an end; only `read` looks at all of it."""
    return path.is_file() and zipfile.is_zipfile(str(path))


def remove_damaged(path: Path) -> None:
    """Removes a part that cannot be read."""
    try:
        read(path)
    except DamagedPart:
        path.unlink()
