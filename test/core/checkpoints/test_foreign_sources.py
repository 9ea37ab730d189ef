"""`hybridvla convert` on files of other savers and training programs: they are read, or refused with the remedy."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_models import SCALE, changed, convert_arguments, modules_of, released_run

from hybridvla_cli.__main__ import main
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.contracts import Observation
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.policy.predictor import Policy

pytestmark = pytest.mark.versions
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"


@pytest.fixture
def source(tmp_path):
    """Return the folder of a small run, and the run's modules."""
    return tmp_path / "source", modules_of(released_run(tmp_path / "source"))


def pt(folder):
    return folder / "run" / "checkpoints" / "step-1.pt"


def said(capsys, folder, out, status, *options):
    """Run `convert` and return its output, or the last error line when it refuses."""
    assert main([*convert_arguments(folder, out), *options]) == status
    streams = capsys.readouterr()
    text = streams.err.strip().splitlines()[-1] if status else streams.out
    assert len(text) < 1200 and "Traceback" not in streams.err
    return text


def wrapped(modules, prefix="", inside=""):
    """Return one flat dictionary with the names that a wrapper inserts."""
    return {f"{prefix}{module}.{inside}{name}": tensor for module, named in modules.items() for name, tensor in named.items()}


@pytest.mark.parametrize("content", [
    lambda m: {"model": wrapped(m, "vlm.")}, lambda m: {"model": wrapped(m, "module.")}, lambda m: wrapped(m),
    lambda m: {"state_dict": wrapped(m, "_orig_mod.vlm."), "epoch": 3},
    lambda m: {"model": {f"module.{module}": named for module, named in m.items()}, "optimizer": {"state": {}}},
    lambda m: {"model": wrapped(m, "_fsdp_wrapped_module.vlm.", "_fsdp_wrapped_module.")},
    lambda m: {"model": {module: {name.replace("layers.0.", "layers.0._checkpoint_wrapped_module."): tensor
                                  for name, tensor in named.items()} for module, named in m.items()}}],
    ids=["flat", "ddp", "top", "compile", "ddp_modules", "fsdp", "checkpointing"])
def test_wrappers_are_taken_off(source, tmp_path, capsys, content):
    folder, modules = source
    said(capsys, folder, tmp_path / "plain", 0)
    torch.save(content(modules), str(pt(folder)))
    said(capsys, folder, tmp_path / "out", 0)
    plain, out = (load_file(str(tmp_path / name / "model.safetensors")) for name in ("plain", "out"))
    assert set(plain) == set(out) and all(torch.equal(tensor, out[name]) for name, tensor in plain.items())


ADAPTER = "llm.model.layers.0.self_attn.q_proj.lora_A.default.weight"


@pytest.mark.parametrize("change, words", [
    (lambda m: m["llm_backbone"].update({ADAPTER: torch.zeros(4, 16)}), ("LoRA", "merge it first")),
    (lambda m: m["llm_backbone"].update({"llm._flat_param": torch.zeros(9)}), ("FSDP", "full state dict")),
    (lambda m: m["llm_backbone"].update({"llm.model.norm.weight.absmax": torch.zeros(9)}), ("quantised",)),
    (lambda m: m.pop("vision_backbone"), ("modules missing: vision_backbone", "frozen", "timm's", "siglip")),
    (lambda m: [m.pop(name) for name in list(m) if name not in ("llm_backbone", "projector")], ("frozen", "base model")),
    (lambda m: m.update(action_head={"fc1.weight": torch.zeros(2)}), ("OpenVLA-OFT", "action_head")),
    (lambda m: m.update(action_model={"x": torch.zeros(2)}), ("CogACT",)),
    (lambda m: m.update({f"part{i}": {"x": torch.zeros(2)} for i in range(900)}), ("and 896 more",))])
