"""`hybridvla dataset inspect | stats | merge | export`."""
from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Set

import numpy as np

from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.held_out import trained_on_elsewhere
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.data.lerobot.statistics import for_checkpoint, of_columns, outside
from hybridvla_core.data.lerobot.writer import SPLITS, TRAIN, DatasetWriter, WriteError
from hybridvla_core.errors import DataError

if TYPE_CHECKING:
    from tqdm import tqdm

LOGGER = logging.getLogger(__name__)


def inspect(folder: Path, decode: bool) -> Dict[str, Any]:
    """Reads a data set and checks its episodes.

    Args:
        folder: Folder of the data set.
        decode: Whether to decode the first and last frame of every video, too.

    Returns:
        The content, with `problems`: number and reason of each episode that cannot be used.

    Raises:
        DataError: The folder holds no data set. A fault of a single episode is listed, not raised.
    """
    data = LeRobotDataset(folder)
    problems: List[Dict[str, Any]] = []
    moments = 0
    for position, episode in enumerate(data.episodes):
        try:
            rows = data.rows(position)
            moments += len(np.unique(rows.moments))
            if not (np.isfinite(rows.state).all() and np.isfinite(rows.action).all()):
                raise DataError(f"{folder}: episode {episode.number} holds numbers that are not finite")
            if decode:
                for index in {episode.first, episode.first + episode.length - 1}:
                    data.sample(index)
        except DataError as error:
            problems.append({"episode": episode.number, "reason": str(error)})
    data.close()
    described = data.description
    return {"dataset": str(folder), "version": data.info["codebase_version"], "robot": described.robot, "fps": data.fps,
            "episodes": len(data.episodes), "frames": len(data), "views": {v: list(s) for v, s in described.views.items()},
            "labels": described.labels, "state": list(described.state_names), "action": list(described.action_names),
            "moments": moments, "instructions": sorted(data.tasks.values()), "splits": data.info.get("splits", {}),
            "flagged": data.ours.get("flagged", []), "problems": problems}


def statistics(folder: Path) -> Dict[str, Any]:
    """Computes `dataset_statistics.json` of a data set from every frame."""
    data = LeRobotDataset(folder)
    with tempfile.TemporaryDirectory(prefix="hybridvla_columns_") as scratch:
        found = {key: of_columns(data.column(key, Path(scratch))) for key in (layout.ACTION, layout.STATE)}
    data.close()
    return {data.description.name: for_checkpoint(found[layout.ACTION], found[layout.STATE], data.description.grippers,
                                                  len(data.episodes))}


def check_against(folder: Path, file: Path) -> None:
    """Raises DataError, naming the channels, if the statistics in `file` are not this data set's."""
    given = layout.read_json(file, "the statistics")
    data = LeRobotDataset(folder)
    key = data.description.name
    if key not in given:
        if len(given) > 1:
            raise DataError(f"{file}: holds statistics of {', '.join(sorted(given))}, none named {key}; keep the entry to "
                            "compare with, or give it this data set's name")
        key = next(iter(given), "")
    entry = given.get(key)
    if not isinstance(entry, dict) or not {"action", "proprio"} <= set(entry):
        raise DataError(f"{file}: holds no 'action' and 'proprio' of a data set")
    with tempfile.TemporaryDirectory(prefix="hybridvla_columns_") as scratch:
        for name, column in (("action", layout.ACTION), ("proprio", layout.STATE)):
            wrong = outside(data.column(column, Path(scratch)), entry[name])
            if wrong:
                channels = ", ".join(f"{channel} ({100 * share:.0f} % outside)" for channel, share in wrong)
                raise DataError(f"{file}: the statistics ({key}) are another data set's: {name} channels {channels}; compute "
                                "them with `hybridvla dataset stats`")


def copy(sources: Sequence[Path], target: Path, split: Optional[str] = None, plain: bool = False) -> Dict[str, Any]:
    """Writes the episodes of one or more data sets into a new one; statistics are computed anew.

    Args:
        sources: Data sets of one kind.
        target: New folder.
        split: Copy only the episodes of this split.
        plain: Whether to leave out what other trainers do not know (our flags do not disturb them).

    Returns:
        The folder, how many episodes and frames it holds, and the flagged ones.

    Raises:
        DataError: A set is named twice, or the sets do not fit each other; the message names what differs.
    """
    from tqdm import tqdm

    known: Set[Path] = set()
    for source in sources:
        if source.resolve() in known:
            raise DataError(f"{source}: is named twice, and its episodes would count twice; name each data set once")
        known.add(source.resolve())
    sets = [LeRobotDataset(source) for source in sources]
    first = sets[0].description
    for data in sets[1:]:
        why = first.same_kind(data.description)
        if why:
            raise DataError(f"{data.folder} and {sets[0].folder} cannot be one data set: {why}")
    for sentence in trained_on_elsewhere(sets) if split is None else ():
        LOGGER.warning("%s", sentence)
    description = replace(first, name=target.resolve().name, grounded=first.grounded and not plain,
                          moments=any(data.description.moments for data in sets) and not plain,
                          subtasks=any(data.description.subtasks for data in sets) and not plain)
    with DatasetWriter(target, description) as out, tqdm(total=sum(map(len, sets)), unit="frames", leave=False) as bar:
        for part in SPLITS if split is None else (split,):
            for data in sets:
                for position in _positions(data, part):
                    _copy_episode(data, position, out, part, bar)
        for data in sets:
            out.provenance.flagged += data.ours.get("flagged", [])
            data.close()
        out.finish()
        return {"dataset": str(target), "episodes": out.episodes, "frames": out.frames, "flagged": out.provenance.flagged}


def _positions(data: LeRobotDataset, part: str) -> List[int]:
    # Whatever a set holds out is not trained on, even under another name (`test`).
    held = [data.frames_of(split) for split in data.info.get("splits") or {} if split != TRAIN]
    return [position for position, episode in enumerate(data.episodes)
            if any(episode.first in frames for frames in held) == (part != TRAIN)]


def _copy_episode(data: LeRobotDataset, position: int, out: DatasetWriter, part: str, bar: tqdm) -> None:
    episode, notes = data.episodes[position], data.ours.get("episodes", [])
    source = notes[position]["source"] if position < len(notes) else f"{data.folder.name} episode {episode.number}"
    try:
        success = layout.SUCCESS_VALUES.get(int(data.rows(position).success[0]))
        with out.episode(source, success, part) as writer:
            moments = data.rows(position).moments
            for frame in range(episode.length):
                sample = data.sample(episode.first + frame)
                writer.add(dict(sample.images), sample.state, sample.actions[0], sample.instruction, sample.correction,
                           sample.grounding, frame > 0 and bool(moments[frame] == moments[frame - 1]), sample.subtask)
                bar.update(1)
    except WriteError:
        raise
    except DataError as error:
        out.provenance.flag(source, str(error), False)


def as_text(result: Dict[str, Any]) -> str:
    """Returns a result as text for people."""
    lines = []
    for key, value in result.items():
        if key in ("flagged", "problems"):
            lines.append(f"{key}: {len(value)}")
            lines += [f"  {entry['episode']}: {entry['reason']}{' (kept)' if entry.get('kept') else ''}" for entry in value]
        else:
            lines.append(f"{key}: {json.dumps(value) if isinstance(value, (dict, list)) else value}")
    return "\n".join(lines)
