"""A checkpoint folder in the released layout: the released names, and the same weights when it is converted again."""
from __future__ import annotations

import json
from dataclasses import replace

import pytest
import small_models
import torch
from goldens import GOLDEN, needs_golden

from hybridvla_cli.__main__ import main
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.checkpoints.released import find_weights, load_released
from hybridvla_core.checkpoints.released_layout import released_modules, write_released
from hybridvla_core.checkpoints.weights import Weights, weight_files
from hybridvla_core.errors import CheckpointError


def tensors(folder):
    with Weights(folder, weight_files(folder)) as weights:
        return {name: weights.tensor(name).clone() for name in weights.shapes()}


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_a_run_that_is_converted_there_and_back_is_the_same(tmp_path, family):
    small_models.released_run(tmp_path, family)
    assert main(small_models.convert_arguments(tmp_path, tmp_path / "ours")) == 0
    back = tmp_path / "back"
    path = write_released(read_checkpoint(tmp_path / "ours"), back / "run")
    assert path == find_weights(back / "run")
    for name in ("dims.json", "tokenizer.json"):
        (back / name).write_bytes((tmp_path / name).read_bytes())
    config = back / "run/config.json"
    config.write_text((tmp_path / "run/config.json").read_text())     # a registry name that stands for other dimensions
    assert main(small_models.convert_arguments(back, tmp_path / "again")) == 0
    one, other = tensors(tmp_path / "ours"), tensors(tmp_path / "again")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(CheckpointError, match="already there"):
        write_released(read_checkpoint(tmp_path / "ours"), back / "run")


def test_a_model_that_the_released_code_cannot_hold_is_refused():
    with pytest.raises(CheckpointError, match="no norm after towers or projector"):
        released_modules({}, small_models.tiniest())


@pytest.mark.parametrize("declared", [
    {}, {"ar_diff_loss": False}, {"image_resize_strategy": "letterbox", "action_tokenizer_exist": False}],
    ids=["all", "no loss of tokens", "letterbox, no tokens"])
def test_what_a_checkpoint_says_of_its_training_goes_there_and_back(tmp_path, declared):
    small_models.released_run(tmp_path)
    config = tmp_path / "run/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **declared}))
    assert main(small_models.convert_arguments(tmp_path, tmp_path / "ours")) == 0
    ours = read_checkpoint(tmp_path / "ours")
    assert ours.config.trained == (("diffusion",) if declared else ("diffusion", "autoregressive"))
    back = tmp_path / "back"
    write_released(ours, back / "run")
    for name in ("dims.json", "tokenizer.json"):
        (back / name).write_bytes((tmp_path / name).read_bytes())
    assert main(small_models.convert_arguments(back, tmp_path / "again")) == 0
    again = read_checkpoint(tmp_path / "again").config
    assert again == ours.config
    assert again.image_strategy == declared.get("image_resize_strategy", "resize-naive")


def test_a_checkpoint_with_untrained_parts_is_not_written_as_a_trained_one(tmp_path):
    small_models.released_run(tmp_path)
    assert main(small_models.convert_arguments(tmp_path, tmp_path / "ours")) == 0
    checkpoint = read_checkpoint(tmp_path / "ours")
    begun = replace(checkpoint, config=replace(checkpoint.config, untrained=("final_layer", "x_embedder")))
    with pytest.raises(CheckpointError, match="cannot say that parts are untrained, and final_layer, x_embedder hold random"):
        write_released(begun, tmp_path / "released")
    assert not (tmp_path / "released").exists()


@needs_golden
@pytest.mark.parametrize("variant", ["llama_7dof", "llama_14dof_gqa", "phi_7dof"])
def test_names_and_shapes_are_the_released_ones(variant):
    folder = GOLDEN / variant
    model, _ = load_released(folder / "run", folder / "dims.json")
    recorded = torch.load(str(find_weights(folder / "run")), weights_only=True)["model"]
    ours = released_modules(model.state_dict(), model.config)
    for module, named in recorded.items():
        expected = {name: tuple(tensor.shape) for name, tensor in named.items() if not name.endswith("inv_freq")}
        assert {name: tuple(tensor.shape) for name, tensor in ours[module].items()} == expected, module
