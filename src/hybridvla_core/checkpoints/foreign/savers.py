"""Tensors as other savers name them: additions of wrappers are removed; for unfinished files, a message says what to do first."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import torch

from hybridvla_core.errors import CheckpointError, few

#: Parts that DistributedDataParallel, torch.compile, activation checkpointing and FSDP insert in a name.
WRAPPERS = frozenset(("module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"))
#: Outer levels that savers put around the modules.
OUTER = frozenset(("vlm", "model", "vla", "state_dict"))
#: Entries of a file that may hold the weights, in the order of the search.
ENTRIES = ("model", "state_dict", "model_state_dict", "module", "weights")
AVERAGED = re.compile(r"(?i)(^|_)(ema|swa|averaged?|shadow)(_|$)")
ADAPTER = re.compile(r"(^|\.)(lora_[A-Za-z_]+|base_layer|modules_to_save|lora_magnitude_vector)(\.|$)|^base_model\.model\.")
SHARDED = re.compile(r"(^|\.)_?flat_param(_\d+)?$")
QUANTISED = re.compile(r"\.(absmax|quant_map|nested_absmax|quant_state\S*|SCB|qweight|qzeros)$")
#: Modules of other architectures on the same base.
HEADS_OF_OTHERS = {"action_head": "OpenVLA-OFT", "proprio_projector": "OpenVLA-OFT", "noisy_action_projector": "OpenVLA-OFT",
                   "action_model": "CogACT", "ema_diffusion": "CogACT", "z_embedder": "a model with class dropout",
                   "action_queries": "OpenVLA-OFT", "vision_film": "OpenVLA-OFT"}
DEPTH = 6


@dataclass(frozen=True)
class Saved:
    """Content of a file.

    Attributes:
        modules: Module -> name -> tensor.
        entry: Entry that held them; empty for the top level.
        averaged: Entries with averaged weights beside them.
    """

    modules: Dict[str, Dict[str, torch.Tensor]]
    entry: str
    averaged: Tuple[str, ...]


def bare_name(name: str) -> str:
    """Returns a parameter's name without the parts that wrappers insert."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def read_modules(content: object, known: Mapping[str, str], path: str, entry: Optional[str] = None) -> Saved:
    """Returns the modules of a file's content.

    Args:
        content: Content of the file.
        known: Names of the wanted modules.
        path: Name of the file in messages.
        entry: Name of the entry with the weights; None looks for the usual ones.

    Raises:
        CheckpointError: The file holds adapters, shards or quantised weights, or no entry holds weights.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds {type(content).__name__} and no dictionary of tensors; this is not a checkpoint")
    where = _entry(content, known, path, entry)
    found: Dict[str, Any] = {}
    for name, value in _flattened(content[where] if where else content, path, not where):
        bare = _under_module(bare_name(name), known)
        if bare in found:
            raise CheckpointError(f"{path}: {few([bare])} appears twice; save the model once, without its wrapper")
        found[bare] = value
    refuse_unfinished(list(found), path)
    averaged = [str(key) for key in content if key != where and AVERAGED.search(str(key))]
    modules: Dict[str, Dict[str, torch.Tensor]] = {}
    for name, value in found.items():
        module, _, rest = name.partition(".")
        if module not in known and AVERAGED.search(module):
            averaged.append(f"{where}.{module}" if where else module)
            continue
        if module not in known:      # refused later by the module's name, whatever it holds
            modules.setdefault(module, {})
            continue
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise CheckpointError(f"{path}: {few([f'{module} {rest}'.strip()])} is not a tensor of floating-point numbers")
        modules.setdefault(module, {})[rest] = value
    return Saved(modules, where, tuple(dict.fromkeys(averaged)))


def refuse_unfinished(names: List[str], path: str) -> None:
    """Raises CheckpointError for tensors that are not yet a model: adapters, shards of one process, quantised weights."""
    for pattern, what in ((ADAPTER, "has LoRA adapters that are not merged into the weights; merge it first (with peft: "
                                    "merge_and_unload), save the whole model and convert that"),
                          (SHARDED, "holds FSDP's flat parameters, one process' part of the model; save the full state "
                                    "dict (FullStateDictConfig) and convert that"),
                          (QUANTISED, "holds quantised weights; save the model in float32, bfloat16 or float16 and convert "
                                      "that")):
        found = [name for name in names if pattern.search(name)]
        if found:
            raise CheckpointError(f"{path}: {what} (found {few(found, 2)})")


def module_problem(found: Mapping[str, Any], expected: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Returns what is wrong with a file's modules and where the right ones are; empty if all are present."""
    unknown, missing = set(found) - set(known), set(expected) - set(found)
    if not unknown and not missing:
        return ""
    text = f"modules missing: {few(missing, 8)}; unknown: {few(unknown)}"
    others = sorted({HEADS_OF_OTHERS[name] for name in unknown if name in HEADS_OF_OTHERS})
    if others:
        return f"{text}; these are parts of {' and '.join(others)}, another architecture that cannot be converted"
    if missing and missing <= {"vision_backbone", "llm_backbone"} and not unknown:
        towers = " (Prismatic's towers are timm's vit_large_patch14_reg4_dinov2.lvd142m and vit_so400m_patch14_siglip_224)"
        return (f"{text}; a module that was frozen while training is often not saved: it is the same as in the base model"
                f"{towers if 'vision_backbone' in missing else ''}. Put it into the file, or save all modules")
    return f"{text}; it must hold {', '.join(expected)}"


def _entry(content: Mapping[str, Any], known: Mapping[str, str], path: str, entry: Optional[str]) -> str:
    """Returns the name of the entry with the weights; empty if they are at the top level."""
    if entry is not None:
        if not isinstance(content.get(entry), Mapping):
            raise CheckpointError(f"{path}: no entry {entry!r} with weights; it holds {few(content, 8)}")
        return entry
    for name in ENTRIES:
        if isinstance(content.get(name), Mapping) and content[name]:
            return name
    tops = {_under_module(bare_name(str(name)), known).partition(".")[0] for name in content}
    if not tops & set(known):
        raise CheckpointError(f"{path}: no 'model' entry; this is neither a HybridVLA nor a Prismatic checkpoint (it holds "
                              f"{few(content, 8)})")
    return ""


def _flattened(content: Mapping[str, Any], path: str, top: bool, depth: int = 0) -> Iterator[Tuple[str, Any]]:
    """Yields dotted names and values. top: the whole file, where a step number or an optimizer may be beside the weights."""
    if depth > DEPTH:
        raise CheckpointError(f"{path}: dictionaries in dictionaries, {depth} deep; this is not a checkpoint of a model")
    for name, value in content.items():
        if isinstance(value, Mapping):
            if top and str(name) in ("optimizer", "optimizer_state_dict", "scheduler", "lr_scheduler", "scaler"):
                continue
            if not value:
                yield str(name), value
            for inner, one in _flattened(value, path, False, depth + 1):
                yield f"{name}.{inner}", one
        elif not top or isinstance(value, torch.Tensor):
            yield str(name), value


def _under_module(name: str, known: Mapping[str, str]) -> str:
    """Returns the name without the levels that savers put around the modules."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in OUTER and parts[0] not in known:
        del parts[0]
    return ".".join(parts)
