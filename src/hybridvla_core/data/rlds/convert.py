"""Conversion of a folder of RLDS files to a LeRobotDataset; damaged records are flagged, the others are converted."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.layout import Description, Provenance
from hybridvla_core.data.lerobot.writer import TRAIN, VALIDATION, DatasetWriter, WriteError, check_free
from hybridvla_core.data.rlds.records import RecordError, Values, features_of, records
from hybridvla_core.data.rlds.standard import NAMES, RldsStandard, standard_for, standardise
from hybridvla_core.errors import DataError, ObservationError
from hybridvla_core.transforms.pictures import decode

SPLITS = {"train": TRAIN, "val": VALIDATION, "validation": VALIDATION, "test": VALIDATION}
SHOWN = 10              # most numbers of missing files in a sentence


def convert(folder: Path, target: Path, standard_file: Optional[Path] = None,
            told: Callable[[str], None] = lambda text: None) -> DatasetWriter:
    """Reads every record of `folder` and writes `target`.

    Args:
        folder: Holds `features.json` and `NAME-SPLIT.tfrecord-*` files.
        target: New folder.
        standard_file: Description of the set; None for the one in config/rlds.
        told: Called with the name of every episode, for a progress bar.

    Returns:
        The finished writer, which has the counts and flags.

    Raises:
        DataError: The folder has no records or those of two sets, the set is unknown, no episode can be used, or `target` is not
            empty.
        WriteError: The disk is full, or the folder cannot be renamed to its final name.
    """
    check_free(target)
    files = _files(folder)
    standard = standard_for(files[0][0], standard_file)
    flagged, out = Provenance(), None
    for name, missing in _missing(files).items():
        flagged.flag(name, missing, True)
    try:
        for split in (TRAIN, VALIDATION):
            for _, part, path in files:
                if SPLITS.get(part, TRAIN) != split:
                    continue
                for number, record in records(path):
                    name = f"{path.name} #{number}"
                    told(name)
                    try:
                        if isinstance(record, RecordError):
                            raise record
                        steps, images, texts = _steps(standard, features_of(record))
                        if out is None:
                            out = DatasetWriter(target, _description(standard, target, images))
                        _write(out, standard, name, split, steps, images, texts)
                    except WriteError:
                        raise
                    except DataError as error:
                        flagged.flag(name, str(error), False)
        if out is None:
            raise DataError(f"{folder}: no episode can be used: " + "; ".join(entry["reason"] for entry in flagged.flagged[:3]))
        out.provenance.flagged += flagged.flagged
        if not out.trains:
            out.provenance.flag(out.description.name, f"no episode is left for training: all {out.episodes} are for "
                                                      "validation; put the set's train files into the same folder", True)
        out.finish()
        return out
    finally:
        if out is not None:
            out.__exit__(None, None, None)


def _files(folder: Path) -> List[Tuple[str, str, Path]]:
    """Returns (set, split, file) of the record files."""
    found = []
    for path in sorted(folder.glob("*.tfrecord*")):
        name, _, part = path.name.split(".tfrecord")[0].rpartition("-")
        if name:
            found.append((name, part, path))
    if not found:
        raise DataError(f"{folder}: holds no NAME-SPLIT.tfrecord files; give the folder of one version of a set (…/1.0.0)")
    if not (folder / "features.json").is_file():
        raise DataError(f"{folder}: features.json is missing; this is not a complete RLDS set")
    if len({name for name, _, _ in found}) > 1:
        raise DataError(f"{folder}: holds several sets: {', '.join(sorted({name for name, _, _ in found}))}")
    return found


def _missing(files: Sequence[Tuple[str, str, Path]]) -> Dict[str, str]:
    """Returns a sentence on each split that lacks files, by the count in their own names (`-00003-of-00128`)."""
    found: Dict[str, Dict[int, Set[int]]] = {}
    for name, split, path in files:
        numbered = re.search(r"\.tfrecord-(\d+)-of-(\d+)$", path.name)
        if numbered:
            found.setdefault(f"{name}-{split}", {}).setdefault(int(numbered.group(2)), set()).add(int(numbered.group(1)))
    sentences = {}
    for split, counts in found.items():
        if len(counts) > 1:
            raise DataError(f"{files[0][2].parent}: {split} is there in {' and in '.join(map(str, sorted(counts)))} files, so of "
                            "two versions; keep the files of one")
        ((count, there),) = counts.items()
        missing = [f"{number:05d}" for number in range(count) if number not in there]
        if missing:
            sentences[split] = (f"{len(missing)} of its {count} files are missing: {', '.join(missing[:SHOWN])}"
                                f"{', ...' if len(missing) > SHOWN else ''}; if it should be complete, download it again")
    return sentences


def _steps(standard: RldsStandard, found: Dict[str, Values]) -> Tuple[Dict[str, np.ndarray], Dict[str, List[bytes]], List[str]]:
    """Returns (numbers by key (N, channels), encoded images by view, texts), without the skipped steps."""
    def get(key: str) -> Values:
        if f"steps/{key}" not in found:
            raise DataError(f"steps/{key} is missing; it has {', '.join(sorted(found))[:300]}")
        return found[f"steps/{key}"]

    def encoded(key: str) -> List[bytes]:
        values = get(key)
        if isinstance(values, np.ndarray):
            raise DataError(f"steps/{key} holds numbers; images and texts are wanted there")
        return values

    images = {view: encoded(key) for view, key in standard.views.items()}
    lengths = {len(pictures) for pictures in images.values()}
    if len(lengths) != 1 or not min(lengths) > standard.skip_first + 1:
        raise DataError(f"its views have {sorted(lengths)} images; one number, above {standard.skip_first + 1}, is needed")
    length, skip = lengths.pop(), standard.skip_first
    parts = (standard.translation, standard.rotation, standard.gripper, standard.state_translation, standard.state_rotation,
             standard.state_gripper)
    steps = {}
    for key in {part.key for part in parts}:
        flat = np.asarray(get(key), dtype=np.float64)
        if flat.size % length:
            raise DataError(f"steps/{key} has {flat.size} numbers for {length} steps")
        steps[key] = flat.reshape(length, -1)[skip:]
    texts = [" ".join(text.decode("utf-8", errors="replace").split()) for text in encoded(standard.instruction)][skip:]
    if len(texts) != length - skip:
        raise DataError(f"steps/{standard.instruction} has {len(texts) + skip} texts for {length} steps")
    return steps, {view: pictures[skip:] for view, pictures in images.items()}, texts


def _description(standard: RldsStandard, target: Path, images: Dict[str, List[bytes]]) -> Description:
    firsts = {view: _decode(pictures[0], view) for view, pictures in images.items()}
    views = {view: (first.shape[0], first.shape[1]) for view, first in firsts.items()}
    convention = {"translation": "delta_base_frame", "rotation": "delta_euler_xyz", "gripper_sense": "one_is_open",
                  "delta_base": "measured", "action_period_s": 1.0 / standard.fps, "state_source": "measured"}
    return Description(target.resolve().name, standard.fps, views, NAMES, NAMES, (6,), layout.NEXT_POSE,
                       standard.dataset, convention)


def _write(out: DatasetWriter, standard: RldsStandard, name: str, split: str, steps: Dict[str, np.ndarray],
           images: Dict[str, List[bytes]], texts: List[str]) -> None:
    state, action = standardise(standard, steps)
    with out.episode(name, None, split) as episode:
        for i in range(len(state)):
            episode.add({view: _decode(pictures[i], view) for view, pictures in images.items()}, state[i], action[i], texts[i])


def _decode(data: bytes, view: str) -> np.ndarray:
    try:
        return decode(data, f"view {view}")
    except ObservationError as error:
        raise DataError(str(error)) from error
