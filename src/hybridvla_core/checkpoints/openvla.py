"""OpenVLA folder as Hugging Face stores it: sharded safetensors with other tensor names."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Mapping

import torch

from hybridvla_core.checkpoints.foreign.savers import bare_name, refuse_unfinished
from hybridvla_core.checkpoints.weights import Weights, weight_files
from hybridvla_core.errors import CheckpointError

#: Pattern -> our name; the first match is used.
RENAMES = (
    (re.compile(r"^language_model\."), "llm."),
    (re.compile(r"^vision_backbone\.featurizer\."), "vision_backbone.dino_featurizer."),
    (re.compile(r"^vision_backbone\.fused_featurizer\."), "vision_backbone.siglip_featurizer."),
    (re.compile(r"^projector\.fc1\."), "projector.projector.0."),
    (re.compile(r"^projector\.fc2\."), "projector.projector.2."),
    (re.compile(r"^projector\.fc3\."), "projector.projector.4."))
SCALE = re.compile(r"\.(ls[12])\.scale_factor$")


def is_openvla(run: Path, config: Mapping[str, Any]) -> bool:
    return run.is_dir() and "timm_model_ids" in config and any(run.glob("*.safetensors"))


def rename(name: str) -> str:
    """Returns an OpenVLA parameter's name in our model; unknown names stay and are refused later, by name."""
    for pattern, ours in RENAMES:
        name, count = pattern.subn(ours, name)
        if count:
            break
    return SCALE.sub(r".\1.gamma", name)


def read_openvla(run: Path) -> Dict[str, torch.Tensor]:
    """Returns all tensors of the folder under our names, mapped from its files."""
    tensors = {}
    weights = Weights(run, weight_files(run))
    refuse_unfinished(list(weights.shapes()), str(run))
    for name in weights.shapes():
        tensor = weights.tensor(name)
        if not tensor.is_floating_point():
            raise CheckpointError(f"{weights.file_of(name)}: {name} is stored as {tensor.dtype}; weights must be "
                                  "floating-point numbers")
        tensors[rename(bare_name(name))] = tensor
    return tensors


def registry_name(config: Mapping[str, Any]) -> str:
    """Returns the Prismatic registry's name of an OpenVLA configuration with the usual towers and language model."""
    towers = list(config.get("timm_model_ids") or [])
    text = config.get("llm_backbone_id") or (config.get("text_config") or {}).get("model_type")
    usual = towers == ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"]
    return "prism-dinosiglip-224px+7b" if usual and text in ("llama2-7b-pure", "llama") else f"{towers} with {text}"
