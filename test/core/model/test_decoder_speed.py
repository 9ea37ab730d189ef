"""Fused projections and products of few rows: the same numbers, the same parameters, nothing stored twice."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from hybridvla_core.model import few_rows
from hybridvla_core.model.config import DecoderConfig
from hybridvla_core.model.decoder import Decoder
from hybridvla_core.model.few_rows import linear


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("inputs", [512, 1088])
@pytest.mark.parametrize("rows", [1, 2, 4, 5, 8, 9, 12, 17, 24, 25])
@torch.inference_mode()
def test_products_of_few_rows_are_the_layer_s(rows, bias, inputs):
    torch.manual_seed(rows)
    layer = nn.Linear(inputs, 640, bias=bias)
    x = torch.randn(1, rows, inputs)
    assert linear(layer, x).shape == (1, rows, 640)
    assert torch.allclose(linear(layer, x), layer(x), atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_joining_changes_no_result_no_name_and_holds_nothing_twice(family):
    torch.manual_seed(0)
    kv_heads, rotary = (2, 16) if family == "llama" else (4, 6)
    config = DecoderConfig(family, 64, 2, 4, kv_heads, 96, 120, 1e-5, 10000.0, rotary)
    decoder, x, at = Decoder(config).eval(), torch.randn(1, 9, 64), torch.arange(9)
    with torch.no_grad():
        before, names = decoder(x, at), list(decoder.state_dict())
        decoder.fuse()
        assert torch.allclose(decoder(x, at), before, atol=1e-5) and list(decoder.state_dict()) == names
        attention = decoder.model.layers[0].self_attn
        assert attention.whole.weight.untyped_storage().data_ptr() == attention.k_proj.weight.untyped_storage().data_ptr()
        decoder.load_state_dict({name: value * 0.5 for name, value in decoder.state_dict().items()})
        changed = decoder(x, at)
        decoder.to(torch.float64)
        assert attention.whole is None, "another type takes the joined layer apart"
        assert torch.allclose(decoder(x.double(), at).float(), changed, atol=1e-4)
        assert not torch.allclose(changed, before, atol=1e-3)
    decoder.float().fuse()
    decoder(x, at).sum().backward()
    assert attention.q_proj.weight.grad is not None and float(attention.q_proj.weight.grad.abs().sum()) > 0


def a_decoder():
    torch.manual_seed(0)
    return Decoder(DecoderConfig("llama", 64, 2, 4, 2, 96, 120, 1e-5, 10000.0, 16)).eval().fuse()


@pytest.mark.parametrize("rows", [1, 3, 5, 9, 40])
@torch.inference_mode()
def test_packed_weights_change_no_result(rows):
    decoder, x, at = a_decoder(), torch.randn(1, rows, 64), torch.arange(rows)
    before = decoder.logits(decoder(x, at))
    assert decoder.pack() or not torch.backends.mkldnn.is_available()
    assert torch.allclose(decoder.logits(decoder(x, at)), before, atol=1e-5)


def test_packed_copies_go_when_weights_are_loaded_moved_trained_or_too_large(monkeypatch):
    decoder, x, at = a_decoder(), torch.randn(1, 9, 64), torch.arange(9)
    decoder.pack()
    with torch.no_grad():
        before = decoder(x, at)
        decoder.load_state_dict({name: value * 0.5 for name, value in decoder.state_dict().items()})
        loaded = decoder(x, at)
        assert not torch.allclose(loaded, before, atol=1e-3), "the copies of the old weights are gone"
        decoder.pack()
        assert torch.allclose(decoder.double()(x.double(), at).float(), loaded, atol=1e-4)
        assert not decoder.pack(), "only float32"
    decoder.float().fuse().pack()
    decoder(x, at).sum().backward()
    assert float(decoder.model.layers[0].mlp.down_proj.weight.grad.abs().sum()) > 0, "gradients reach the parameters"
    monkeypatch.setattr(few_rows, "MOST_PACKED", 1000)
    assert not a_decoder().pack()


def test_operators_that_are_missing_or_wrong_leave_the_plain_product(monkeypatch):
    decoder, x, at = a_decoder(), torch.randn(1, 9, 64), torch.arange(9)
    with torch.no_grad():
        before = decoder(x, at)
        monkeypatch.setattr(few_rows, "_packed", lambda layer: None)
        assert not decoder.pack() and torch.equal(decoder(x, at), before)
