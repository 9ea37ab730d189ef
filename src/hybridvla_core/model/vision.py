"""The vision towers: timm vision transformers with the released names, cut off after the block that is used."""
from __future__ import annotations

from functools import partial
from typing import Callable, Dict, List, Optional, Tuple

import torch
from torch import nn

from hybridvla_core.model.compiled import CompiledBlocks
from hybridvla_core.model.config import TowerConfig
from hybridvla_core.model.timm_import import vision_transformer

#: Module name of each kind in a checkpoint with two towers; a single CLIP tower is called `featurizer`.
MODULE_NAMES = {"dino": "dino_featurizer", "siglip": "siglip_featurizer", "clip": "featurizer"}
PREFIX_TOKENS = {"dino": 5, "siglip": 0, "clip": 1}


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), CLIP's activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


def build_tower(config: TowerConfig) -> nn.Module:
    """Builds a timm VisionTransformer with only the blocks that are run (depth - 1), without final norm and pooling."""
    module = vision_transformer()
    common = dict(img_size=config.image_size, patch_size=config.patch_size, embed_dim=config.width,
                  depth=config.depth - 1, num_heads=config.heads, mlp_ratio=config.mlp_width / config.width,
                  num_classes=0, global_pool="")
    eps6, eps5 = partial(nn.LayerNorm, eps=1e-6), partial(nn.LayerNorm, eps=1e-5)
    if config.kind == "dino":
        # LayerScale of DINOv2 starts at 1e-5 for very deep towers; starting at 1, a shallow one learns from scratch.
        tower = module.VisionTransformer(class_token=True, reg_tokens=4, no_embed_class=True, init_values=1.0,
                                         norm_layer=eps6, **common)
    elif config.kind == "siglip":
        tower = module.VisionTransformer(class_token=False, norm_layer=eps6, **common)
    else:
        tower = module.VisionTransformer(class_token=True, pre_norm=True, norm_layer=eps5, act_layer=QuickGELU, **common)
    tower.norm = nn.Identity()
    return tower


class SecondStream:
    """A GPU stream beside the current one. Inside a graph, fork and join become edges.

    Work on it starts after everything before the fork, and everything after the join waits for it. So the memory of one stream
    is never reused while the other still reads it, as long as the caller holds its tensors until the join.
    """

    def __init__(self) -> None:
        self._stream: Optional[torch.cuda.Stream] = None

    def fork(self, call: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Runs a call in parallel with what follows; its result may be read after `join`."""
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            return call()

    def join(self) -> None:
        """Makes the current stream wait for the call."""
        assert self._stream is not None, "a fork comes first"
        torch.cuda.current_stream().wait_stream(self._stream)


class VisionBackbone(nn.Module):
    """All towers over the same views; features are concatenated on channels in the configuration's order."""

    def __init__(self, towers: Tuple[TowerConfig, ...]) -> None:
        super().__init__()
        self.kinds = tuple(tower.kind for tower in towers)
        #: Compiled blocks, off unless asked for; and a second GPU stream for the second tower.
        self.compiled: Optional[CompiledBlocks] = None
        self.beside: Optional[SecondStream] = None
        for config in towers:
            self.add_module(MODULE_NAMES[config.kind], build_tower(config))

    def forward(self, pixels: Dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns features (N, P, sum of widths) of pixels: tower kind -> (N, 3, S, S) normalised."""
        if len(self.kinds) == 1:
            return self._features(self.kinds[0], pixels)
        if self.beside is None or len(self.kinds) != 2:
            return torch.cat([self._features(kind, pixels) for kind in self.kinds], dim=-1)
        # The towers are independent of each other.
        second = self.beside.fork(lambda: self._features(self.kinds[1], pixels))
        first = self._features(self.kinds[0], pixels)
        self.beside.join()
        return torch.cat([first, second], dim=-1)

    def _features(self, kind: str, pixels: Dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns one tower's features (N, P, width)."""
        tower = getattr(self, MODULE_NAMES[kind])
        x: torch.Tensor = tower.norm_pre(tower._pos_embed(tower.patch_embed(pixels[kind])))
        for block in tower.blocks:
            x = block(x) if self.compiled is None or torch.is_grad_enabled() else self.compiled.tower(block, x)
        return x[:, PREFIX_TOKENS[kind]:]

    def blocks(self) -> List[nn.Module]:
        """Returns the blocks of all towers."""
        return [block for kind in self.kinds for block in getattr(self, MODULE_NAMES[kind]).blocks]

    def use_fused_attention(self, fused: bool) -> None:
        """Switches timm's fused attention on or off; plain matrix products are faster at tiny sizes on a CPU."""
        for kind in self.kinds:
            for block in getattr(self, MODULE_NAMES[kind]).blocks:
                block.attn.fused_attn = fused
