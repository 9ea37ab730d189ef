"""The checkpoint folder: safetensors, configuration, statistics, tokenizer, and a manifest that binds them.

Everything that decides what an action means is written down and checked at load; nothing is unpickled.
"""
from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hybridvla_core.configuration import from_mapping, read_mapping
from hybridvla_core.conventions import ActionConvention
from hybridvla_core.errors import CheckpointError, ConfigurationError
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.policy.ensemble import EnsembleConfig
from hybridvla_core.policy.preprocess import STRATEGIES

FORMAT = 1
WEIGHTS, CONFIG, STATISTICS, TOKENIZER, MANIFEST = (
    "model.safetensors", "config.json", "dataset_statistics.json", "tokenizer.json", "MANIFEST.json")
FILES = (WEIGHTS, CONFIG, STATISTICS, TOKENIZER)
CONDITIONS = ("denoised", "noise", "released")


@dataclass(frozen=True)
class CheckpointConfig:
    """`config.json`. cameras: view names in the order the model was trained with. statistics_key: which data set of
    `dataset_statistics.json` normalises. ddim_steps: denoising steps of a prediction (the paper: 4)."""

    format: int
    model: ModelConfig
    convention: ActionConvention
    cameras: Tuple[str, ...]
    image_strategy: str
    ensemble: EnsembleConfig
    ddim_steps: int
    autoregressive_condition: str
    statistics_key: str

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ConfigurationError(f"checkpoint format {self.format}; this version reads {FORMAT}")
        if len(self.cameras) != self.model.views or len(set(self.cameras)) != len(self.cameras):
            raise ConfigurationError(f"cameras {list(self.cameras)} do not name each of {self.model.views} view(s) once")
        if self.convention.action_dim != self.model.action_dim:
            raise ConfigurationError(f"the convention's arms {list(self.convention.arms)} need "
                                     f"{self.convention.action_dim} action dimensions, the model has "
                                     f"{self.model.action_dim}")
        if self.image_strategy not in STRATEGIES:
            raise ConfigurationError(f"image_strategy {self.image_strategy!r}; use one of {', '.join(STRATEGIES)}")
        if self.autoregressive_condition not in CONDITIONS:
            raise ConfigurationError(f"autoregressive_condition {self.autoregressive_condition!r}; use one of "
                                     f"{', '.join(CONDITIONS)}")


@dataclass(frozen=True)
class Checkpoint:
    """A folder that was read and found whole. manifest_sha256: of the manifest file, which names all the others."""

    folder: Path
    config: CheckpointConfig
    statistics: Mapping[str, Any]
    manifest: Mapping[str, Any]
    manifest_sha256: str

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / TOKENIZER


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def save_checkpoint(folder: Path, tensors: Mapping[str, torch.Tensor], config: CheckpointConfig,
                    statistics: Mapping[str, Any], tokenizer_json: str, provenance: Mapping[str, Any],
                    dtype: Optional[torch.dtype] = None) -> str:
    """Write a folder; returns the manifest's sha256. `dtype`: storage type of floating-point tensors (e.g. float16)."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).contiguous()
              for name, tensor in tensors.items()}
    save_file(stored, str(folder / WEIGHTS))
    _write_json(folder / CONFIG, dataclasses.asdict(config))
    _write_json(folder / STATISTICS, statistics)
    (folder / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
    return write_manifest(folder, provenance)


def write_manifest(folder: Path, provenance: Mapping[str, Any]) -> str:
    """Hash the folder's files into its manifest; returns the manifest's own sha256."""
    files = {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in FILES}
    _write_json(folder / MANIFEST, {"format": FORMAT, "files": files, "provenance": dict(provenance)})
    return sha256(folder / MANIFEST)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify everything but the weights' values.

    Raises CheckpointError naming the file for anything missing, altered, truncated, unknown or contradictory.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder; check the path")
    missing = [name for name in (*FILES, MANIFEST) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: {', '.join(missing)} missing; copy the whole checkpoint folder again")
    try:
        manifest = read_mapping(folder / MANIFEST)
        files = manifest["files"]
        for name in FILES:
            _check_file(folder / name, files[name])
        config = from_mapping(CheckpointConfig, read_mapping(folder / CONFIG), str(folder / CONFIG))
        statistics = read_mapping(folder / STATISTICS)
    except ConfigurationError as error:
        raise CheckpointError(str(error)) from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: entry {error} is missing or of the wrong kind; copy the folder "
                              "again") from error
    return Checkpoint(folder, config, statistics, manifest, sha256(folder / MANIFEST))


def _check_file(path: Path, entry: Mapping[str, Any]) -> None:
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise CheckpointError(f"{path}: {size} bytes, the manifest says {entry['bytes']}; the file is truncated or "
                              "altered, copy it again")
    if sha256(path) != entry["sha256"]:
        raise CheckpointError(f"{path}: content does not match the manifest; the file was altered, copy it again")


def read_weights(checkpoint: Checkpoint, model: torch.nn.Module) -> None:
    """Copy the weights into `model` one tensor at a time; names and shapes must match exactly."""
    path = checkpoint.folder / WEIGHTS
    parameters: Dict[str, torch.Tensor] = dict(model.state_dict(keep_vars=True))
    try:
        with safe_open(str(path), framework="pt") as archive, torch.no_grad():
            names = set(archive.keys())
            _compare(path, names, set(parameters))
            for name, parameter in parameters.items():
                tensor = archive.get_tensor(name)
                if tensor.shape != parameter.shape:
                    raise CheckpointError(f"{path}: {name} is {tuple(tensor.shape)}, the configuration needs "
                                          f"{tuple(parameter.shape)}")
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise CheckpointError(f"{path}: {name} holds values that are not finite")
                parameter.copy_(tensor)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); copy it again") from error


def _compare(path: Path, found: set, expected: set) -> None:
    missing, surplus = sorted(expected - found), sorted(found - expected)
    if missing or surplus:
        parts = [f"{title}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
                 for title, names in (("missing", missing), ("surplus", surplus)) if names]
        raise CheckpointError(f"{path}: the tensors do not fit config.json; {'; '.join(parts)}")


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
