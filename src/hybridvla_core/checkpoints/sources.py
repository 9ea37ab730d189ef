"""Recognition of a folder to be converted, and of what it says about its model."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch

from hybridvla_core.checkpoints.foreign.declared import Declared, read_declared
from hybridvla_core.checkpoints.foreign.layouts import released_layout
from hybridvla_core.checkpoints.foreign.savers import HEADS_OF_OTHERS
from hybridvla_core.checkpoints.format import CONFIG, STATISTICS
from hybridvla_core.checkpoints.openvla import is_openvla, read_openvla, registry_name
from hybridvla_core.checkpoints.released import HEADS, find_weights, read_saved
from hybridvla_core.checkpoints.weights import weight_files
from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import CheckpointError, few


@dataclass(frozen=True)
class Source:
    """A source, with its tensors still on disk.

    Attributes:
        folder: Folder of the run.
        kind: `released`, `prismatic` or `openvla`.
        files: Files of its weights.
        tensors: Tensors under our names.
        registry: Registry name of its architecture; None if it does not say.
        action_dim: Dimensions of an action; None if it does not say.
        chunk: Actions predicted at once.
        need_to_sub: Shift of the action ids.
        statistics: Statistics of its data sets; None without.
        declared: Declarations of its configuration.
        beside: Items next to the weights that are not used.
    """

    folder: Path
    kind: str
    files: List[Path]
    tensors: Dict[str, torch.Tensor]
    registry: Any
    action_dim: Optional[int]
    chunk: int
    need_to_sub: int
    statistics: Optional[Mapping[str, Any]]
    declared: Declared = Declared()
    beside: Tuple[str, ...] = ()

    @property
    def untrained(self) -> tuple:
        return () if self.kind == "released" else HEADS

    @property
    def where(self) -> str:
        return str(self.files[0] if len(self.files) == 1 else self.folder)


def open_source(run: Path, entry: Optional[str] = None) -> Source:
    """Recognises and opens a run folder, the `.pt` inside one, or an OpenVLA folder.

    Args:
        run: Folder or file.
        entry: Name of the dictionary in a `.pt` that holds the weights; None looks for the usual ones.

    Returns:
        Its tensors and the files beside them.

    Raises:
        CheckpointError: It is anything else, or its configuration describes a model that this is not.
    """
    if not run.exists():
        raise CheckpointError(f"{run}: no such file or folder; check the path")
    folder = run if run.is_dir() else run.absolute().parent.parent
    config = _config(folder, run)
    declared = read_declared(config, str(folder / CONFIG))
    path = folder / STATISTICS
    statistics = read_mapping(path) if path.is_file() else config.get("norm_stats")
    if isinstance(statistics, Mapping):
        statistics = released_layout(statistics, str(path if path.is_file() else folder / CONFIG))
    if is_openvla(run, config):
        files = [folder / name for name in weight_files(folder)]
        return Source(folder, "openvla", files, read_openvla(folder), registry_name(config), None, 1, 0, statistics, declared,
                      _others_heads(folder))
    if run.is_dir() and any(run.glob("*.bin")) and not (run / "checkpoints").is_dir():
        raise CheckpointError(f"{run}: {few(path.name for path in run.glob('*.bin'))}: pickled weights are not read from such a "
                              "folder; save the model as safetensors (safe_serialization=True) and convert that")
    weights = find_weights(run)
    tensors, saved = read_saved(weights, entry)
    kind = "released" if any(name.startswith("x_embedder.") for name in tensors) else "prismatic"
    vla, model = config.get("vla"), config.get("model")
    registry = vla.get("base_vlm") if isinstance(vla, Mapping) else None
    if registry is None and isinstance(model, Mapping):
        registry = model.get("model_id")
    beside = tuple(f"{weights.name}: averaged weights in {name} (--entry {name} would take them)" for name in saved.averaged)
    action_dim = None if config.get("action_dim") is None else _whole(config, "action_dim", 0, folder)
    return Source(folder, kind, [weights], tensors, registry, action_dim,
                  1 + _whole(config, "future_action_window_size", 0, folder), _whole(config, "need_to_sub", 0, folder),
                  statistics, declared, beside + _others_heads(folder))


def _config(folder: Path, run: Path) -> Mapping[str, Any]:
    """Returns the source's `config.json`."""
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder}: holds LoRA adapters (adapter_config.json); merge it first (with peft: "
                              "merge_and_unload), save the whole model and convert that")
    if not (folder / CONFIG).is_file():
        place = folder if run.is_dir() else f"{run}: two folders above it, {folder}"
        raise CheckpointError(f"{place}: config.json missing; give a run folder with config.json and checkpoints/*.pt, or "
                              "an OpenVLA folder")
    return read_mapping(folder / CONFIG)


def _others_heads(folder: Path) -> Tuple[str, ...]:
    """Returns the files of OpenVLA-OFT's own heads, which are stored beside the base."""
    names = [path.name for path in sorted(folder.glob("*--*.pt")) if path.name.split("--")[0] in HEADS_OF_OTHERS]
    return (f"{few(names)}: heads of OpenVLA-OFT, of another architecture",) if names else ()


def _whole(config: Mapping[str, Any], key: str, absent: int, folder: Path) -> int:
    value = config.get(key, absent)
    if isinstance(value, bool) or not isinstance(value, int):
        raise CheckpointError(f"{folder / CONFIG}: {key} is {value!r}; it must be a whole number")
    return value
