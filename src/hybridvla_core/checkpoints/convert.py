"""Conversion of `.pt` and OpenVLA sources to our checkpoint folder, with constant memory."""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np
import torch

from hybridvla_core import __version__
from hybridvla_core.checkpoints.config import CheckpointConfig, EnsembleConfig
from hybridvla_core.checkpoints.dims import config_from_dims, config_from_name
from hybridvla_core.checkpoints.foreign.declared import check_declared
from hybridvla_core.checkpoints.format import CONFIG, STATISTICS, TOKENIZER, write_parts
from hybridvla_core.checkpoints.manifest import FORMAT, write_json, write_manifest_of
from hybridvla_core.checkpoints.released import HEADS, check_names, used_tensors
from hybridvla_core.checkpoints.sources import Source
from hybridvla_core.checkpoints.stream import TooLargeError, plan_shards, stored_bytes, write_shard
from hybridvla_core.checkpoints.target import GIB, Target
from hybridvla_core.checkpoints.tokenizer import check_tokenizer
from hybridvla_core.checkpoints.weights import INDEX, shard_name
from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import CheckpointError, ConfigurationError, few
from hybridvla_core.files import sha256
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.transforms.conventions import DOF_PER_ARM, ActionConvention
from hybridvla_core.transforms.normalise import Normaliser, rare


@dataclass(frozen=True)
class Choices:
    """Choices that no source states, and how to store the result.

    Attributes:
        cameras: View names in the order of training.
        convention: Meaning of the numbers.
        final_norm: Formula of the last norm.
        ensemble: When and how the paths are averaged.
        condition: What the tokens are conditioned on.
        ddim_steps: Denoising steps.
        image_strategy: How images are fitted; None: as the source says.
        statistics_key: Data set whose statistics are used; None if the source has one data set.
        dims: File of the dimensions; None: by the source's name.
        tokenizer: File of the tokenizer; None: the source's.
        dtype: Storage type; None keeps the source's.
        shard_bytes: Upper bound of the tensors in one file, bytes.
        seed: Seed of the modules that the source lacks.
        constant_channel: Model input for a state channel that never moved.
    """

    cameras: Tuple[str, ...]
    convention: ActionConvention
    final_norm: str
    ensemble: EnsembleConfig
    condition: str
    ddim_steps: int
    image_strategy: Optional[str] = None
    statistics_key: Optional[str] = None
    dims: Optional[Path] = None
    tokenizer: Optional[Path] = None
    dtype: Optional[torch.dtype] = None
    shard_bytes: int = 4 * GIB
    seed: int = 0
    constant_channel: str = "zero"


def model_config(source: Source, choices: Choices) -> ModelConfig:
    """Returns the architecture; raises CheckpointError if the source contradicts the file of dimensions."""
    action_dim, views = choices.convention.action_dim, len(choices.cameras)
    if source.action_dim not in (None, action_dim):
        raise CheckpointError(f"{source.folder / CONFIG}: action_dim is {source.action_dim}, but the convention's arms "
                              f"{list(choices.convention.arms)} have {action_dim}; name the arms it was trained with")
    if choices.dims is None:
        config = config_from_name(source.registry, views, source.chunk, action_dim, choices.final_norm)
        return replace(config, sequence=replace(config.sequence, need_to_sub=source.need_to_sub))
    config = config_from_dims(read_mapping(choices.dims), views, source.chunk, choices.final_norm, str(choices.dims))
    for name, there, here in (("action_dim", config.action_dim, action_dim),
                              ("need_to_sub", config.sequence.need_to_sub, source.need_to_sub)):
        if there != here:
            raise CheckpointError(f"{choices.dims}: {name} is {there}, the source and the options say {here}; correct the "
                                  "one that is wrong")
    return config


def convert(source: Source, out: Path, choices: Choices, progress: Callable[[int, int], None] = lambda done, total: None
            ) -> str:
    """Writes a checkpoint folder.

    Everything is checked before the first byte is written. The folder gets its name when it is complete; if the rename fails, it
    is kept under another name.

    Args:
        source: The source to convert.
        out: New folder.
        choices: Choices that the source does not state.
        progress: Called with the bytes just written and all bytes to write.

    Returns:
        The sha256 of its manifest.

    Raises:
        CheckpointError: The source does not fit; the message names what.
        ConfigurationError: A choice does not fit.
    """
    target = Target(out)
    model = model_config(source, choices)
    tensors = complete(source, model, choices)
    statistics, key = _statistics(source, choices, model)
    tokenizer = _tokenizer(source, choices, model)
    strategy = check_declared(source.declared, model, choices.image_strategy, str(source.folder / CONFIG))
    config = CheckpointConfig(
        format=FORMAT, model=model, convention=choices.convention, cameras=choices.cameras, image_strategy=strategy,
        ensemble=choices.ensemble, ddim_steps=choices.ddim_steps, autoregressive_condition=choices.condition,
        statistics_key=key, untrained=source.untrained, constant_channel=choices.constant_channel,
        trained=source.declared.paths)
    shards = plan_shards(tensors, choices.dtype, choices.shard_bytes)
    total = sum(stored_bytes(tensor, choices.dtype) for tensor in tensors.values())
    with target.writing() as partial:
        target.room_for(total)
        write_parts(partial, config, statistics, tokenizer)
        known = _write_weights(partial, tensors, shards, choices.dtype, lambda count: progress(count, total))
        names = [*known, *((INDEX,) if len(shards) > 1 else ()), CONFIG, STATISTICS, TOKENIZER]
        digest = write_manifest_of(partial, names, _provenance(source, choices), known)
    target.finish()
    return digest


