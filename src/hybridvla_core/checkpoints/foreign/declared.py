"""Declarations of a source's `config.json` about its model: read, compared with the architecture, or listed as not used."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Tuple, Type, TypeVar

from hybridvla_core.checkpoints.config import PATHS
from hybridvla_core.errors import CheckpointError
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.transforms.images import STRATEGIES

#: Keys that have an effect here; `model` and `vla` hold keys of their own.
READ = frozenset((
    "action_dim", "future_action_window_size", "past_action_window_size", "need_to_sub", "use_diff", "ar_diff_loss",
    "action_tokenizer_exist", "n_action_bins", "image_resize_strategy", "image_sizes", "timm_model_ids", "llm_backbone_id",
    "vision_backbone_id", "text_config", "norm_stats", "base_vlm", "model_id"))
#: Organisation of the run, and what libraries write about themselves; the finished model does not depend on it.
BOOKKEEPING = frozenset((
    "action_model_type", "arch_specifier", "architectures", "auto_map", "batch_size", "data_mix", "data_root_dir",
    "dataset", "debug", "dtype", "enable_gradient_checkpointing", "enable_mixed_precision_training", "epochs",
    "expected_world_size", "freeze_llm_backbone", "freeze_vision_backbone", "global_batch_size", "hf_llm_id", "hf_token",
    "image_aug", "is_resume", "learning_rate", "llm_max_length", "load_all_data_for_training", "load_dit",
    "lr_scheduler_type", "max_grad_norm", "max_steps", "model_type", "output_projector_states", "pad_to_multiple_of",
    "pad_token_id", "per_device_batch_size", "pretrained_checkpoint", "reduce_in_full_precision",
    "repeated_diffusion_steps", "resume_epoch", "resume_step", "return_dict", "run_id", "run_id_note", "run_root_dir",
    "save_interval", "seed", "shuffle_buffer_size", "stage", "timm_override_act_layers", "torch_dtype", "trackers",
    "train_strategy", "transformers_version", "type", "unfreeze_last_llm_layer", "use_fused_vision_backbone", "vla_id",
    "wandb_entity", "wandb_project", "warmup_ratio", "weight_decay"))
T = TypeVar("T")
_SIZE = re.compile(r"(\d{3,4})px")


@dataclass(frozen=True)
class Declared:
    """Declarations that were read.

    Attributes:
        image_strategy: How pictures were resized in training; None if the source does not say.
        bins: Bins of the action tokens; None if the source does not say.
        image_sizes: Side of the images in pixels, one for all towers or one per tower.
        paths: Those of `PATHS` that were trained.
        unused: `key: value` of everything else that may matter but is not used.
    """

    image_strategy: Optional[str] = None
    bins: Optional[int] = None
    image_sizes: Tuple[int, ...] = ()
    paths: Tuple[str, ...] = PATHS
    unused: Tuple[str, ...] = ()


def read_declared(config: Mapping[str, Any], where: str) -> Declared:
    """Returns what a `config.json` declares.

    Args:
        config: Content of the file.
        where: Name of the file in messages.

    Raises:
        CheckpointError: A value is of the wrong kind, the observation has history, or the run had no diffusion.
    """
    parts = [config] + [config[key] for key in ("model", "vla") if isinstance(config.get(key), Mapping)]
    past = _value(parts, "past_action_window_size", int, where)
    if past:
        raise CheckpointError(f"{where}: past_action_window_size is {past}; models that see earlier actions cannot be "
                              "converted")
    strategy = _value(parts, "image_resize_strategy", str, where)
    if strategy is not None and strategy not in STRATEGIES:
        raise CheckpointError(f"{where}: image_resize_strategy is {strategy!r}; only {', '.join(STRATEGIES)} can be reproduced")
    return Declared(strategy, _value(parts, "n_action_bins", int, where), _sizes(parts, where), _paths(parts, where),
                    tuple(_unused(config)))


def check_declared(declared: Declared, model: ModelConfig, strategy: Optional[str], where: str) -> str:
    """Returns how pictures are resized.

    Args:
        declared: Declarations of the source.
        model: Architecture that its tensors are read into.
        strategy: The user's choice; None leaves it to the source, and then to the towers' usual one.
        where: Name of the file in messages.

    Raises:
        CheckpointError: Source, architecture and user contradict each other; the message names each.
    """
    if declared.bins not in (None, model.bins):
        raise CheckpointError(f"{where}: n_action_bins is {declared.bins}, the action tokens here have {model.bins} bins; such "
                              "a model cannot be converted")
    for place, tower in enumerate(model.towers):
        sizes = declared.image_sizes
        size = sizes[min(place, len(sizes) - 1)] if sizes else tower.image_size
        if size != tower.image_size:
            raise CheckpointError(f"{where}: its pictures are {size} pixels wide, those of the {tower.kind} tower "
                                  f"{tower.image_size}; give the right dimensions with --dims FILE")
    if None not in (strategy, declared.image_strategy) and strategy != declared.image_strategy:
        raise CheckpointError(f"--image-strategy {strategy}: {where} says that the model was trained with "
                              f"{declared.image_strategy}; leave the option out, or correct the file")
    usual = "letterbox" if model.towers[0].kind == "clip" else "resize-naive"
    return strategy or declared.image_strategy or usual


def _paths(parts: List[Mapping[str, Any]], where: str) -> Tuple[str, ...]:
    """Returns the trained paths; a missing switch counts as on, because other trainers do not write it."""
    diffusion, tokens, loss = (_value(parts, key, bool, where) is not False
                               for key in ("use_diff", "action_tokenizer_exist", "ar_diff_loss"))
    if not diffusion:
        raise CheckpointError(f"{where}: use_diff is false: the model was trained without diffusion and without the robot's "
                              "state, so neither of the two paths is that of this model; convert a run with use_diff")
    return PATHS if tokens and loss else PATHS[:1]


def _sizes(parts: List[Mapping[str, Any]], where: str) -> Tuple[int, ...]:
    for part in parts:
        sizes = part.get("image_sizes")
        if sizes is not None:
            sizes = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
            if not sizes or not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
                raise CheckpointError(f"{where}: image_sizes is {part['image_sizes']!r}; it must be whole numbers of pixels")
            return tuple(sizes)
    # The released code reads clip-vit-l-336px as clip-vit-l, whose pictures have 224 pixels.
    named = [_SIZE.search(str(part.get("vision_backbone_id", "")).replace("clip-vit-l-336px", "")) for part in parts]
    return tuple(int(match.group(1)) for match in named if match)[:1]


def _value(parts: List[Mapping[str, Any]], key: str, kind: Type[T], where: str) -> Optional[T]:
    """Returns the value in the first of the parts that has the key with a value other than null."""
    for part in parts:
        value = part.get(key)
        if value is None:
            continue
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            wanted = {"bool": "true or false", "int": "a whole number", "str": "text"}[kind.__name__]
            raise CheckpointError(f"{where}: {key} is {str(value)[:60]!r}; it must be {wanted}")
        return value
    return None


def _unused(config: Mapping[str, Any]) -> List[str]:
    """Returns keys that have no effect here, with their values; those of `model` and `vla` by their full name."""
    found = []
    for key, value in config.items():
        if key in ("model", "vla") and isinstance(value, Mapping):
            found += [f"{key}.{text}" for text in _unused(value)]
        elif key not in READ and key not in BOOKKEEPING and value not in (None, False, "", 0, 0.0, [], {}):
            found.append(f"{key}: {str(value)[:40]}")
    return found
