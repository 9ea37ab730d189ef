"""Finds the bags that are meant: files and folders as given, and the files of a split recording together."""
from __future__ import annotations

import re
from pathlib import Path
from typing import List, Optional, Sequence, Set, Tuple

from hybridvla_ros.replay.bags import BagError, BagFile

SPLIT_GAP_S = 5.0       # files of one split recording follow each other this closely
#: What `rosbag record` may put between the given name and the number of a part.
DATE = r"\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d"
BACKUP = ".orig.bag"    # what `rosbag reindex` keeps of a bag beside it


def expand(paths: Sequence[str], notes: Optional[List[str]] = None, unread: Optional[List[str]] = None) -> List[Path]:
    """Returns the files for files and folders as given; a folder stands for the bags in it, including unfinished ones.

    A file that is given again, for instance with its folder, counts once. The backup that `rosbag reindex` leaves beside a bag is
    left out where that bag is there too.

    Args:
        paths: Files and folders as given.
        notes: Receives a sentence on each file that is given again and on each backup.
        unread: Receives a sentence on each folder without a bag.

    Returns:
        The files.

    Raises:
        BagError: A folder holds no bag, and `unread` is not given.
    """
    result: List[Path] = []
    known: Set[Path] = set()
    notes = [] if notes is None else notes
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            found = sorted([*path.glob("*.bag"), *path.glob("*.bag.active")])
            if not found:
                problem = f"{path}: no .bag file in this folder"
                if unread is None:
                    raise BagError(problem)
                unread.append(problem)
        else:
            found = [path]
        for bag in found:
            if bag.resolve() in known:
                notes.append(f"{bag}: given more than once; it is read once")
            else:
                known.add(bag.resolve())
                result.append(bag)
    backups = [path for path in result if path.name.endswith(BACKUP)
               and path.with_name(path.name[:-len(BACKUP)] + ".bag").resolve() in known]
    notes += [f"{path.name}: left out; it is what `rosbag reindex` kept of {path.name[:-len(BACKUP)]}.bag" for path in backups]
    return [path for path in result if path not in backups]


def recordings(files: Sequence[BagFile]) -> List[List[BagFile]]:
    """Groups the files of split recordings, which follow each other.

    They are `name_0.bag`, `name_1.bag`, ..., possibly with the time at which each was begun in the name, as
    `rosbag record --split` does it.

    Returns:
        The files of each recording, in order.
    """
    groups: List[List[BagFile]] = []
    for bag in sorted(files, key=lambda item: (_stem(item.path)[0], item.begin)):
        last = groups[-1][-1] if groups else None
        if last is not None and _follows(_stem(last.path), _stem(bag.path)) and -0.5 <= bag.begin - last.end <= SPLIT_GAP_S:
            groups[-1].append(bag)
        else:
            groups.append([bag])
    return groups


def _follows(first: Tuple[str, Optional[int]], second: Tuple[str, Optional[int]]) -> bool:
    """Tells from their names whether the second is the next part of the same recording."""
    return first[0] == second[0] and first[1] is not None and second[1] == first[1] + 1


def _stem(path: Path) -> Tuple[str, Optional[int]]:
    """Returns what the parts of one recording share, and the number of the part."""
    match = re.fullmatch(rf"(.*?)(_?{DATE})?_(\d+)\.bag(?:\.active)?", path.name)
    return (str(path.parent / f"{match.group(1)}_"), int(match.group(3))) if match else (str(path), None)
