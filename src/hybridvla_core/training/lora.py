"""Low-rank adapters by peft, added to the model before its layers are joined, and folded into its weights on export."""
from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Dict, Mapping, Tuple

import torch
from torch import nn

from hybridvla_core.configuration import in_range, require
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.timm_import import vision_transformer
from hybridvla_core.training.progress import INSTALL

ADAPTER = "default"
#: Layers of every supported language model; none of these models has all of them.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "dense", "gate_proj", "up_proj", "down_proj", "fc1", "fc2")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2022) on the language model.

    Attributes:
        rank: Rank of the product.
        alpha: Numerator of the product's scale, alpha / rank.
        dropout: Share of its inputs that is dropped, 0 to 1.
        targets: Names of the layers that get an adapter.
        quantise: Whether to store the frozen weights in 4 bits (QLoRA).
    """

    rank: int
    alpha: float = 16.0
    dropout: float = 0.0
    targets: Tuple[str, ...] = TARGETS
    quantise: bool = False

    def __post_init__(self) -> None:
        in_range("lora: rank", self.rank, 1, 1024)
        in_range("lora: alpha", self.alpha, 1e-3, 1e4)
        in_range("lora: dropout", self.dropout, 0.0, 0.9)
        require(bool(self.targets), "lora: targets names no layer")


def add_adapters(llm: nn.Module, config: LoraConfig, seed: int) -> None:
    """Adds adapters to the language model's layers that the configuration names; the same seed gives the same adapters.

    Args:
        llm: The language model.
        config: Configuration of the adapters.
        seed: Seed of their weights.

    Raises:
        ConfigurationError: peft is not installed, no layer has such a name, or a name is of no supported model.
    """
    peft = _peft()
    ends = {name.rsplit(".", 1)[-1] for name, module in llm.named_modules() if isinstance(module, nn.Linear)}
    targets = [name for name in config.targets if name in ends]
    unknown = [name for name in config.targets if name not in ends and (not targets or name not in TARGETS)]
    if unknown:
        raise ConfigurationError(f"lora: targets: no layer is named {', '.join(unknown)}; there are {', '.join(sorted(ends))}")
    if config.quantise:
        _quantise(llm, config)
    torch.manual_seed(seed)
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets)
    peft.inject_adapter_in_model(settings, llm, adapter_name=ADAPTER)


def merged(llm: nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str) -> Dict[str, torch.Tensor]:
    """Adds the product of each adapter to its weight, so that the tensors become those of a model without adapters.

    Args:
        llm: The language model with its adapters.
        tensors: Gathered parameters of the whole model, by name.
        prefix: Prefix of the language model's names in `tensors`.

    Returns:
        The tensors, by the names of a model without adapters.
    """
    layers = {f"{prefix}{name}.": module for name, module in llm.named_modules() if hasattr(module, "get_delta_weight")}
    result: Dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        layer = next((layer for layer in layers if name.startswith(layer)), None)
        if layer is None:
            result[name] = tensor
            continue
        plain = name.replace(".base_layer.", ".")
        if plain.endswith(".weight"):
            down, up = (tensors[f"{layer}lora_{side}.{ADAPTER}.weight"].float() for side in "AB")
            tensor = tensor + (layers[layer].scaling[ADAPTER] * (up @ down)).to(tensor.dtype)
        result[plain] = tensor
    return result


def _quantise(llm: nn.Module, config: LoraConfig) -> None:
    """Stores the weights that get an adapter in 4 bits (Dettmers et al. 2023)."""
    try:
        import bitsandbytes as bnb
    except ImportError as error:
        raise ConfigurationError(f"lora: quantise needs the package bitsandbytes ({error}); pip install bitsandbytes, on a "
                                 "computer with a GPU") from error
    for module in list(llm.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear) and name in config.targets:
                small = bnb.nn.Linear4bit(layer.in_features, layer.out_features, bias=layer.bias is not None,
                                          compute_dtype=torch.bfloat16, quant_type="nf4")
                small.weight = bnb.nn.Params4bit(layer.weight.detach().contiguous(), requires_grad=False, quant_type="nf4")
                small.bias = layer.bias
                setattr(module, name, small)


def _peft() -> ModuleType:
    # peft imports torchvision, too; this declares what is missing with a CPU torch.
    vision_transformer()
    try:
        import peft
    except ImportError as error:
        raise ConfigurationError(f"lora needs the package peft ({error}); {INSTALL}") from error
    return peft
