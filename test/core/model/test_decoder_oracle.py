"""Our decoder against `transformers` on random weights: whole sequences, padding, and its own cache step by step."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hybridvla_core.model.config import DecoderConfig
from hybridvla_core.model.decoder import Decoder
from hybridvla_core.model.layers import KVCache
from hybridvla_core.model.timm_import import vision_transformer

pytestmark = pytest.mark.versions

SHAPES = {
    "llama": DecoderConfig("llama", 64, 3, 4, 4, 96, 120, 1e-5, 10000.0, 16),
    "llama, grouped": DecoderConfig("llama", 96, 2, 6, 2, 128, 120, 1e-6, 500000.0, 16),
    "phi": DecoderConfig("phi", 64, 3, 4, 4, 96, 120, 1e-5, 10000.0, 6),
    "phi, as Phi-2's head": DecoderConfig("phi", 160, 2, 2, 2, 96, 120, 1e-5, 10000.0, 32),
}


def oracle(config):
    vision_transformer()  # declares what torchvision lacks beside a CPU build of torch, before transformers imports it
    from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

    common = dict(hidden_size=config.hidden, intermediate_size=config.intermediate, num_hidden_layers=config.layers,
                  num_attention_heads=config.heads, num_key_value_heads=config.kv_heads, vocab_size=config.vocab_rows,
                  rope_theta=config.rope_theta, max_position_embeddings=512, tie_word_embeddings=False)
    if config.family == "llama":
        return LlamaForCausalLM(LlamaConfig(rms_norm_eps=config.norm_eps, **common)).eval()
    return PhiForCausalLM(PhiConfig(layer_norm_eps=config.norm_eps, hidden_act="gelu_new",
                                    partial_rotary_factor=config.rotary_dim / config.head_dim, **common)).eval()


@pytest.fixture(params=list(SHAPES))
def pair(request):
    torch.manual_seed(7)
    config = SHAPES[request.param]
    reference, decoder = oracle(config), Decoder(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(std=0.3) if parameter.dim() == 1 else parameter.normal_(std=0.1)
    decoder.load_state_dict({k: v for k, v in reference.state_dict().items() if "inv_freq" not in k})
    return reference, decoder


def test_parameter_names_are_those_of_transformers(pair):
    reference, decoder = pair
    assert {k for k in reference.state_dict() if "inv_freq" not in k} == set(decoder.state_dict())


@torch.no_grad()
def test_logits_without_a_cache(pair):
    reference, decoder = pair
    ids = torch.randint(0, 120, (2, 40))
    ours = decoder.logits(decoder(decoder.model.embed_tokens(ids), torch.arange(40)))
    assert torch.allclose(ours, reference(input_ids=ids).logits, atol=1e-4)


@torch.no_grad()
def test_logits_with_a_cache_step_by_step(pair):
    """Prefix, three tokens at once, then single tokens, compared with transformers' own growing cache."""
    from transformers import DynamicCache

    reference, decoder = pair
    embeddings = torch.randn(1, 30, decoder.config.hidden)
    theirs, ours = DynamicCache(), KVCache(decoder.config, 1, 33, torch.float32)
    at = 0
    for step in (20, 3, *[1] * 7):
        part = embeddings[:, at:at + step]
        slots = torch.arange(at, at + step)
        expected = reference(inputs_embeds=part, past_key_values=theirs, use_cache=True).logits
        actual = decoder.logits(decoder(part, slots, cache=ours, write_at=slots))
        assert torch.allclose(actual, expected, atol=1e-4), f"slots {at} to {at + step}"
        at += step


@torch.no_grad()
def test_left_padding_with_explicit_positions_and_mask(pair):
    reference, decoder = pair
    ids, seen = torch.randint(0, 120, (2, 12)), torch.ones(2, 12, dtype=torch.bool)
    seen[1, :5] = False
    positions = (seen.cumsum(-1) - 1).clamp(min=0)
    mask = torch.ones(12, 12, dtype=torch.bool).tril()[None, None] & seen[:, None, None]
    mask |= torch.eye(12, dtype=torch.bool)
    ours = decoder.logits(decoder(decoder.model.embed_tokens(ids), positions, mask))
    expected = reference(input_ids=ids, attention_mask=seen.long(), position_ids=positions).logits
    assert torch.allclose(ours[seen], expected[seen], atol=1e-4)


@torch.no_grad()
def test_hidden_states_are_recorded_before_every_block_and_at_the_end(pair):
    reference, decoder = pair
    ids, record = torch.randint(0, 120, (1, 9)), []
    decoder(decoder.model.embed_tokens(ids), torch.arange(9), record=record)
    expected = reference(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(record) == len(expected)
    for ours, theirs in zip(record, expected):
        assert torch.allclose(ours, theirs, atol=1e-4)


@torch.no_grad()
def test_rotary_angles_stay_float32_under_bfloat16():
    """Distant positions keep their angle: frequencies rounded to bfloat16 would turn them by more than a radian."""
    config = replace(SHAPES["llama"], layers=1)
    torch.manual_seed(0)
    decoder = Decoder(config).eval()
    half = Decoder(config).eval()
    half.load_state_dict(decoder.state_dict())
    half = half.to(torch.bfloat16)
    x = torch.randn(1, 4, 64)
    far = torch.arange(4) * 97 + 1500
    exact, rounded = decoder(x, far), half(x.bfloat16(), far).float()
    assert (exact - rounded).abs().max() < 0.1
