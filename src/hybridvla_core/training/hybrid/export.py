"""Export of a trained objective to a checkpoint folder for `predict`, `evaluate`, `replay` and the rig."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

import torch

from hybridvla_core.checkpoints.format import save_checkpoint
from hybridvla_core.checkpoints.stream import TooLargeError
from hybridvla_core.checkpoints.target import Target, keep_apart
from hybridvla_core.checkpoints.weights import Weights, weight_files
from hybridvla_core.errors import CheckpointError
from hybridvla_core.training.distributed import Processes, whole
from hybridvla_core.training.hybrid.config import TrainingConfig
from hybridvla_core.training.hybrid.objective import HybridObjective
from hybridvla_core.training.hybrid.stages import learned
from hybridvla_core.training.hybrid.start import Start
from hybridvla_core.training.hybrid.state import Progress
from hybridvla_core.training.lora import merged
from hybridvla_core.training.progress import LOG

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
MODEL, LANGUAGE = "model.", "llm."
#: Entries that a run keeps in its work folder.
OF_THE_RUN = ("state", "pictures", "evaluations", "data", "tensorboard", LOG)


def check_place(out: Path, work: Path, data: Sequence[Path], init: Optional[Path]) -> None:
    """Checks, before the first step, that a checkpoint can be written without anything being lost.

    Args:
        out: Folder of the checkpoint; new, empty, or a checkpoint folder with nothing else in it.
        work: Folder of the run.
        data: Folders of data sets.
        init: Checkpoint to start from.

    Raises:
        CheckpointError: `out` is or holds one of the other folders, or holds anything that is not a checkpoint's.
    """
    needed = [("the folder that this was started in", Path.cwd()), ("the work folder", work),
              *(("a data set", folder) for folder in data), *(("the run's own", work / name) for name in OF_THE_RUN)]
    keep_apart(out, needed if init is None else [*needed, ("the checkpoint of --init", init)])
    Target(out, replace=True)


def gather(objective: HybridObjective, processes: Processes, start: Start) -> Dict[str, torch.Tensor]:
    """Gathers all weights on the first process, adapters folded in; empty on the others. All processes must call it."""
    found: Dict[str, torch.Tensor] = {}
    for name, tensor in objective.named_parameters():
        if name.startswith(MODEL):
            gathered = whole(tensor)
            if processes.first:
                found[name[len(MODEL):]] = gathered
    if not processes.first or not any(".lora_" in name for name in found):
        return found
    return merged(objective.model.llm, _unquantised(found, start), LANGUAGE)


def _unquantised(tensors: Dict[str, torch.Tensor], start: Start) -> Dict[str, torch.Tensor]:
    """Replaces weights that were stored in 4 bits by those of the checkpoint that the run started from."""
    small = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if not small or start.base is None:
        return tensors
    with Weights(start.base.folder, weight_files(start.base.folder)) as weights:
        return {**tensors, **{name: weights.tensor(name.replace(".base_layer.", ".")).clone() for name in small}}


def so_far(config: TrainingConfig, start: Start, progress: Progress) -> Start:
    """Returns `start` with a checkpoint that names as trained what has been trained so far, not what later stages would train."""
    done = config.stages[:progress.stage + (progress.step > 0)]
    untrained, trained = learned(config, None if start.base is None else start.base.config, done)
    return replace(start, checkpoint=replace(start.checkpoint, untrained=untrained, trained=trained))


def export(folder: Path, tensors: Mapping[str, torch.Tensor], config: TrainingConfig, start: Start, provenance: Mapping[str, Any]
           ) -> str:
    """Writes the checkpoint under a temporary name first, so that a named one is complete; it replaces an earlier one.

    Args:
        folder: Folder of the checkpoint, as `check_place` accepts it.
        tensors: All weights.
        config: Configuration that says how they are stored.
        start: Everything else that belongs to a checkpoint.
        provenance: Provenance for its manifest.

    Returns:
        The sha256 of its manifest.

    Raises:
        CheckpointError: The folder by now holds something else, a weight is too large for the type of `export`, or the
            checkpoint cannot take its name; the message says where the checkpoint is.
    """
    target = Target(folder, replace=True)
    try:
        with target.writing() as partial:
            digest = save_checkpoint(partial, tensors, start.checkpoint, start.statistics, start.tokenizer.to_str(), provenance,
                                     DTYPES[config.export])
    except TooLargeError as error:
        raise CheckpointError(f"{folder}: {error}; write export: bfloat16 into the recipe, and the same command goes on from the "
                              "last saved state") from error
    target.finish()
    return digest
