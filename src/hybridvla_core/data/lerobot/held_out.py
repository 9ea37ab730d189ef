"""Search for episodes that one data set holds out for validation and another one trains on."""
from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

import numpy as np

from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.errors import DataError

#: Identity of an episode before its rows are read: its source and its number of frames.
Key = Tuple[str, int]


def trained_on_elsewhere(sets: Sequence[LeRobotDataset]) -> List[str]:
    """Compares the episodes that data sets hold out with those that they train on.

    Two episodes are the same if source, length and all states are equal.

    Args:
        sets: Data sets that are trained on together. Sets without sources are not compared.

    Returns:
        A sentence for each pair of sets that share such episodes.
    """
    held, trained = ([_episodes(data, split) for data in sets] for split in ("validation", "train"))
    found = []
    for one, mine in zip(sets, held):
        for two, theirs in zip(sets, trained):
            same = [key for key, positions in mine.items() if key in theirs and _same(one, positions, two, theirs[key])]
            if same:
                count = sum(len(mine[key]) for key in same)
                found.append(f"{count} episode(s) that {one.folder} holds out are trained on in {two.folder}, such as "
                             f"{same[0][0]!r}: validation losses look better than they are")
    return found


def _episodes(data: LeRobotDataset, split: str) -> Dict[Key, List[int]]:
    """Returns the positions of the episodes of a split, by their key."""
    frames, held = data.frames_of(split), data.frames_of("validation") if split == "train" else range(0)
    found: Dict[Key, List[int]] = {}
    for position, (episode, note) in enumerate(zip(data.episodes, data.ours.get("episodes", []))):
        if note.get("source") and episode.first in frames and episode.first not in held:
            found.setdefault((str(note["source"]), episode.length), []).append(position)
    return found


def _same(one: LeRobotDataset, mine: Sequence[int], two: LeRobotDataset, theirs: Sequence[int]) -> bool:
    try:
        states = [data.rows(position).state for data, positions in ((one, mine), (two, theirs)) for position in positions]
    except DataError:       # the code that uses the episode reports what is wrong with it
        return False
    return any(np.array_equal(a, b) for a in states[:len(mine)] for b in states[len(mine):])
