"""A checkpoint, opened in the way a cell asks for."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hybridvla_core.checkpoints.config import PATHS
from hybridvla_core.checkpoints.format import Checkpoint, read_checkpoint
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.ablation.cells import Cell
from hybridvla_core.policy.predictor import Policy


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
    """Raises HybridVLAError where the checkpoint says that a path was never trained that `mode` needs."""
    needed = {"ensemble": PATHS, "diffusion": PATHS[:1], "autoregressive": PATHS[1:]}[mode]
    missing = [path for path in needed if path not in checkpoint.config.trained]
    if missing:
        raise HybridVLAError(f"{checkpoint.folder} was trained without the loss of {' and '.join(missing)}, so mode {mode} has "
                             "nothing to answer with; evaluate its other mode")
