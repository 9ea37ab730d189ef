"""Weights in fewer bits: close to the full ones, with torch's operators if it has them, and one sentence if it has not."""
from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from small_policy import observation, write
from torch import nn

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.presets import dino, llama, preset, siglip
from hybridvla_core.model.shrunk.choose import EMULATED, PRECISIONS, check_dtype, check_precision, size_of
from hybridvla_core.model.shrunk.layers import Fp8Linear, Int4Linear, Int8Linear, shrunk
from hybridvla_core.paths import ROOT
from hybridvla_core.policy import config as policy_config
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.policy.predictor import Policy

#: Precision -> largest share of the output's size that rounding may change, and bits per weight including its scales.
FORMS = {"int8": (0.02, 8.3), "int4": (0.2, 5.1), EMULATED: (0.1, 8.6)}


def a_layer(dtype=torch.float32, bias=True):
    torch.manual_seed(0)
    return nn.Linear(128, 96, bias=bias).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", FORMS)
@torch.inference_mode()
def test_a_shrunk_layer_is_near_the_full_one_in_few_bits(precision, dtype):
    layer, (near, bits) = a_layer(dtype), FORMS[precision]
    small = shrunk(layer, precision)
    for rows in (1, 3, 40):
        x = torch.randn(2, rows, 128).to(dtype)
        full, found = layer(x).float(), small(x)
        assert found.dtype == dtype and found.shape == full.shape
        apart = (found.float() - full).norm() / full.norm()
        assert 1e-4 < apart < near
    assert small.bytes * 8 / small.numbers < bits
    with pytest.raises(ConfigurationError, match="stay on the device"):
        small.to(torch.float32)


@torch.inference_mode()
def test_the_operators_of_int8_and_int4_give_the_written_form(monkeypatch):
    rows = torch.randn(5, 128).bfloat16()
    eight = Int8Linear(a_layer(torch.bfloat16))
    written = eight._written(rows).float()
    if eight._operator:
        assert torch.allclose(eight.product(rows).float(), written, atol=0.02)
    # The CPU's operators stand in for the GPU's, which have the same inputs and outputs.
    monkeypatch.setattr(Int4Linear, "operators", {"cpu": ("_convert_weight_to_int4pack_for_cpu", "_weight_int4pack_mm_for_cpu")})
    four, plain = Int4Linear(a_layer(torch.bfloat16)), None
    monkeypatch.setattr(Int4Linear, "operators", {})
    plain = Int4Linear(a_layer(torch.bfloat16))
    assert plain._multiply is None
    if hasattr(torch, "_weight_int4pack_mm_for_cpu"):
        assert four._multiply is not None
    assert torch.allclose(four(rows).float(), plain(rows).float(), atol=0.03)


def no_kernel(*_):
    raise RuntimeError("no kernel")


@pytest.mark.parametrize("broken", [no_kernel, lambda rows, *_: rows[:, :96] * 9])
@torch.inference_mode()
def test_an_operator_that_fails_or_gives_something_else_is_not_used(monkeypatch, broken):
    monkeypatch.setattr(torch, "_pack_of_test", lambda numbers, tiles: numbers, raising=False)
    monkeypatch.setattr(torch, "_multiply_of_test", broken, raising=False)
    monkeypatch.setattr(Int4Linear, "operators", {"cpu": ("_pack_of_test", "_multiply_of_test")})
    rows, layer = torch.randn(5, 128).bfloat16(), a_layer(torch.bfloat16)
    four = Int4Linear(layer)
    assert four._multiply is None and (four(rows) - layer(rows)).norm() < 0.2 * layer(rows).norm()


def multiplies_fp8(form):
    """Return whether torch itself multiplies 8-bit floats here, whatever our layer does."""
    ones = torch.ones(16, 16).to(torch.float8_e4m3fn)
    scales = (torch.ones(16, 1), torch.ones(1, 16)) if form == "rows" else (torch.ones(()), torch.ones(()))
    try:
        torch._scaled_mm(ones, ones.t(), scale_a=scales[0], scale_b=scales[1], out_dtype=torch.bfloat16)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return True


@pytest.mark.parametrize("form", ["rows", "whole"])
@torch.inference_mode()
def test_fp8_by_torch_s_operator_is_the_emulated_one(form):
    small = Fp8Linear(a_layer(torch.bfloat16), emulated=True)
    rows = torch.randn(16, 128).bfloat16() * torch.logspace(-3, 3, 16)[:, None].bfloat16()
    expected = small(rows).float()
    if not multiplies_fp8(form):
        pytest.skip("torch multiplies no 8-bit floats on this processor")
    small.form = form
    found = small(rows).float()
    assert torch.allclose(found, expected, rtol=0.02, atol=float(expected.abs().max()) * 1e-5)


