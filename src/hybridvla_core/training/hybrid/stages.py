"""Parts of the model that a stage trains (with the released stages' names), and their learning rates.

    align       projector
    finetune    projector, language model
    full        towers, projector, language model
    last_layer  last layer, embeddings and output of the language model
    sandwich    towers, projector, and the last layer as above
    towers      towers alone

All stages train the embedders of state, timestep and noise, the final layer and the grounding heads, because these are new
in every base.
"""
from __future__ import annotations

import re
from typing import Any, Dict, FrozenSet, List, Optional, Sequence, Set, Tuple

from torch import nn

from hybridvla_core.checkpoints.config import PATHS, CheckpointConfig
from hybridvla_core.checkpoints.released import HEADS
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.training.hybrid import parts
from hybridvla_core.training.hybrid.config import StageConfig, TrainingConfig

_TOWERS = re.compile(r"model\.(vision_backbone|tower_norm)\.")
_PROJECTOR = re.compile(r"model\.(projector|projector_norm)\.")
_LANGUAGE = re.compile(r"model\.llm\.")
_ADAPTER = re.compile(r"\.lora_")
WITH_TOWERS, WITH_PROJECTOR = ("full", "sandwich", "towers"), ("align", "finetune", "full", "sandwich")
WITH_LANGUAGE, WITH_LAST_LAYER = ("finetune", "full"), ("last_layer", "sandwich")
#: Networks whose size depends on the number of channels; `embedders: new` draws them anew.
OF_THE_CHANNELS = ("final_layer", "proprio_embedder", "x_embedder")
#: Modules that L_ce alone leaves as drawn: without noise in the sequence nothing can be denoised, while at inference the
#: tokens follow noise.
UNTRAINED_BY_TOKENS = ("final_layer", "t_embedder", "x_embedder")


def wanted_terms(config: TrainingConfig, stage: StageConfig) -> FrozenSet[str]:
    """Returns the terms that count in a stage: those with a weight and, if the stage names terms, only these."""
    weighted = {name for name in parts.TERMS if weight_of(config, name) > 0}
    chosen = weighted & set(stage.terms) if stage.terms else weighted
    if not chosen:
        raise HybridVLAError(f"stage {stage.name}: none of its terms {', '.join(stage.terms)} has a weight; give one in "
                             "objective or grounding")
    return frozenset(chosen)


def weight_of(config: TrainingConfig, term: str) -> float:
    """Returns the weight of a term."""
    return float(getattr(config.grounding if term in parts.GROUNDING else config.objective, term))


def learned(config: TrainingConfig, base: Optional[CheckpointConfig], done: Sequence[StageConfig]
            ) -> Tuple[Tuple[str, ...], Tuple[str, ...]]:
    """Tells what a model has not learned once these stages are done.

    Args:
        config: Configuration of the run.
        base: Configuration of the starting checkpoint, if any. What it had learned counts, except with new embedders.
        done: Stages with at least one step done; stages without steps do not count.

    Returns:
        `untrained` and `trained` of the checkpoint's configuration.

    Raises:
        HybridVLAError: No term of a stage has a weight.
    """
    ran = frozenset(term for stage in done if stage.steps for term in wanted_terms(config, stage))
    if base is not None and not base.untrained and config.embedders == "init":
        before = {parts.DIFFUSION, parts.TOKENS} if set(base.trained) == set(PATHS) else {parts.DIFFUSION}
        ran |= {term for term in before if weight_of(config, term) > 0}
    trained = PATHS if parts.TOKENS in ran else PATHS[:1]
    if parts.DIFFUSION in ran:
        return (), trained
    left = UNTRAINED_BY_TOKENS if parts.TOKENS in ran else HEADS
    own = config.embedders == "new" and base is not None and not base.untrained      # the timestep embedder is the base's
    return tuple(name for name in left if not own or name in OF_THE_CHANNELS), trained


def is_trained(train: str, name: str, layers: int, adapters: bool = False) -> bool:
    """Tells whether a parameter of the objective is trained.

    Args:
        train: Parts that the stage trains.
        name: Name of the parameter.
        layers: Number of layers of the language model.
        adapters: Whether the language model has adapters and its own weights stay as they are.

    Returns:
        True for adapters and heads in every stage; for towers, projector and language model as `train` says.
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
    """Freezes the parameters that the stage does not train; returns the names of those that it trains."""
    trained = set()
    for name, parameter in module.named_parameters():
        chosen = parameter.is_floating_point() and is_trained(stage.train, name, layers, adapters)
        parameter.requires_grad_(chosen)
        if chosen:
            trained.add(name)
    return trained


def groups(module: nn.Module, stage: StageConfig, weight_decay: float) -> List[Dict[str, Any]]:
    """Returns the optimiser's groups: towers with their own rate; vectors and biases without decay."""
    found: Dict[Any, List[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            scale = stage.tower_rate if _TOWERS.match(name) else 1.0
            found.setdefault((scale, weight_decay if parameter.dim() > 1 else 0.0), []).append(parameter)
    return [{"params": members, "scale": scale, "weight_decay": decay} for (scale, decay), members in found.items()]
