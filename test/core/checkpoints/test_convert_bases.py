"""`hybridvla convert` on base models: a Prismatic run and an OpenVLA folder, which lack the diffusion heads."""
from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import CONVENTION, SCALE, changed, convert_arguments, llama_tokenizer, released_run

from hybridvla_cli.__main__ import main
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.checkpoints.openvla import RENAMES
from hybridvla_core.errors import CheckpointError
from hybridvla_core.policy.predictor import Policy

pytestmark = pytest.mark.versions


@pytest.fixture
def folder(tmp_path):
    released_run(tmp_path / "source")
    return tmp_path / "source"


def test_a_prismatic_base_gets_heads_that_need_training(folder, tmp_path, capsys):
    changed(folder, lambda m: [m.pop(name) for name in ("x_embedder", "t_embedder", "final_layer", "proprio_embedder")])
    (folder / "run" / "config.json").write_text(json.dumps({"model": {"model_id": "prism-dinosiglip-224px+7b"}}))
    (folder / "run" / "dataset_statistics.json").unlink()
    assert main(convert_arguments(folder, tmp_path / "out")) == 0
    assert "random weights" in capsys.readouterr().out
    assert read_checkpoint(tmp_path / "out").config.untrained == ("final_layer", "proprio_embedder", "t_embedder", "x_embedder")
    with pytest.raises(CheckpointError, match="train it before it predicts"):
        Policy.from_checkpoint(tmp_path / "out")


def test_an_openvla_folder_is_the_same_base_under_other_names(tmp_path, capsys):
    model = released_run(tmp_path / "source")
    base = tmp_path / "openvla"
    base.mkdir()
    back = [(ours, pattern.pattern[1:].replace("\\.", ".")) for pattern, ours in RENAMES]
    tensors = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in back:
            if name.startswith(ours):
                name = theirs + name[len(ours):]
                break
        tensors[name.replace(".gamma", ".scale_factor")] = tensor.bfloat16().contiguous()
    heads = ("x_embedder", "t_embedder", "final_layer", "proprio_embedder")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(heads)}
    half = len(tensors) // 2
    parts = [dict(list(tensors.items())[:half]), dict(list(tensors.items())[half:])]
    table = {}
    for number, part in enumerate(parts, 1):
        save_file(part, str(base / f"model-{number:05d}-of-00002.safetensors"))
        table.update(dict.fromkeys(part, f"model-{number:05d}-of-00002.safetensors"))
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    (base / "config.json").write_text(json.dumps({
        "timm_model_ids": ["small", "small"], "norm_stats": {"bridge": {"action": SCALE}}}))
    llama_tokenizer().save(str(base / "tokenizer.json"))
    arguments = ["convert", str(base), str(tmp_path / "out"), "--camera-order", "front", "--arms", "arm", "--final-norm",
                 "mean_square", "--dims", str(tmp_path / "source" / "dims.json"), *CONVENTION]
    assert main(arguments) == 0, capsys.readouterr().err
    stored = load_file(str(tmp_path / "out" / "model.safetensors"))
    for name, tensor in model.state_dict().items():
        if not name.startswith(heads):
            assert torch.equal(stored[name], tensor.bfloat16()), name
    config = read_checkpoint(tmp_path / "out").config
    assert config.model.final_norm == "mean_square" and config.untrained
