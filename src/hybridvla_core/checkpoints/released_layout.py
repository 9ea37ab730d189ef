"""Conversion of a checkpoint to the released layout (`config.json`, `dataset_statistics.json`, `checkpoints/*.pt`)."""
from __future__ import annotations

from pathlib import Path
from typing import Dict, Mapping, Sequence

import torch

from hybridvla_core.checkpoints.dims import REGISTRY
from hybridvla_core.checkpoints.format import Checkpoint
from hybridvla_core.checkpoints.manifest import write_json
from hybridvla_core.checkpoints.released import PREFIXES
from hybridvla_core.checkpoints.target import Target
from hybridvla_core.checkpoints.weights import Weights, weight_files
from hybridvla_core.errors import CheckpointError
from hybridvla_core.model.config import ModelConfig, TowerConfig
from hybridvla_core.model.presets import preset
from hybridvla_core.model.vision import MODULE_NAMES

Tensors = Dict[str, torch.Tensor]
PT = Path("checkpoints") / "step-000000-epoch-00-loss=0.0000.pt"


def check_layout(config: ModelConfig, untrained: Sequence[str] = ()) -> None:
    """Checks that the released layout can hold a checkpoint; a training calls it before its first step.

    Args:
        config: The architecture.
        untrained: Parts with random weights, as the checkpoint states.

    Raises:
        CheckpointError: The model has norms or a sequence that the released code does not know, or untrained parts.
    """
    if config.tower_norm or config.projector_norm or (config.sequence.kind, config.sequence.state) != (1, "embedding"):
        raise CheckpointError("the released layout has no norm after towers or projector, and only sequence 1; this model "
                              "differs")
    if untrained:
        raise CheckpointError(f"the released layout cannot say that parts are untrained, and {', '.join(untrained)} hold random "
                              "weights; train them with the term diffusion first")


def released_modules(tensors: Mapping[str, torch.Tensor], config: ModelConfig) -> Dict[str, Tensors]:
    """Sorts tensors into the modules of the released layout.

    Released files also hold parts that no path uses, because their loader requires every name: each tower's last block (here a
    copy of the one before), final norm and pooling (here neutral).

    Args:
        tensors: Tensors under our names.
        config: The architecture.

    Returns:
        Module -> name -> tensor, as released.

    Raises:
        CheckpointError: The model has norms or a sequence that the released code does not know.
    """
    check_layout(config)
    ordered = sorted(PREFIXES.items(), key=lambda item: -len(item[1]))      # the language model's prefix is empty
    modules: Dict[str, Tensors] = {module: {} for module in PREFIXES}
    for name, tensor in tensors.items():
        module = next(module for module, prefix in ordered if name.startswith(prefix))
        modules[module][name[len(PREFIXES[module]):]] = tensor
    for tower in config.towers:
        modules["vision_backbone"].update(_unused(modules["vision_backbone"], tower))
    return modules


def _unused(named: Tensors, tower: TowerConfig) -> Tensors:
    stem, width, mlp = f"{MODULE_NAMES[tower.kind]}.", tower.width, tower.mlp_width
    before, last = f"{stem}blocks.{tower.depth - 2}.", f"{stem}blocks.{tower.depth - 1}."
    found = {last + name[len(before):]: tensor.clone() for name, tensor in named.items() if name.startswith(before)}
    like = next(iter(found.values()))
    found[f"{stem}norm.weight"], found[f"{stem}norm.bias"] = like.new_ones(width), like.new_zeros(width)
    if tower.kind == "siglip":
        found[f"{stem}attn_pool.latent"] = like.new_zeros(1, 1, width)
        for name, rows, columns in (("q", width, width), ("kv", 2 * width, width), ("proj", width, width),
                                    ("mlp.fc1", mlp, width), ("mlp.fc2", width, mlp)):
            found[f"{stem}attn_pool.{name}.weight"] = like.new_zeros(rows, columns)
            found[f"{stem}attn_pool.{name}.bias"] = like.new_zeros(rows)
        found[f"{stem}attn_pool.norm.weight"] = like.new_ones(width)
        found[f"{stem}attn_pool.norm.bias"] = like.new_zeros(width)
    return found


def write_released(checkpoint: Checkpoint, out: Path) -> Path:
    """Writes a run folder. The tensors keep their stored type.

    Args:
        checkpoint: The checkpoint to write.
        out: New folder.

    Returns:
        Path of its `.pt`.

    Raises:
        CheckpointError: The folder exists and is not empty, or the layout cannot hold the model.
    """
    check_layout(checkpoint.config.model, checkpoint.config.untrained)
    target = Target(out)
    with target.writing() as partial:
        _write(checkpoint, partial)
    target.finish()
    return out / PT


def _write(checkpoint: Checkpoint, out: Path) -> None:
    config = checkpoint.config.model
    with Weights(checkpoint.folder, weight_files(checkpoint.folder)) as weights:
        modules = released_modules({name: weights.tensor(name) for name in weights.shapes()}, config)
        (out / PT).parent.mkdir()
        own = {module: {name: tensor.clone() for name, tensor in named.items()} for module, named in modules.items()}
        torch.save({"model": own}, str(out / PT))
    known = [name for name, ours in REGISTRY.items()
             if preset(ours).decoder == config.decoder and preset(ours).towers == config.towers]
    tokens = "autoregressive" in checkpoint.config.trained
    write_json(out / "config.json", {
        "action_dim": config.action_dim, "future_action_window_size": config.chunk - 1, "past_action_window_size": 0,
        "need_to_sub": config.sequence.need_to_sub, "use_diff": True, "ar_diff_loss": tokens, "action_tokenizer_exist": tokens,
        "image_resize_strategy": checkpoint.config.image_strategy,
        "vla": {"base_vlm": known[0]} if known else {}})
    write_json(out / "dataset_statistics.json", dict(checkpoint.statistics))
