"""HybridVLA: towers, projector, decoder, and the embedders for denoising and decoding in one sequence."""
from __future__ import annotations

import math
from typing import Dict, Optional

import torch
from torch import nn

from hybridvla_core.model.compiled import CompiledBlocks, choose_compiled
from hybridvla_core.model.config import ModelConfig
from hybridvla_core.model.decoder import Decoder
from hybridvla_core.model.embedders import FinalLayer, Projector, TimestepEmbedder, VectorEmbedder
from hybridvla_core.model.shrunk.choose import shrink
from hybridvla_core.model.vision import SecondStream, VisionBackbone


class HybridVLA(nn.Module):
    """The assembled model (paper, section 3.1 and figure 2). Its parts are called separately: the policy uses them on a cached
    prefix, training in one long sequence."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.decoder.hidden
        self.vision_backbone = VisionBackbone(config.towers)
        self.tower_norm = nn.LayerNorm(config.vision_width) if config.tower_norm else nn.Identity()
        self.projector = Projector(config.vision_width, config.projector)
        self.projector_norm = nn.LayerNorm(hidden) if config.projector_norm else nn.Identity()
        self.llm = Decoder(config.decoder)
        self.x_embedder = VectorEmbedder(config.action_dim, hidden)
        self.t_embedder = TimestepEmbedder(hidden)
        self.proprio_embedder = VectorEmbedder(config.action_dim, hidden)
        self.final_layer = FinalLayer(hidden, config.action_dim, config.final_norm)

    def vision_features(self, pixels: Dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns features (B, V * P, Dv), views in order, of pixels: tower kind -> (B, V, 3, S, S) normalised."""
        batch = next(iter(pixels.values())).shape[0]
        flat = {kind: views.flatten(0, 1) for kind, views in pixels.items()}
        features = self.vision_backbone(flat)
        return self.tower_norm(features).reshape(batch, -1, features.shape[-1])

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Projects features (B, N, Dv) to embeddings (B, N, H)."""
        return self.projector_norm(self.projector(features))

    def encode_images(self, pixels: Dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns image embeddings (B, V * P, H)."""
        return self.project(self.vision_features(pixels))

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        return self.llm.model.embed_tokens(ids)

    def embed_action(self, x: torch.Tensor) -> torch.Tensor:
        """Embeds noisy actions (..., K, A) as (..., K, H)."""
        return self.x_embedder(x.to(self.x_embedder.mlp.fc1.weight.dtype))

    def embed_state(self, state: torch.Tensor) -> torch.Tensor:
        """Embeds the normalised robot state (B, A) as (B, H)."""
        return self.proprio_embedder(state.to(self.proprio_embedder.mlp.fc1.weight.dtype))

    def embed_timestep(self, timestep: torch.Tensor) -> torch.Tensor:
        """Embeds original timesteps 0 .. 99, (N,), as (N, H)."""
        return self.t_embedder(timestep)

    def noise_prediction(self, hidden: torch.Tensor) -> torch.Tensor:
        """Predicts noise (..., K, A) from the hidden states at the x positions (..., K, H)."""
        return self.final_layer(hidden)

    def for_inference(self, precision: str = "full", compile: str = "off") -> HybridVLA:
        """Prepares loaded weights in place: fewer, larger products, and on a GPU the towers on two streams.

        Args:
            precision: Precision of the decoder's blocks (`model/shrunk`).
            compile: Whether blocks go through torch.compile.

        Returns:
            The same model.
        """
        self.llm.fuse()
        if precision == "full":
            self.llm.pack()
        else:
            shrink(self.llm, precision)
        self.compile_blocks(choose_compiled(compile))
        if self.llm.lm_head.weight.device.type == "cuda":
            self.vision_backbone.beside = SecondStream()
        return self

    def compile_blocks(self, compiled: Optional[CompiledBlocks]) -> None:
        """Runs decoder and towers through compiled blocks; None: as written."""
        self.llm.compiled = self.vision_backbone.compiled = compiled

    @torch.no_grad()
    def initialise(self, std: float = 0.04) -> HybridVLA:
        """Draws random weights for training from scratch; projections into the residual stream start smaller in deeper models."""
        for module in self.llm.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=std)
        scale = 0.02 / math.sqrt(2 * self.config.decoder.layers)
        for name, parameter in self.llm.named_parameters():
            if name.endswith(("o_proj.weight", "dense.weight", "down_proj.weight", "fc2.weight")):
                nn.init.normal_(parameter, std=scale)
        return self
