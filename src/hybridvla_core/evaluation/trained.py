"""Which tasks a checkpoint was trained for, as far as it says so."""
from __future__ import annotations

from pathlib import Path
from typing import Sequence

from hybridvla_core.checkpoints.manifest import read_manifest
from hybridvla_core.errors import HybridVLAError

#: The recipe that trains for one task alone, as a checkpoint's provenance names it.
TINY_RECIPE, TINY_TASK = "config/training/tiny.yaml", "blocks"


def check_trained(checkpoint: Path, task: str, instructions: Sequence[str]) -> None:
    """Refuses a task that a checkpoint was not trained for, where the checkpoint says what it was trained for.

    Raises:
        HybridVLAError: None of the task's sentences is among those that the checkpoint's data had.
    """
    provenance = read_manifest(checkpoint)["provenance"]
    trained = provenance.get("instructions")
    if trained is None and TINY_RECIPE in str(provenance.get("command")) and task != TINY_TASK:
        raise HybridVLAError(f"{checkpoint}: was not trained for task {task} but for {TINY_TASK}; evaluate that one, or another "
                             "checkpoint")
    if trained is not None and not set(trained) & set(instructions):
        raise HybridVLAError(f"{checkpoint}: was not trained for task {task}: its data had sentences as {trained[0]!r} and none "
                             f"of the task's, as {instructions[0]!r}; evaluate another task, or train for this one")
