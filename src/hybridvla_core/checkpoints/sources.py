"""What a folder to be converted is, and what it says about its model."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import torch

from hybridvla_core.checkpoints.format import CONFIG, STATISTICS
from hybridvla_core.checkpoints.openvla import is_openvla, read_openvla, registry_name
from hybridvla_core.checkpoints.released import HEADS, find_weights, read_released
from hybridvla_core.checkpoints.weights import weight_files
from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import CheckpointError


@dataclass(frozen=True)
class Source:
    """A source, its tensors still on disk. kind: `released`, `prismatic` or `openvla`; untrained: modules it lacks."""

    folder: Path
    kind: str
    files: List[Path]
    tensors: Dict[str, torch.Tensor]
    registry: Any
    action_dim: Optional[int]
    chunk: int
    need_to_sub: int
    statistics: Optional[Mapping[str, Any]]

    @property
    def untrained(self) -> tuple:
        return () if self.kind == "released" else HEADS

    @property
    def where(self) -> str:
        return str(self.files[0] if len(self.files) == 1 else self.folder)


def open_source(run: Path) -> Source:
    """Recognise and open RUN: a run folder, the `.pt` inside one, or an OpenVLA folder.

    Raises CheckpointError for anything else.
    """
    if not run.exists():
        raise CheckpointError(f"{run}: no such file or folder; check the path")
    folder = run if run.is_dir() else run.parent.parent
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: config.json missing; give a run folder with config.json and checkpoints/*.pt, or "
                              "an OpenVLA folder")
    config = read_mapping(folder / CONFIG)
    path = folder / STATISTICS
    statistics = read_mapping(path) if path.is_file() else config.get("norm_stats")
    if is_openvla(run, config):
        files = [folder / name for name in weight_files(folder)]
        return Source(folder, "openvla", files, read_openvla(folder), registry_name(config), None, 1, 0, statistics)
    weights = find_weights(run)
    tensors = read_released(weights)
    kind = "released" if any(name.startswith("x_embedder.") for name in tensors) else "prismatic"
    vla, model = config.get("vla"), config.get("model")
    registry = vla.get("base_vlm") if isinstance(vla, Mapping) else None
    if registry is None and isinstance(model, Mapping):
        registry = model.get("model_id")
    action_dim = None if config.get("action_dim") is None else _whole(config, "action_dim", 0, folder)
    return Source(folder, kind, [weights], tensors, registry, action_dim,
                  1 + _whole(config, "future_action_window_size", 0, folder), _whole(config, "need_to_sub", 0, folder),
                  statistics)


def _whole(config: Mapping[str, Any], key: str, absent: int, folder: Path) -> int:
    value = config.get(key, absent)
    if value is None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int):
        raise CheckpointError(f"{folder / CONFIG}: {key} is {value!r}; it must be a whole number")
    return value
