"""Which parts of the model a stage trains (the released stages' names), and with what rate.

    align       projector
    finetune    projector, language model
    full        towers, projector, language model
    last_layer  last layer, embeddings and output of the language model
    sandwich    towers, projector, and the last layer as above
    towers      towers alone

The embedders of state, timestep and noise, the final layer and the heads of the grounding are new in every base, so all stages
train them.
"""
from __future__ import annotations

import re
from typing import Any, Dict, List, Set

from torch import nn

from hybridvla_core.training.hybrid.config import StageConfig

_TOWERS = re.compile(r"model\.(vision_backbone|tower_norm)\.")
_PROJECTOR = re.compile(r"model\.(projector|projector_norm)\.")
_LANGUAGE = re.compile(r"model\.llm\.")
_ADAPTER = re.compile(r"\.lora_")
WITH_TOWERS, WITH_PROJECTOR = ("full", "sandwich", "towers"), ("align", "finetune", "full", "sandwich")
WITH_LANGUAGE, WITH_LAST_LAYER = ("finetune", "full"), ("last_layer", "sandwich")


def is_trained(train: str, name: str, layers: int, adapters: bool = False) -> bool:
    """Tells whether a parameter of the objective is trained.

    Args:
        train: Of the stage.
        name: Of the parameter.
        layers: Of the language model.
        adapters: Whether its own weights stay as they are.

    Returns:
        True for adapters and heads in every stage; towers, projector and language model as `train` says.
    """
    if _ADAPTER.search(name):
        return True
    if _LANGUAGE.match(name):
        last = re.match(rf"model\.llm\.(lm_head\.|model\.embed_tokens\.|model\.layers\.{layers - 1}\.)", name) is not None
        return not adapters and (train in WITH_LANGUAGE or (train in WITH_LAST_LAYER and last))
    tower, projector = _TOWERS.match(name) is not None, _PROJECTOR.match(name) is not None
    if tower or projector:
        return (tower and train in WITH_TOWERS) or (projector and train in WITH_PROJECTOR)
    return True


def choose_parameters(module: nn.Module, stage: StageConfig, layers: int, adapters: bool) -> Set[str]:
    """Freezes what the stage does not train; returns the names of what it does."""
    trained = set()
    for name, parameter in module.named_parameters():
        chosen = parameter.is_floating_point() and is_trained(stage.train, name, layers, adapters)
        parameter.requires_grad_(chosen)
        if chosen:
            trained.add(name)
    return trained


def groups(module: nn.Module, stage: StageConfig, weight_decay: float) -> List[Dict[str, Any]]:
    """The optimiser's groups: towers by their own rate; vectors and biases without decay."""
    found: Dict[Any, List[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            scale = stage.tower_rate if _TOWERS.match(name) else 1.0
            found.setdefault((scale, weight_decay if parameter.dim() > 1 else 0.0), []).append(parameter)
    return [{"params": members, "scale": scale, "weight_decay": decay} for (scale, decay), members in found.items()]
