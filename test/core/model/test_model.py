"""Decoder against transformers, cached against uncached passes, parity with the recorded implementation."""
from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from goldens import GOLDEN, needs_golden

from hybridvla_core.errors import ConfigurationError, HybridVLAError
from hybridvla_core.evaluation.parity.run import check_folder
from hybridvla_core.model.config import DecoderConfig
from hybridvla_core.model.decoder import Decoder
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.layers import KVCache
from hybridvla_core.model.presets import preset, preset_names
from hybridvla_core.model.timm_import import vision_transformer
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.policy.inference.noise import draw_noise
from hybridvla_core.policy.inference.plain import PlainDecoding

pytestmark = pytest.mark.versions



def small(family):
    rotary = 16 if family == "llama" else 6
    return DecoderConfig(family, 64, 3, 4, 4 if family == "phi" else 2, 96, 120, 1e-5, 10000.0, rotary)


def oracle(config):
    vision_transformer()  # declares what torchvision lacks beside a CPU build of torch, before transformers imports it
    from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM

    common = dict(hidden_size=config.hidden, intermediate_size=config.intermediate, num_hidden_layers=config.layers,
                  num_attention_heads=config.heads, num_key_value_heads=config.kv_heads, vocab_size=config.vocab_rows,
                  rope_theta=config.rope_theta)
    if config.family == "llama":
        return LlamaForCausalLM(LlamaConfig(rms_norm_eps=config.norm_eps, **common)).eval()
    return PhiForCausalLM(PhiConfig(layer_norm_eps=config.norm_eps, hidden_act="gelu_new",
                                    partial_rotary_factor=config.rotary_dim / config.head_dim, **common)).eval()


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_the_decoder_equals_transformers(family):
    torch.manual_seed(0)
    reference, decoder = oracle(small(family)), Decoder(small(family)).eval()
    decoder.load_state_dict({k: v for k, v in reference.state_dict().items() if "inv_freq" not in k})
    ids = torch.randint(0, 120, (2, 9))
    with torch.no_grad():
        expected = reference(input_ids=ids).logits
        hidden = decoder(decoder.model.embed_tokens(ids), torch.arange(9))
        assert torch.allclose(decoder.logits(hidden), expected, atol=2e-5)


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_a_cached_pass_equals_a_whole_one_and_slots_are_overwritten(family):
    torch.manual_seed(1)
    config = small(family)
    decoder = Decoder(config).eval()
    x, wrong = torch.randn(1, 8, 64), torch.randn(1, 3, 64)
    with torch.no_grad():
        whole = decoder(x, torch.arange(8))
        cache = KVCache(config, 1, 10, torch.float32)
        decoder(x[:, :5], torch.arange(5), cache=cache, write_at=torch.arange(5))
        decoder(wrong, torch.arange(5, 8), cache=cache, write_at=torch.arange(5, 8))
        again = decoder(x[:, 5:], torch.arange(5, 8), cache=cache, write_at=torch.arange(5, 8))
    assert torch.allclose(again, whole[:, 5:], atol=1e-5)


def test_a_cache_without_slots_is_refused():
    decoder = Decoder(small("llama"))
    with pytest.raises(ValueError, match="write_at"):
        decoder(torch.zeros(1, 2, 64), torch.arange(2), cache=KVCache(small("llama"), 1, 4, torch.float32))


def test_presets_are_consistent_and_others_refused():
    for name in preset_names():
        assert preset(name, views=3).views == 3
    with pytest.raises(ConfigurationError, match="no preset"):
        preset("huge")
    with pytest.raises(ConfigurationError, match="action_dim"):
        preset("tiny", action_dim=8)


def test_action_tokens_round_trip_at_bin_centres():
    tokens = ActionTokens(preset("tiny"))
    ids = torch.arange(tokens.first, tokens.end - 1) + 1
    assert torch.equal(tokens.encode(tokens.decode(ids)), ids)
    assert tokens.decode(torch.tensor([0, 831])).tolist() == [pytest.approx(1 - 1 / 255), pytest.approx(-1 + 1 / 255)]


@pytest.mark.parametrize("chunk, views, dof", [(1, 1, 7), (4, 2, 14)])
def test_both_paths_run_for_chunks_views_and_two_arms(chunk, views, dof):
    torch.manual_seed(0)
    config = preset("tiny", chunk=chunk, views=views, action_dim=dof)
    engine = PlainDecoding(HybridVLA(config).initialise().eval())
    pixels = {tower.kind: torch.rand(2, views, 3, 128, 128) for tower in config.towers}
    with torch.inference_mode():
        prefix = engine.prefix(engine.encode(pixels), torch.randint(3, 40, (2, 9)), torch.zeros(2, dof))
        sample = engine.denoise(prefix, torch.randn(2, chunk, dof), 4)
        decoded = engine.decode(prefix, sample, torch.zeros(2, dtype=torch.long), window=2)
    assert sample.shape == (2, chunk, dof) and decoded.ids.shape == (2, dof)
    assert bool((decoded.confidence <= 1.0 + 1e-5).all())


def test_noise_depends_on_seed_and_stamp_only():
    first, again, other = (draw_noise(seed, stamp, 1, 7)[0] for seed, stamp in ((1, 5), (1, 5), (1, 6)))
    assert torch.equal(first, again) and not torch.equal(first, other)


@needs_golden
@pytest.mark.parametrize("variant", ["llama_7dof", "llama_14dof_gqa", "phi_7dof"])
def test_parity_with_the_recorded_implementation(variant):
    table = check_folder(GOLDEN / variant)
    assert table.passed, table.text()
    assert len(table.rows) >= 60


@pytest.mark.long
@needs_golden
def test_altered_expectations_are_noticed(tmp_path):
    shutil.copytree(GOLDEN / "llama_7dof", tmp_path / "set" / "llama_7dof")
    shutil.copytree(GOLDEN / "common", tmp_path / "set" / "common")
    path = tmp_path / "set" / "llama_7dof" / "case1.npz"
    arrays = dict(np.load(path))
    arrays["diff/eps"] = arrays["diff/eps"] + 1e-3
    arrays["something/new"] = np.zeros(3)
    np.savez(path, **arrays)
    table = check_folder(tmp_path / "set" / "llama_7dof")
    assert not table.rows["DDIM eps"].passed
    assert table.uncompared == ["case1.npz: something/new", "case1.npz: something/new is only in the archive"]
    assert not table.passed


def test_parity_of_a_folder_that_is_none(tmp_path):
    with pytest.raises(HybridVLAError, match="missing"):
        check_folder(tmp_path)


def test_a_wrong_final_norm_would_be_noticed():
    torch.manual_seed(0)
    config = preset("tiny")
    model = HybridVLA(config).initialise()
    other = HybridVLA(replace(config, final_norm="mean_square"))
    other.load_state_dict(model.state_dict())
    hidden = torch.randn(1, 1, 256) + 1.0
    assert not torch.allclose(model.noise_prediction(hidden), other.noise_prediction(hidden), atol=1e-3)