def complete(source: Source, model: ModelConfig, choices: Choices) -> Dict[str, torch.Tensor]:
    """Returns the tensors that the model needs, checked by name and shape; heads that a base lacks are drawn from `seed`."""
    with torch.device("meta"):
        expected = HybridVLA(model).state_dict()
    tensors = used_tensors(source.tensors, model)
    wanted = {name: shape for name, shape in expected.items()
              if not source.untrained or name.split(".")[0] not in HEADS}
    try:
        check_names(tensors, wanted, source.where)
    except CheckpointError as error:
        hint = "" if choices.dims else f" (the dimensions are those of {source.registry}; for others give --dims FILE)"
        raise CheckpointError(f"{error}{hint}") from error
    generator = torch.Generator().manual_seed(choices.seed)
    for name in sorted(set(expected) - set(wanted)):
        shape = expected[name].shape
        if name.endswith("norm_final.weight"):
            tensors[name] = torch.ones(shape)
        else:
            tensors[name] = torch.zeros(shape) if name.endswith("bias") else torch.randn(shape, generator=generator) * 0.02
    return {name: tensors[name] for name in expected}


def remarks(source: Source, choices: Choices) -> List[str]:
    """Returns remarks on the source for a person, a sentence each."""
    found = [f"not used: {text}" for text in source.beside]
    if source.declared.unused:
        found.append(f"not used of {source.folder / CONFIG}: {few(source.declared.unused, 8)}")
    if "autoregressive" not in source.declared.paths:
        found.append(f"{source.folder / CONFIG} says that the tokens were not trained (action_tokenizer_exist, ar_diff_loss): "
                     "only mode diffusion predicts")
    return found + _remarks_on_statistics(source, choices)


def _remarks_on_statistics(source: Source, choices: Choices) -> List[str]:
    if source.untrained or source.statistics is None:
        return []
    key = choices.statistics_key or next(iter(source.statistics))
    dims, entry = choices.convention.action_dim, source.statistics[key]
    scales = Normaliser.from_json(source.statistics, key, dims, str(source.folder / STATISTICS))
    grippers = [channel for channel in range(dims) if channel % DOF_PER_ARM == DOF_PER_ARM - 1]
    found = []
    if "mask" not in entry["action"]:
        found.append("the statistics have no mask, so every action channel counts as scaled; grippers are still decided as 0 "
                     "or 1")
    constant = [channel for channel in np.flatnonzero(scales.action.constant).tolist() if channel not in grippers]
    seldom = _moving(entry["action"], constant)
    for channels, how in (([channel for channel in constant if channel not in seldom], "never moves in the data"),
                          (seldom, "moves in less than 1 % of the data, which the released scaling cuts off")):
        if channels:
            values = ", ".join(f"{scales.action.q01[channel]:g}" for channel in channels)
            found.append(f"action channel {channels} {how}: its action is always {values}")
    if not scales.state.recorded:
        found.append(f"the robot state was never recorded in {key}: the model sees no state")
    elif scales.state.constant.any():
        still = np.flatnonzero(scales.state.constant).tolist()
        found.append(f"state channel {still} never moves in the data (--constant-channel {choices.constant_channel})")
        seldom = _moving(entry["proprio"], still)
        if seldom and choices.constant_channel == "zero":
            found.append(f"state channel {seldom} does move in less than 1 % of the data: the released trainer saw -1 there "
                         "and not 0; use --constant-channel released")
    return found


def _moving(entry: Mapping[str, Any], constant: List[int]) -> List[int]:
    """Returns the channels without a range whose least and greatest values nevertheless differ."""
    return [channel for channel in rare(entry) if channel in constant]


def _write_weights(folder: Path, tensors: Mapping[str, torch.Tensor], shards: List[List[str]],
                   dtype: Optional[torch.dtype], progress: Callable[[int], None]) -> Dict[str, Tuple[str, int]]:
    known: Dict[str, Tuple[str, int]] = {}
    table: Dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = shard_name(number, len(shards))
        try:
            known[file] = write_shard(folder / file, {name: tensors[name] for name in names}, dtype, progress)
        except TooLargeError as error:
            raise CheckpointError(f"{error}; write a wider --dtype") from error
        table.update(dict.fromkeys(names, file))
    if len(shards) > 1:
        total = sum(stored_bytes(tensor, dtype) for tensor in tensors.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": table})
    return known


def _statistics(source: Source, choices: Choices, model: ModelConfig) -> Tuple[Mapping[str, Any], str]:
    """Returns all statistics of the source and the key that is used; a base needs none."""
    statistics, where = source.statistics, str(source.folder / STATISTICS)
    if source.untrained:
        return statistics or {}, choices.statistics_key or ""
    if statistics is None:
        raise CheckpointError(f"{where}: missing; without it no action can be un-normalised. Copy it from the training run")
    Normaliser.from_json(statistics, choices.statistics_key, model.action_dim, where)
    return statistics, choices.statistics_key or next(iter(statistics))


def _tokenizer(source: Source, choices: Choices, model: ModelConfig) -> str:
    path = choices.tokenizer or source.folder / TOKENIZER
    path = path / TOKENIZER if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(f"{path}: no tokenizer there; give the language model's own tokenizer.json with "
                              "--tokenizer FILE (nothing is fetched)")
    check_tokenizer(path, model)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error})") from error


def _provenance(source: Source, choices: Choices) -> Dict[str, Any]:
    return {"converted_by": f"hybridvla {__version__}", "kind": source.kind, "registry": str(source.registry),
            "sources": {path.name: sha256(path) for path in source.files},
            "final_norm": choices.final_norm, "camera_order": list(choices.cameras),
            "state_source": choices.convention.state_source,
            "head_seed": choices.seed if source.untrained else None,
            "not_used": [*source.beside, *source.declared.unused]}