def test_fp8_that_no_operator_multiplies_is_one_sentence(monkeypatch):
    monkeypatch.delattr(torch, "_scaled_mm", raising=False)
    with pytest.raises(ConfigurationError, match="cannot multiply 8-bit floats of 128 by 96 on cpu; use precision int8"):
        shrunk(a_layer(torch.bfloat16), "fp8")


def test_what_cannot_be_had_is_one_sentence(monkeypatch):
    assert policy_config.PRECISIONS == PRECISIONS
    with pytest.raises(ConfigurationError, match="precision is 'int2'; use one of full, fp8, int8, int4"):
        check_precision("int2", "cpu", "float32")
    with pytest.raises(ConfigurationError, match="needs a GPU with 8-bit floats, and the device is cpu; use precision int8"):
        check_precision("fp8", "cpu", "bfloat16")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old Card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with pytest.raises(ConfigurationError, match="fp8: Old Card has no 8-bit floats"):
        check_precision("fp8", "cuda", "bfloat16")
    check_dtype("bfloat16", "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ConfigurationError, match="Old Card has no bfloat16 .*use dtype float32"):
        check_dtype("bfloat16", "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    check_precision("fp8", "cuda", "bfloat16")
    with pytest.raises(ConfigurationError, match="use dtype bfloat16"):
        check_precision("fp8", "cuda", "float32")
    monkeypatch.delattr(torch, "float8_e4m3fn")
    with pytest.raises(ConfigurationError, match="has no 8-bit floats; use torch 2.4"):
        check_precision(EMULATED, "cpu", "float32")
    with pytest.raises(ConfigurationError, match="inputs divide by 16, this model has one with 40; use int8"):
        Int4Linear(nn.Linear(40, 8))


def test_a_policy_configuration_names_a_precision_that_there_is_and_not_for_a_server():
    config = load_file(PolicyConfig, ROOT / "config" / "policies" / "tiny.yaml")
    assert config.precision == "full" and replace(config, precision="int4").precision == "int4"
    with pytest.raises(ConfigurationError, match="precision is 'int2'; use one of full, fp8, int8, int4"):
        replace(config, precision="int2")
    with pytest.raises(ConfigurationError, match="whose server has the weights; set precision to full"):
        replace(config, precision="int8").on_server("ws://localhost:8000")


@pytest.mark.parametrize("family", ["llama", "phi"])
@torch.inference_mode()
def test_all_products_of_the_blocks_shrink_and_nothing_else(family, caplog):
    torch.manual_seed(0)
    decoder = replace(llama(64, 2, 4, 96, 832), family=family, rotary_dim=16 if family == "llama" else 6)
    config = preset("tiny", towers=(dino(32, 2, 2, 64, 32, 16), siglip(32, 2, 2, 64, 32, 16)), decoder=decoder,
                    projector=(64, 64, 64))
    before = HybridVLA(config).initialise(0.2).eval().for_inference()
    after = HybridVLA(config).eval()
    after.load_state_dict(before.state_dict())
    after.for_inference("int8")
    assert size_of(after.llm.model.layers)[0] == size_of(before.llm.model.layers)[0]
    assert size_of(after.llm.model.layers)[1] < 0.35 * size_of(before.llm.model.layers)[1]
    assert not [name for name, layer in after.llm.model.layers.named_modules() if type(layer) is nn.Linear]
    assert type(after.llm.lm_head) is nn.Linear and "kept in int8: predictions differ" in caplog.text
    pixels = {kind: torch.randn(1, 1, 3, 32, 32) for kind in ("dino", "siglip")}
    text, state = torch.randint(3, 500, (1, 6)), torch.zeros(1, 7)
    noises = []
    for model in (before, after):
        engine = PlainDecoding(model)
        prefix = engine.prefix(engine.encode(pixels), text, state)
        noises.append(engine.noise_prediction(prefix, torch.ones(1, 1, 7), torch.tensor([50])))
    assert 0 < float((noises[0] - noises[1]).abs().max()) < 0.05 * float(noises[0].abs().max() + 1)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_policy_says_its_precision_and_predicts_near_the_full_one(tmp_path, caplog, precision):
    folder = write(tmp_path / "small")
    full = Policy.from_checkpoint(folder).predict(observation())
    with caplog.at_level(logging.WARNING):
        small = Policy.from_checkpoint(folder, precision=precision)
    assert small.precision == precision and f"kept in {precision}" in caplog.text
    found = small.predict(observation())
    assert 0 < abs(found.diffusion - full.diffusion).max() < 0.5
