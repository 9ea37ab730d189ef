"""Adapters: nothing changes before the first step, only they are trained, and export merges them into the weights."""
from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
import toy_data
import yaml
from safetensors.torch import load_file
from small_models import tiniest

from hybridvla_core.checkpoints.format import STATISTICS
from hybridvla_core.checkpoints.weights import WEIGHTS
from hybridvla_core.configuration import from_mapping
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.paths import ROOT
from hybridvla_core.training import lora
from hybridvla_core.training.hybrid.config import TrainingConfig
from hybridvla_core.training.hybrid.run import Request, train

STAGES = [dict(name="act", steps=4, train="finetune", learning_rate=1e-2)]


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    toy_data.add_preset(monkeypatch)
    if find_spec("peft") is None:
        pytest.skip("peft is not installed")


def forward(model, rows):
    with torch.no_grad():
        return model.llm(rows, torch.arange(rows.shape[1]))


def test_adapters_change_nothing_at_first_and_are_folded_in_exactly():
    torch.manual_seed(0)
    model = HybridVLA(tiniest()).initialise(0.2)
    rows = torch.randn(2, 40, 16)
    before = forward(model, rows)
    lora.add_adapters(model.llm, lora.LoraConfig(rank=4, alpha=8.0), seed=1)
    assert torch.equal(forward(model, rows), before)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    changed = forward(model, rows)
    assert not torch.allclose(changed, before, atol=1e-3)
    plain = HybridVLA(tiniest())
    plain.load_state_dict(lora.merged(model.llm, dict(model.named_parameters()), "llm."))
    torch.testing.assert_close(forward(plain, rows), changed, atol=1e-5, rtol=0)


def test_a_run_with_adapters_leaves_the_other_weights_and_writes_a_plain_checkpoint(tmp_path):
    from hybridvla_core.policy.predictor import Policy

    data = toy_data.write(tmp_path / "toy")
    for name, steps in (("before", 0), ("after", 4)):
        config = toy_data.config(stages=[dict(STAGES[0], steps=steps)], lora=dict(rank=2), export="float32")
        train(Request(config, (data,), tmp_path / name / "work", tmp_path / name / "out", threads=1))
    before, after = (load_file(str(tmp_path / name / "out" / WEIGHTS)) for name in ("before", "after"))
    assert before.keys() == after.keys() == HybridVLA(tiniest()).state_dict().keys()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert "llm.model.layers.0.self_attn.q_proj.weight" in moved and "x_embedder.mlp.fc1.weight" in moved
    assert not any(name.startswith("vision_backbone") for name in moved)
    assert "llm.lm_head.weight" not in moved and "llm.model.embed_tokens.weight" not in moved
    assert Policy.from_checkpoint(tmp_path / "after/out").cameras == ("front",)


def test_the_recipe_for_large_checkpoints_tunes_one_on_data_of_another_scale(tmp_path):
    values = yaml.safe_load((ROOT / "config/training/lora.yaml").read_text())
    recipe = from_mapping(TrainingConfig, values, "lora.yaml")
    assert recipe.gradient_checkpointing and recipe.precision == "bfloat16" and recipe.statistics == "data"
    assert (recipe.lora.rank, recipe.objective.repeats, recipe.stages[0].train) == (32, 4, "finetune")
    base, data = tmp_path / "base", toy_data.write(tmp_path / "toy")
    train(Request(toy_data.config(stages=[dict(STAGES[0], steps=0)], export="float32"), (data,), tmp_path / "first", base,
                  threads=1))
    short = {**values, "stages": [{**values["stages"][0], "steps": 3}], "batch": 8, "workers": 0, "export": "float32"}
    elsewhere = toy_data.write(tmp_path / "lab", seed=5, name="lab")
    train(Request(from_mapping(TrainingConfig, short, "lora.yaml, short"), (elsewhere,), tmp_path / "work", tmp_path / "out",
                  init=base, threads=1))
    before, after = (load_file(str(folder / WEIGHTS)) for folder in (base, tmp_path / "out"))
    moved = {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert "llm" in moved and "projector" in moved and "vision_backbone" not in moved
    assert list(json.loads((tmp_path / "out" / STATISTICS).read_text())) == ["lab"]


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ConfigurationError, match="no layer is named nothing; there are .*q_proj"):
        lora.add_adapters(HybridVLA(tiniest()).llm, lora.LoraConfig(rank=2, targets=("nothing",)), 0)


def test_a_misspelt_layer_beside_others_is_named_and_those_of_another_model_are_left_out():
    llm = HybridVLA(tiniest()).llm
    for wrong in ("qproj", "self_attn.q_proj"):
        with pytest.raises(ConfigurationError, match=f"targets: no layer is named {wrong}; there are .*q_proj"):
            lora.add_adapters(llm, lora.LoraConfig(rank=2, targets=(wrong, "v_proj", "fc1")), 0)
    lora.add_adapters(llm, lora.LoraConfig(rank=2, targets=("v_proj", "fc1")), 0)
    adapted = {name.split(".lora_")[0] for name, _ in llm.named_parameters() if ".lora_" in name}
    assert {name.rsplit(".", 1)[-1] for name in adapted} == {"v_proj"}


def test_dropout_is_off_in_validation_and_differs_between_processes(tmp_path, monkeypatch):
    from hybridvla_core.training.distributed import Processes
    from hybridvla_core.training.hybrid.objective import HybridObjective

    class Alone(Processes):
        """A process that has another one's number and does the work of all."""

        first = True

        def rows(self, batch):
            return slice(0, batch)

    whole, seen, data = HybridObjective.forward, set(), toy_data.write(tmp_path / "toy")

    def forward(self, *arguments):
        seen.update((torch.is_grad_enabled(), module.training) for module in self.modules())
        return whole(self, *arguments)

    monkeypatch.setattr(HybridObjective, "forward", forward)
    found = {}
    for rank, dropout in ((0, 0.0), (1, 0.0), (0, 0.5), (1, 0.5)):
        monkeypatch.setattr(Processes, "start", classmethod(lambda cls, device, rank=rank: Alone(rank, 1, torch.device("cpu"))))
        config = toy_data.config(stages=STAGES, lora=dict(rank=2, dropout=dropout), export="float32", validate_every=1)
        folder = tmp_path / f"{rank}-{dropout}"
        train(Request(config, (data,), folder / "work", folder / "out", threads=1))
        found[rank, dropout] = load_file(str(folder / "out" / WEIGHTS))["llm.model.layers.0.self_attn.q_proj.weight"]
    assert seen == {(True, True), (False, False)}, "every module trains in steps, and none in validation"
    assert torch.equal(found[0, 0.0], found[1, 0.0]) and not torch.equal(found[0, 0.5], found[1, 0.5])
