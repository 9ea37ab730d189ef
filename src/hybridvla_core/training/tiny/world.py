"""What the tiny recipe needs of the task it learns; the command line hands it over, the recipe knows no task by name."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Tuple

import numpy as np

#: images (B, S, S, 3) uint8, states (B, A), instructions (B,) by index -> actions (B, A), physical units.
BatchPolicy = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TrainingWorld:
    """A task as the recipe sees it.

    Attributes:
        phases: Names of the expert's phases, in the order of the shards' numbers.
        instructions: Every sentence, in the order of the shards' labels.
        record_episodes: Lets a policy act and writes a shard of what it met, labelled by the expert. Arguments: policy, seed,
            episodes, path of the shard, keyframes an episode, share of episodes in which the instruction is switched.
            Returns the share of successful episodes as `success`, and of those switched as `switched`.
    """

    phases: Tuple[str, ...]
    instructions: Tuple[str, ...]
    record_episodes: Callable[[BatchPolicy, int, int, Path, int, float], Dict[str, float]]
