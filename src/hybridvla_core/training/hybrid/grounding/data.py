"""Whether data sets say what their grounding is to teach."""
from __future__ import annotations

from typing import Sequence, Tuple

from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.data.sample import GroundedObject
from hybridvla_core.errors import DataError
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.training.hybrid.grounding.config import GroundingConfig

#: Number of episodes of each set that are searched for information that rows may lack.
SOME_EPISODES = 20


def check_grid(dataset: LeRobotDataset, model: ModelConfig) -> None:
    """Refuses grounding that counts its patches in a grid other than the model's.

    Args:
        dataset: Opened data set.
        model: Architecture of the model.

    Raises:
        DataError: The grids differ, or the data set does not name its grid.
    """
    grid = dataset.description.grid
    if dataset.description.grounded and grid ** 2 != model.patches:
        where = f"in {grid} rows of {grid}" if grid else f"and {layout.OURS} does not say in which grid"
        raise DataError(f"{dataset.folder}: its grounding counts patches {where}; the model sees {model.patches}. Make the data "
                        "with the model's --grid, or train without grounding")


def check_turns(config: GroundingConfig, datasets: Sequence[LeRobotDataset]) -> None:
    """Refuses to teach turns that no set states; the first episodes of each set are searched.

    Args:
        config: Weights of the terms.
        datasets: Opened data sets.

    Raises:
        DataError: Turns have a weight, and no set states any.
    """
    told = (text for dataset in datasets for position in range(min(len(dataset.episodes), SOME_EPISODES))
            for text in dataset.rows(position).grounding or ())
    if config.turns and not any(GroundedObject.TURNED in text for text in told):
        where = ", ".join(str(dataset.folder) for dataset in datasets)
        raise DataError(f"grounding: turns has a weight, and {where} does not say how any object is turned; make the data with "
                        "`hybridvla demonstrate`, or leave it out")


def subtasks_of(config: GroundingConfig, datasets: Sequence[LeRobotDataset]) -> Tuple[str, ...]:
    """Returns every subtask name of the sets, if they are to be learned.

    Args:
        config: Weights of the terms.
        datasets: Opened data sets.

    Returns:
        The names in order; none without a weight.

    Raises:
        DataError: Subtasks have a weight, and no set names any.
    """
    if not config.subtask:
        return ()
    found = sorted({name for dataset in datasets for name in dataset.subtasks()})
    if not found:
        where = ", ".join(str(dataset.folder) for dataset in datasets)
        raise DataError(f"grounding: subtask has a weight, and no row of {where} names a subtask; make the data with "
                        "`hybridvla demonstrate`, or leave it out")
    return tuple(found)
