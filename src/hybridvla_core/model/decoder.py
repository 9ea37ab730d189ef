"""One decoder for inference and training: Llama and Phi blocks with Hugging Face's parameter names.

It takes embeddings with explicit positions and an explicit mask; keys and values go to a preallocated cache at explicit
indices, or nowhere. `transformers` is the reference in the tests.

`Decoder.fuse` joins each layer's query, key and value matrices, and gate and up, into one: fewer and larger products for
inference. The parameters keep their names and become views of the joined matrix, so nothing is held twice.
"""
from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Union

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from hybridvla_core.model.compiled import CompiledBlocks
from hybridvla_core.model.config import DecoderConfig
from hybridvla_core.model.few_rows import linear, pack, unpack
from hybridvla_core.model.joined import Joinable
from hybridvla_core.model.layers import KVCache, LastRows, RMSNorm, Rotary, causal_bias, mask_bias


class Probe(Dict[int, Optional[torch.Tensor]]):
    """Layer -> its attention logits (B, heads, S, T); None before a pass. Blocks fill it in place; it is no plain dict, because
    FSDP would give them a copy of one."""

    @classmethod
    def of(cls, layers: Iterable[int]) -> Probe:
        """Returns a probe of these layers."""
        return cls((layer, None) for layer in layers)


