"""Blocks through torch.compile: the same numbers, one compilation for all layers, and eager execution where compiling fails."""
from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys

import pytest
import torch

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.compiled import CACHE_VARIABLE, CompiledBlocks, choose_compiled, usable_folder
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.presets import dino, llama, preset, siglip
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.policy.inference.workspace import Shape, Workspace

COMPARE = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from test_compiled import a_model, prefix
from hybridvla_core.model.compiled import choose_compiled
from torch._dynamo.utils import counters
model = a_model()
with torch.inference_mode():
    before = prefix(model)
    compiled = choose_compiled("auto", sys.argv[1])
    model.llm.compiled = compiled          # the decoder alone: one compilation is enough for a test
    after = prefix(model)
assert compiled.failed is None, compiled.failed
for one, other in zip(before, after):
    assert torch.allclose(one, other, atol=1e-5), (one - other).abs().max()
assert counters["stats"]["unique_graphs"] == 1, counters
print("same")
"""


def a_model():
    torch.manual_seed(0)
    config = preset("tiny", towers=(dino(32, 2, 2, 64, 32, 16), siglip(32, 2, 2, 64, 32, 16)),
                    decoder=llama(64, 3, 4, 96, 832), projector=(64, 64, 64))
    model = HybridVLA(config).initialise(0.3).eval()
    model.llm.fuse()
    return model


def prefix(model):
    """Run a pass over a prefix of twelve rows; return hidden states and the written keys and values."""
    return _pass(model, lambda space: space.prefix_plan, 12)


def opening(model):
    """Run the same with two rows after the prefix; the last block computes only these two."""
    return _pass(model, lambda space: space.opening(False), 14)


def _pass(model, choose, count):
    generator = torch.Generator().manual_seed(1)
    space = Workspace(model.config, Shape(1, 12), torch.float32, torch.device("cpu"))
    plan = choose(space)
    rows = torch.randn(1, count, 64, generator=generator)
    hidden = model.llm.run(rows, plan.rotary, plan.bias, space.cache, plan.write_at, last=plan.last)
    return hidden, space.cache.keys.clone(), space.cache.values.clone()


@pytest.mark.long
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="inductor has no C++ compiler here")
def test_compiled_blocks_are_the_written_ones_and_all_layers_share_them(tmp_path):
    done = subprocess.run([sys.executable, "-c", COMPARE, str(tmp_path), os.path.dirname(__file__)], capture_output=True,
                          text=True, timeout=900)
    assert done.returncode == 0 and "same" in done.stdout, done.stderr[-3000:]
    assert any(tmp_path.rglob("*.so")), "kept on disk for the next start"


@torch.inference_mode()
def test_a_compiler_that_fails_is_said_once_and_the_model_runs_as_written(caplog):
    model, calls = a_model(), []
    before = opening(model)

    def broken(function):
        def call(*arguments):
            calls.append(function)
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler\nmore")
        return call

    model.compile_blocks(CompiledBlocks(broken))
    engine = PlainDecoding(model)
    with caplog.at_level(logging.WARNING):
        for one, other in zip(before, opening(model)):
            assert torch.equal(one, other)
        opening(model)
        engine.encode({kind: torch.randn(1, 1, 3, 32, 32) for kind in ("dino", "siglip")})
    assert len(calls) == 1 and len(caplog.records) == 1
    assert "InvalidCxxCompiler" in caplog.text and "as written" in caplog.text and "more" not in caplog.text


@pytest.mark.parametrize("missing", ["torch._inductor.config", "torch._dynamo.config"])
def test_a_torch_without_inductor_is_said_and_the_model_runs_as_written(missing, monkeypatch, caplog, tmp_path):
    monkeypatch.setitem(sys.modules, missing, None)
    with caplog.at_level(logging.WARNING):
        assert choose_compiled("auto", tmp_path) is None
    assert len(caplog.records) == 1 and "torch.compile is not to be had here" in caplog.text and "as written" in caplog.text


def test_refused_memory_is_not_a_failed_compiler():
    def full(function):
        def call(*arguments):
            raise MemoryError
        return call

    compiled = CompiledBlocks(full)
    with pytest.raises(MemoryError):
        compiled.tower(torch.nn.Identity(), torch.zeros(1))
    assert compiled.failed is None


def test_a_cache_folder_that_cannot_be_written_is_said_and_another_used(tmp_path, caplog, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert usable_folder() == tmp_path / "mine"
    other = usable_folder(tmp_path / "file" / "below")
    assert other.is_dir() and "cannot be written" in caplog.text
    other.rmdir()


def test_another_choice_is_refused():
    assert choose_compiled("off") is None
    with pytest.raises(ConfigurationError, match="compile is 'fast'"):
        choose_compiled("fast")
