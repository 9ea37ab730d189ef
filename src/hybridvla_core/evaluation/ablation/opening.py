"""Opens a checkpoint or a remote policy in the way a cell asks for."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Mapping, Optional

from hybridvla_core.checkpoints.config import PATHS, CheckpointConfig
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.ablation.cells import REMOTE, Cell
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.policy.remote.settings import RemoteSource


def open_policy(cell: Cell, servers: Optional[Mapping[str, RemoteSource]] = None) -> PolicyInterface:
    """Loads a cell's checkpoint on one thread, set up to answer in the cell's way; or connects to a remote policy.

    Args:
        cell: Cell with folder, digest and variant.
        servers: How to reach remote policies, by address; an address that is missing is reached without a key.

    Returns:
        The policy.

    Raises:
        CheckpointError: The folder is no checkpoint.
        HybridVLAError: The checkpoint is not the cell's, or lacks the requested path; or the server cannot be reached.
    """
    if cell.checkpoint.startswith(REMOTE):
        from hybridvla_core.policy.remote.client import RemotePolicy

        remote = RemotePolicy((servers or {}).get(cell.checkpoint) or RemoteSource(cell.checkpoint))
        _same(cell, remote.manifest_sha256)
        return remote
    import torch

    from hybridvla_core.policy.predictor import Policy

    torch.set_num_threads(1)
    checkpoint = read_checkpoint(Path(cell.checkpoint))
    _same(cell, checkpoint.manifest_sha256)
    check_paths(checkpoint.config, cell.checkpoint, cell.variant.mode)
    return Policy.of(replace(checkpoint, config=cell.variant.altered(checkpoint.config)), mode=cell.variant.mode)


def check_paths(config: CheckpointConfig, where: str, mode: str) -> None:
    """Raises HybridVLAError if a checkpoint says that a path which `mode` needs was never trained."""
    needed = {"ensemble": PATHS, "diffusion": PATHS[:1], "autoregressive": PATHS[1:]}[mode]
    missing = [path for path in needed if path not in config.trained]
    if missing:
        raise HybridVLAError(f"{where} was trained without the loss of {' and '.join(missing)}, so mode {mode} has "
                             "nothing to answer with; evaluate its other mode")


def _same(cell: Cell, manifest: str) -> None:
    if manifest != cell.manifest:
        raise HybridVLAError(f"{cell.checkpoint} has changed since the sweep began; start it again")
