"""A checkpoint, opened in the way a cell asks for."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hybridvla_core.checkpoints.format import Checkpoint, read_checkpoint
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.ablation.cells import Cell
from hybridvla_core.policy.predictor import Policy

#: The loss that trains each path, as a checkpoint's provenance names it.
LOSS_OF = ("diffusion", "autoregressive")


def open_policy(cell: Cell) -> Policy:
    """Loads a cell's checkpoint, which then answers in the cell's way, on one thread.

    Raises:
        CheckpointError: The folder is no checkpoint.
        HybridVLAError: The checkpoint is not the cell's, or lacks the path that is asked for.
    """
    import torch

    torch.set_num_threads(1)
    checkpoint = read_checkpoint(Path(cell.checkpoint))
    if checkpoint.manifest_sha256 != cell.manifest:
        raise HybridVLAError(f"{cell.checkpoint} has changed since the sweep began; start it again")
    check_paths(checkpoint, cell.variant.mode)
    return Policy.of(replace(checkpoint, config=cell.variant.altered(checkpoint.config)), mode=cell.variant.mode)


def check_paths(checkpoint: Checkpoint, mode: str) -> None:
    """Raises HybridVLAError where the checkpoint's provenance says that a path was never trained that `mode` needs."""
    losses = checkpoint.manifest.get("provenance", {}).get("losses")
    if losses is None:
        return
    needed = {"ensemble": LOSS_OF, "diffusion": LOSS_OF[:1], "autoregressive": LOSS_OF[1:]}[mode]
    missing = [loss for loss in needed if loss not in losses]
    if missing:
        raise HybridVLAError(f"{checkpoint.folder} was trained without the loss of {' and '.join(missing)}, so mode {mode} has "
                             "nothing to answer with; evaluate its other mode")