class Attention(Joinable):
    """Multi-head attention with grouped keys and values. `output` is Hugging Face's name of the last projection."""

    joined = ("q_proj", "k_proj", "v_proj")

    def __init__(self, config: DecoderConfig, bias: bool, output: str) -> None:
        super().__init__()
        self.config, self.output = config, output
        width = config.heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, width, bias=bias)
        self.k_proj = nn.Linear(config.hidden, config.kv_heads * config.head_dim, bias=bias)
        self.v_proj = nn.Linear(config.hidden, config.kv_heads * config.head_dim, bias=bias)
        self.add_module(output, nn.Linear(width, config.hidden, bias=bias))

    def forward(self, x: torch.Tensor, rotary: Rotary, bias: Optional[torch.Tensor], cache: Optional[KVCache], layer: int,
                write_at: Union[torch.Tensor, slice, None], probe: Optional[Probe], last: Optional[LastRows] = None
                ) -> torch.Tensor:
        batch, length, _ = x.shape
        heads, kv_heads, dim = self.config.heads, self.config.kv_heads, self.config.head_dim
        split = self.project(x).view(batch, length, heads + 2 * kv_heads, dim).transpose(1, 2)
        turned, value = rotary(split[:, :heads + kv_heads]), split[:, heads + kv_heads:]
        query, key = turned[:, :heads], turned[:, heads:]
        if cache is not None:
            cache.keys[layer, :, :, write_at] = key
            cache.values[layer, :, :, write_at] = value
            if bias is not None:
                reach = bias.shape[-1]
                key, value = cache.keys[layer, :, :, :reach], cache.values[layer, :, :, :reach]
        if last is not None:
            query, bias, length = query[:, :, -last.count:], last.bias, last.count
        if kv_heads != heads:
            key = key.repeat_interleave(heads // kv_heads, dim=1)
            value = value.repeat_interleave(heads // kv_heads, dim=1)
        if probe is not None and layer in probe or torch.is_grad_enabled() and x.device.type == "cpu":
            mixed = self._explicit(query, key, value, bias, layer, probe)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=bias is None)
        return linear(getattr(self, self.output), mixed.transpose(1, 2).reshape(batch, length, heads * dim))

    def _explicit(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: Optional[torch.Tensor], layer: int,
                  probe: Optional[Probe]) -> torch.Tensor:
        """Computes attention with explicit logits; at small sizes on a CPU this is also faster to train."""
        scores = query @ key.transpose(-1, -2) * self.config.head_dim ** -0.5
        scores = scores + (causal_bias(query.shape[2], query) if bias is None else bias)
        if probe is not None and layer in probe:
            probe[layer] = scores
        return torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value


class GatedMlp(Joinable):
    """SwiGLU."""

    joined = ("gate_proj", "up_proj")

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.down_proj = nn.Linear(config.intermediate, config.hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.project(x).chunk(2, dim=-1)
        return linear(self.down_proj, F.silu(gate) * up)


class PlainMlp(nn.Module):
    """Linear, GELU(tanh), Linear, with biases."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, config.intermediate)
        self.fc2 = nn.Linear(config.intermediate, config.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(self.fc2, F.gelu(linear(self.fc1, x), approximate="tanh"))


class LlamaBlock(nn.Module):
    """Attention, then MLP, each after its own norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.self_attn = Attention(config, bias=False, output="o_proj")
        self.post_attention_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.mlp = GatedMlp(config)

    def forward(self, x: torch.Tensor, *attention: Any, last: Optional[LastRows] = None) -> torch.Tensor:
        mixed = self.self_attn(self.input_layernorm(x), *attention, last=last)
        x = mixed + (x if last is None else x[:, -last.count:])
        return x + self.mlp(self.post_attention_layernorm(x))


class PhiBlock(nn.Module):
    """Attention and MLP side by side after one norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.self_attn = Attention(config, bias=True, output="dense")
        self.mlp = PlainMlp(config)

    def forward(self, x: torch.Tensor, *attention: Any, last: Optional[LastRows] = None) -> torch.Tensor:
        normed = self.input_layernorm(x)
        mixed = self.self_attn(normed, *attention, last=last)
        if last is not None:
            x, normed = x[:, -last.count:], normed[:, -last.count:]
        return x + mixed + self.mlp(normed)


class DecoderStack(nn.Module):
    """Token embeddings, blocks and final norm, under Hugging Face's prefix `model.`."""

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
    """The language model: `forward` runs over embeddings, `logits` over the rows asked for."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        #: In training: whether a block's activations are recomputed in the backward pass instead of kept.
        self.checkpointing = False
        self.model = DecoderStack(config)
        self.compiled: Optional[CompiledBlocks] = None
        self.lm_head = nn.Linear(config.hidden, config.vocab_rows, bias=config.family == "phi")

    def forward(self, embeddings: torch.Tensor, positions: torch.Tensor, mask: Optional[torch.Tensor] = None,
                cache: Optional[KVCache] = None, write_at: Optional[torch.Tensor] = None,
                attention_probe: Optional[Probe] = None,
                record: Optional[List[torch.Tensor]] = None) -> torch.Tensor:
        """Runs one pass.

        Args:
            embeddings: (B, S, H).
            positions: (S,) or (B, S).
            mask: True where a query may attend, broadcastable to (B, heads, S, T); None is causal.
            cache: Keys and values of earlier rows. T is the number of its slots that the mask covers (without a mask: up to the
                last one written).
            write_at: (S,) slots of the new keys.
            attention_probe: {layer: None}; filled with attention logits (B, heads, S, T).
            record: Receives the hidden states before each block and at the end.

        Returns:
            (B, S, H) after the final norm.

        Raises:
            ValueError: There is a cache but no `write_at`.
        """
        length = embeddings.shape[1]
        if cache is not None and write_at is None:
            raise ValueError("a cache needs write_at, the slots of the new keys")
        if mask is None and cache is not None and write_at is not None:
            total = int(write_at[-1]) + 1
            mask = torch.arange(total, device=embeddings.device)[None, :] <= write_at[:, None]
        bias = causal_bias(length, embeddings) if mask is None else mask_bias(mask, embeddings.dtype)
        rotary = Rotary(self.config, positions, embeddings.dtype)
        return self.run(embeddings, rotary, bias, cache, write_at, attention_probe, record)

    def run(self, embeddings: torch.Tensor, rotary: Rotary, bias: Optional[torch.Tensor],
            cache: Optional[KVCache] = None, write_at: Union[torch.Tensor, slice, None] = None,
            attention_probe: Optional[Probe] = None,
            record: Optional[List[torch.Tensor]] = None, last: Optional[LastRows] = None) -> torch.Tensor:
        """Runs the same pass with everything prepared. It neither allocates masks nor reads a number from the device.

        Args:
            embeddings: (B, S, H).
            rotary: Rotary embeddings of these rows' positions.
            bias: (.., S, T) in the embeddings' type, added to the attention logits over the cache's first T slots (without a
                cache: over the rows); None: causal over these rows alone.
            cache: Keys and values of earlier rows.
            write_at: Slots of the new keys.
            attention_probe: As in `forward`.
            record: As in `forward`.
            last: The wanted rows; None: all.

        Returns:
            Those rows, (B, .., H), after the final norm.
        """
        x, end = embeddings, len(self.model.layers) - 1
        again = self.checkpointing and torch.is_grad_enabled()
        for index, block in enumerate(self.model.layers):
            if record is not None:
                record.append(x)
            arguments, wanted = (x, rotary, bias, cache, index, write_at, attention_probe), last if index == end else None
            if self.compiled is not None and isinstance(write_at, slice) and cache is not None and not torch.is_grad_enabled():
                x = self.compiled.decoder(block, x, rotary, bias, cache, index, write_at, wanted)
                continue
            x = checkpoint(block, *arguments, last=wanted, use_reentrant=False) if again else block(*arguments, last=wanted)
        norm = self.model.norm if self.config.family == "llama" else self.model.final_layernorm
        x = norm(x)
        if record is not None:
            record.append(x)
        return x

    def fuse(self) -> Decoder:
        """Joins the projections of every layer; call it once the weights are loaded and on their final device."""
        for module in self.modules():
            if isinstance(module, Joinable):
                module.fuse()
        return self

    def pack(self) -> bool:
        """Keeps a copy of the matrices in the order in which a CPU reads them; see `few_rows.pack`.

        For weights that no longer change: moving or loading them drops the copies.

        Returns:
            Whether it did.
        """
        return pack(self._products())

    def _products(self) -> List[nn.Linear]:
        """Returns the linear layers that inference multiplies by: joined layers in place of their parts."""
        found: List[nn.Linear] = []
        parts: Set[int] = set()
        for module in self.modules():
            if isinstance(module, Joinable) and module.__dict__.get("whole") is not None:
                whole = module.whole
                assert isinstance(whole, nn.Linear), "joined layers are one layer"
                found.append(whole)
                parts.update(id(getattr(module, name)) for name in module.joined)
        for module in self.modules():
            if type(module) is nn.Linear and id(module) not in parts:
                found.append(module)
        return found

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Decoder:
        unpack(self._products())
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call,no-any-return,unused-ignore]

    def _load_from_state_dict(self, *arguments: object, **more: object) -> None:
        unpack(self._products())
        super()._load_from_state_dict(*arguments, **more)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns vocabulary logits (..., vocab_rows) of the given hidden states (..., H)."""
        return linear(self.lm_head, hidden)