def test_what_has_to_be_done_first_is_said(source, tmp_path, capsys, change, words):
    folder, _ = source
    changed(folder, change)
    text = said(capsys, folder, tmp_path / "out", 1)
    assert all(word in text for word in words), text


def test_averaged_weights_are_mentioned_and_taken_when_asked_for(source, tmp_path, capsys):
    folder, modules = source
    half = {module: {name: tensor * 0.5 for name, tensor in named.items()} for module, named in modules.items()}
    torch.save({"model": modules, "ema": half}, str(pt(folder)))
    assert "averaged weights in ema" in said(capsys, folder, tmp_path / "plain", 0)
    said(capsys, folder, tmp_path / "averaged", 0, "--entry", "ema")
    plain, averaged = (load_file(str(tmp_path / name / "model.safetensors")) for name in ("plain", "averaged"))
    assert all(torch.equal(averaged[name], (tensor * 0.5)) for name, tensor in plain.items())
    assert "no entry 'swa'" in said(capsys, folder, tmp_path / "out", 1, "--entry", "swa")


def test_adapters_alone_and_pickled_folders_are_recognised(source, tmp_path, capsys):
    folder, _ = source
    (folder / "run" / "adapter_config.json").write_text("{}")
    assert "merge it first" in said(capsys, folder, tmp_path / "out", 1)
    (folder / "run" / "adapter_config.json").unlink()
    pt(folder).unlink()
    pt(folder).parent.rmdir()
    (folder / "run" / "pytorch_model-00001-of-00002.bin").write_bytes(b"x")
    assert "safetensors" in said(capsys, folder, tmp_path / "out", 1)


