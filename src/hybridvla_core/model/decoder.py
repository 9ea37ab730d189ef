"""One decoder for inference and training: Llama and Phi blocks with Hugging Face's parameter names.

Embeddings go in, with explicit positions and an explicit mask; keys and values go to a preallocated cache at explicit
indices, or nowhere. `transformers` is the oracle in the tests.
"""
from __future__ import annotations

from typing import Dict, List, Optional

import torch
import torch.nn.functional as F
from torch import nn

from hybridvla_core.model.config import DecoderConfig


class KVCache:
    """Keys and values of every layer, preallocated: (layers, batch, kv_heads, length, head_dim) each."""

    def __init__(self, config: DecoderConfig, batch: int, length: int, dtype: torch.dtype, device="cpu") -> None:
        shape = (config.layers, batch, config.kv_heads, length, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def length(self) -> int:
        return self.keys.shape[3]


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32 with a gain."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Rotary:
    """Cosines and sines of rotary position embeddings, always float32, for one set of positions."""

    def __init__(self, config: DecoderConfig, positions: torch.Tensor, dtype: torch.dtype) -> None:
        index = torch.arange(0, config.rotary_dim, 2, dtype=torch.float32, device=positions.device)
        frequency = config.rope_theta ** (-index / config.rotary_dim)
        angle = positions.float()[..., None] * frequency
        angle = torch.cat([angle, angle], dim=-1)
        if angle.dim() == 3:
            angle = angle[:, None]  # a row for each sample, shared by the heads
        self.cos, self.sin, self.width = angle.cos().to(dtype), angle.sin().to(dtype), config.rotary_dim

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Rotate the first `rotary_dim` channels of (B, heads, S, head_dim)."""
        turned, rest = (x, None) if self.width == x.shape[-1] else (x[..., :self.width], x[..., self.width:])
        half = self.width // 2
        swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
        turned = turned * self.cos + swapped * self.sin
        return turned if rest is None else torch.cat([turned, rest], dim=-1)


class Attention(nn.Module):
    """Multi-head attention with grouped keys and values. `output` names the last projection as Hugging Face does."""

    def __init__(self, config: DecoderConfig, bias: bool, output: str) -> None:
        super().__init__()
        self.config, self.output = config, output
        width = config.heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, width, bias=bias)
        self.k_proj = nn.Linear(config.hidden, config.kv_heads * config.head_dim, bias=bias)
        self.v_proj = nn.Linear(config.hidden, config.kv_heads * config.head_dim, bias=bias)
        self.add_module(output, nn.Linear(width, config.hidden, bias=bias))

    def forward(self, x, rotary, mask, cache, layer, write_at, probe):
        batch, length, _ = x.shape
        heads, kv_heads, dim = self.config.heads, self.config.kv_heads, self.config.head_dim
        query = rotary(self.q_proj(x).view(batch, length, heads, dim).transpose(1, 2))
        key = rotary(self.k_proj(x).view(batch, length, kv_heads, dim).transpose(1, 2))
        value = self.v_proj(x).view(batch, length, kv_heads, dim).transpose(1, 2)
        if cache is not None:
            cache.keys[layer, :, :, write_at] = key
            cache.values[layer, :, :, write_at] = value
            key, value = cache.keys[layer, :, :, :mask.shape[-1]], cache.values[layer, :, :, :mask.shape[-1]]
        if kv_heads != heads:
            key = key.repeat_interleave(heads // kv_heads, dim=1)
            value = value.repeat_interleave(heads // kv_heads, dim=1)
        scores = query @ key.transpose(-1, -2) * dim ** -0.5 + mask.to(query.dtype)
        if probe is not None and layer in probe:
            probe[layer] = scores
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, length, heads * dim)
        return getattr(self, self.output)(mixed)


class GatedMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.down_proj = nn.Linear(config.intermediate, config.hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class PlainMlp(nn.Module):
    """Linear, GELU(tanh), Linear, with biases."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, config.intermediate)
        self.fc2 = nn.Linear(config.intermediate, config.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class LlamaBlock(nn.Module):
    """Attention, then MLP, each behind its own norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.self_attn = Attention(config, bias=False, output="o_proj")
        self.post_attention_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.mlp = GatedMlp(config)

    def forward(self, x, *attention):
        x = x + self.self_attn(self.input_layernorm(x), *attention)
        return x + self.mlp(self.post_attention_layernorm(x))


class PhiBlock(nn.Module):
    """Attention and MLP side by side behind one norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.self_attn = Attention(config, bias=True, output="dense")
        self.mlp = PlainMlp(config)

    def forward(self, x, *attention):
        normed = self.input_layernorm(x)
        return x + self.self_attn(normed, *attention) + self.mlp(normed)


class DecoderStack(nn.Module):
    """Token embeddings, blocks and final norm under Hugging Face's `model.` prefix."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_rows, config.hidden)
        block = LlamaBlock if config.family == "llama" else PhiBlock
        self.layers = nn.ModuleList([block(config) for _ in range(config.layers)])
        if config.family == "llama":
            self.norm = RMSNorm(config.hidden, config.norm_eps)
        else:
            self.final_layernorm = nn.LayerNorm(config.hidden, eps=config.norm_eps)


class Decoder(nn.Module):
    """The language model: `forward` over embeddings, `logits` over the rows asked for."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = DecoderStack(config)
        self.lm_head = nn.Linear(config.hidden, config.vocab_rows, bias=config.family == "phi")

    def forward(self, embeddings: torch.Tensor, positions: torch.Tensor, mask: Optional[torch.Tensor] = None,
                cache: Optional[KVCache] = None, write_at: Optional[torch.Tensor] = None,
                attention_probe: Optional[Dict[int, torch.Tensor]] = None,
                record: Optional[List[torch.Tensor]] = None) -> torch.Tensor:
        """One pass.

        embeddings: (B, S, H). positions: (S,) or (B, S). mask: True where a query may attend, broadcastable to
        (B, heads, S, T); None is causal. cache with write_at (S,): where the new keys go; T counts the cache's slots
        that the mask covers (without a mask: up to the last one written). attention_probe: {layer: None} is filled
        with attention logits (B, heads, S, T). record: receives the hidden states before each block and at the end.

        Returns (B, S, H) after the final norm.
        """
        length = embeddings.shape[1]
        if cache is not None and write_at is None:
            raise ValueError("a cache needs write_at, the slots of the new keys")
        if mask is None:
            rows = torch.arange(length, device=embeddings.device) if write_at is None else write_at
            total = length if cache is None else int(rows[-1]) + 1
            mask = torch.arange(total, device=embeddings.device)[None, :] <= rows[:, None]
        bias = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device).masked_fill_(~mask, float("-inf"))
        rotary = Rotary(self.config, positions, embeddings.dtype)
        x = embeddings
        for index, block in enumerate(self.model.layers):
            if record is not None:
                record.append(x)
            x = block(x, rotary, bias, cache, index, write_at, attention_probe)
        norm = self.model.norm if self.config.family == "llama" else self.model.final_layernorm
        x = norm(x)
        if record is not None:
            record.append(x)
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Vocabulary logits (..., vocab_rows) of the given hidden states (..., H)."""
        return self.lm_head(hidden)
