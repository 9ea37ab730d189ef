"""From a trained objective to a checkpoint folder that `predict`, `evaluate`, `replay` and the rig take."""
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Dict, Mapping

import torch

from hybridvla_core.checkpoints.format import save_checkpoint
from hybridvla_core.checkpoints.weights import Weights, weight_files
from hybridvla_core.training.distributed import Processes, whole
from hybridvla_core.training.hybrid.config import TrainingConfig
from hybridvla_core.training.hybrid.objective import HybridObjective
from hybridvla_core.training.hybrid.start import Start
from hybridvla_core.training.lora import merged

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
MODEL, LANGUAGE = "model.", "llm."


def gather(objective: HybridObjective, processes: Processes, start: Start) -> Dict[str, torch.Tensor]:
    """All weights of the model on the first process, adapters folded in; empty on the others. All processes call it."""
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
    """Weights that were stored in 4 bits by those of the checkpoint that the run started from."""
    small = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if not small or start.base is None:
        return tensors
    with Weights(start.base.folder, weight_files(start.base.folder)) as weights:
        return {**tensors, **{name: weights.tensor(name.replace(".base_layer.", ".")).clone() for name in small}}


def export(folder: Path, tensors: Mapping[str, torch.Tensor], config: TrainingConfig, start: Start, provenance: Mapping[str, Any]
           ) -> str:
    """Writes the checkpoint under another name first, so that what bears the name is whole; returns the manifest's sha256."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    digest = save_checkpoint(partial, tensors, start.checkpoint, start.statistics, start.tokenizer.to_str(), provenance,
                             DTYPES[config.export])
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return digest
