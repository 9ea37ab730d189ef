"""The checkpoint folder: safetensors, configuration, statistics, tokenizer, and a manifest that binds them.

Everything that determines the meaning of an action is written down and checked at load; nothing is unpickled.
"""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Tuple

import torch

from hybridvla_core.checkpoints.config import CheckpointConfig
from hybridvla_core.checkpoints.manifest import MANIFEST, check_files, read_manifest, write_json, write_manifest_of
from hybridvla_core.checkpoints.stream import write_shard
from hybridvla_core.checkpoints.tokenizer import check_tokenizer
from hybridvla_core.checkpoints.weights import INDEX, WEIGHTS, load_into, weight_files
from hybridvla_core.configuration import from_mapping, read_mapping
from hybridvla_core.errors import CheckpointError, ConfigurationError
from hybridvla_core.files import sha256
from hybridvla_core.transforms.normalise import Normaliser

CONFIG, STATISTICS, TOKENIZER = "config.json", "dataset_statistics.json", "tokenizer.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that was read and found intact.

    Attributes:
        folder: Path of the folder.
        config: Content of its `config.json`.
        statistics: Statistics of its data sets, by key.
        manifest: Digests of all files.
        manifest_sha256: Sha256 of the manifest file, which names all the others.
    """

    folder: Path
    config: CheckpointConfig
    statistics: Mapping[str, Any]
    manifest: Mapping[str, Any]
    manifest_sha256: str

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / TOKENIZER


def save_checkpoint(folder: Path, tensors: Mapping[str, torch.Tensor], config: CheckpointConfig,
                    statistics: Mapping[str, Any], tokenizer_json: str, provenance: Mapping[str, Any],
                    dtype: Optional[torch.dtype] = None) -> str:
    """Writes a folder; returns the manifest's sha256. `dtype`: storage type of floating-point tensors (e.g. float16)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink() if (folder / INDEX).exists() else None
    known = {WEIGHTS: write_shard(folder / WEIGHTS, tensors, dtype)}
    write_parts(folder, config, statistics, tokenizer_json)
    return write_manifest_of(folder, (WEIGHTS, CONFIG, STATISTICS, TOKENIZER), provenance, known)


def write_parts(folder: Path, config: CheckpointConfig, statistics: Mapping[str, Any], tokenizer_json: str) -> None:
    """Writes everything but the weights and the manifest."""
    write_json(folder / CONFIG, dataclasses.asdict(config))
    write_json(folder / STATISTICS, statistics)
    (folder / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")


def write_manifest(folder: Path, provenance: Mapping[str, Any]) -> str:
    """Hashes the folder's files into its manifest; returns the manifest's own sha256."""
    return write_manifest_of(folder, _names(folder), provenance)


def _names(folder: Path) -> Tuple[str, ...]:
    weights = weight_files(folder)
    return (*weights, *((INDEX,) if weights != [WEIGHTS] else ()), CONFIG, STATISTICS, TOKENIZER)


def read_config(folder: Path) -> CheckpointConfig:
    """Reads only the small `config.json`, unverified, so that a caller need not wait for gigabytes of weights to be hashed.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        The configuration.

    Raises:
        CheckpointError: The file is missing or does not fit.
    """
    folder = Path(folder)
    _check_present(folder, CONFIG)
    try:
        return from_mapping(CheckpointConfig, read_mapping(folder / CONFIG), str(folder / CONFIG))
    except ConfigurationError as error:
        raise CheckpointError(str(error)) from error


def _check_present(folder: Path, *names: str) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder; check the path")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: {', '.join(missing)} missing; copy the whole checkpoint folder again")


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads and verifies everything but the weights' values.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: Something is missing, altered, truncated, unknown or contradictory; the message names the file.
    """
    folder = Path(folder)
    _check_present(folder, CONFIG, STATISTICS, TOKENIZER, MANIFEST)
    try:
        manifest = read_manifest(folder)
        check_files(folder, manifest, _names(folder))
        config = from_mapping(CheckpointConfig, read_mapping(folder / CONFIG), str(folder / CONFIG))
        statistics = read_mapping(folder / STATISTICS)
        if not config.untrained:
            Normaliser.from_json(statistics, config.statistics_key, config.model.action_dim, str(folder / STATISTICS))
        check_tokenizer(folder / TOKENIZER, config.model)
    except ConfigurationError as error:
        raise CheckpointError(str(error)) from error
    return Checkpoint(folder, config, statistics, manifest, sha256(folder / MANIFEST))


def read_weights(checkpoint: Checkpoint, model: torch.nn.Module) -> None:
    """Copies the weights into `model` piece by piece; names and shapes must match exactly.

    Args:
        checkpoint: Checkpoint with the weights.
        model: Model that receives them.

    Raises:
        CheckpointError: The weights do not match, values are not finite, or the checkpoint has parts that were never trained.
    """
    if checkpoint.config.untrained:
        raise CheckpointError(f"{checkpoint.folder}: {', '.join(checkpoint.config.untrained)} hold random weights, because "
                              f"{_why_untrained(checkpoint.manifest['provenance'])}")
    load_into(model, checkpoint.folder, weight_files(checkpoint.folder))


def _why_untrained(provenance: Mapping[str, Any]) -> str:
    """Returns the end of a message, with what to do."""
    if provenance.get("unfinished"):
        return "the run of `hybridvla train` that wrote it is unfinished; run the same command again to continue it"
    if provenance.get("trained_by"):
        return "no stage of its training had the term diffusion; train it further with that term before it predicts"
    return "this folder was converted from a base model; train it before it predicts"