def test_pointers_of_git_lfs_are_named(source, tmp_path, capsys):
    folder, _ = source
    for path in (pt(folder), folder / "run" / "dataset_statistics.json", folder / "run" / "config.json",
                 folder / "tokenizer.json"):
        content = path.read_bytes()
        path.write_bytes(POINTER)
        text = said(capsys, folder, tmp_path / "out", 1)
        assert str(path) in text and "git lfs pull" in text
        path.write_bytes(content)
    said(capsys, folder, tmp_path / "out", 0)
    (tmp_path / "out" / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(Exception, match="git lfs pull"):
        Policy.from_checkpoint(tmp_path / "out")


def configured(folder, **changes):
    path = folder / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("changes, options, words", [
    ({"n_action_bins": 512}, (), ("n_action_bins is 512", "256")),
    ({"image_sizes": [384, 384]}, (), ("384", "28")),
    ({"model": {"vision_backbone_id": "dinosiglip-vit-so-384px"}}, (), ("384", "28")),
    ({"image_resize_strategy": "letterbox"}, ("--image-strategy", "resize-naive"), ("--image-strategy", "letterbox")),
    ({"image_resize_strategy": "stretch"}, (), ("'stretch'", "resize-naive")),
    ({"past_action_window_size": 2}, (), ("past_action_window_size",)),
    ({"future_action_window_size": None}, (), ("future_action_window_size is None",)),
    ({"n_action_bins": "256"}, (), ("n_action_bins", "whole number")),
    ({"use_diff": False}, (), ("use_diff is false", "without diffusion")),
    ({"use_diff": "yes"}, (), ("use_diff", "true or false"))])
def test_settings_that_contradict_the_model_are_refused_by_name(source, tmp_path, capsys, changes, options, words):
    folder, _ = source
    configured(folder, **changes)
    text = said(capsys, folder, tmp_path / "out", 1, *options)
    assert all(word in text for word in words), text


@pytest.mark.parametrize("changes", [{"image_resize_strategy": "letterbox"}, {"model": {"image_resize_strategy": "letterbox"}}])
def test_the_source_s_resizing_is_kept_and_the_rest_is_listed(source, tmp_path, capsys, changes):
    folder, _ = source
    configured(folder, n_action_bins=256, image_sizes=[28, 28], seed=42, use_ema=True, class_dropout_prob=0.1, **changes)
    text = said(capsys, folder, tmp_path / "out", 0)
    checkpoint = read_checkpoint(tmp_path / "out")
    assert checkpoint.config.image_strategy == "letterbox"
    assert "class_dropout_prob: 0.1, use_ema: True" in text and "seed" not in text
    assert checkpoint.manifest["provenance"]["not_used"] == ["use_ema: True", "class_dropout_prob: 0.1"]


@pytest.mark.parametrize("switch", ["action_tokenizer_exist", "ar_diff_loss"])
def test_tokens_that_were_never_trained_predict_nothing(source, tmp_path, capsys, switch):
    folder, _ = source
    configured(folder, use_diff=True, **{switch: False})
    assert "only mode diffusion" in said(capsys, folder, tmp_path / "out", 0)
    policy = Policy.from_checkpoint(tmp_path / "out")
    seen = Observation({"front": np.zeros((40, 50, 3), np.uint8)}, "close the lid", np.zeros(7), 3)
    assert policy.predict(seen, mode="diffusion").token_confidence is None
    for mode in (None, "ensemble", "autoregressive"):
        with pytest.raises(ConfigurationError, match="never trained.*mode diffusion"):
            policy.predict(seen, mode=mode)


QUANTILES = {"q01": SCALE["q01"], "q99": SCALE["q99"], "mask": SCALE["mask"], "mean": [0.0] * 7, "std": [1.0] * 7}


@pytest.mark.parametrize("statistics", [
    {"action": QUANTILES, "proprio": QUANTILES, "num_transitions": 9},
    {"action": {"p01": SCALE["q01"], "p99": SCALE["q99"], "mask": SCALE["mask"]}, "proprio": QUANTILES},
    {"norm_stats": {"actions": QUANTILES, "state": QUANTILES}},
    {"action": QUANTILES, "observation.state": QUANTILES, "timestamp": {"mean": [1.0]}},
    {"mine": {"action": QUANTILES, "state": QUANTILES}}], ids=["unnamed", "octo", "norm_stats", "lerobot", "state"])
def test_other_layouts_of_statistics_give_the_same_numbers(source, tmp_path, capsys, statistics):
    folder, _ = source
    said(capsys, folder, tmp_path / "plain", 0)
    (folder / "run" / "dataset_statistics.json").write_text(json.dumps(statistics))
    said(capsys, folder, tmp_path / "out", 0)
    for name in ("action", "state"):
        first, second = (getattr(Policy.from_checkpoint(tmp_path / place).normaliser, name) for place in ("plain", "out"))
        for key in ("q01", "q99", "mask"):
            np.testing.assert_array_equal(getattr(first, key), getattr(second, key))


def test_what_the_released_scaling_cuts_off_is_named(source, tmp_path, capsys):
    folder, _ = source
    seldom = {**QUANTILES, "q01": [-1.0] * 3 + [0.25] + [-1.0] * 2 + [0.0], "q99": [1.0] * 3 + [0.25] + [1.0] * 3,
              "min": [-1.0] * 3 + [0.25] + [-1.0] * 3, "max": [1.0] * 7}
    (folder / "run" / "dataset_statistics.json").write_text(json.dumps({"mine": {"action": seldom, "proprio": seldom}}))
    text = said(capsys, folder, tmp_path / "out", 0)
    assert "action channel [3] moves in less than 1 % of the data" in text and "its action is always 0.25" in text
    assert "state channel [3] does move" in text and "use --constant-channel released" in text


def test_statistics_of_mean_and_deviation_are_refused(source, tmp_path, capsys):
    folder, _ = source
    only = {"mean": [0.0] * 7, "std": [1.0] * 7}
    (folder / "run" / "dataset_statistics.json").write_text(json.dumps({"mine": {"action": only, "proprio": only}}))
    text = said(capsys, folder, tmp_path / "out", 1)
    assert "mean and deviation" in text and "mine: action" in text
