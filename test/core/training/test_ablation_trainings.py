"""Tables 1 and 3: predictions of every sequence on held-out frames, what each training changes, and what few seeds can show."""
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import toy_data
import yaml
from small_models import tiniest

from hybridvla_cli.__main__ import main
from hybridvla_cli.ablate_parts import measured
from hybridvla_core.configuration import load_file
from hybridvla_core.data.lerobot import layout
from hybridvla_core.files import write_json
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.presets import preset
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.report.comparisons import FAILS, HOLDS, OPEN
from hybridvla_core.training.ablation.held_out import errors_mm, predict
from hybridvla_core.training.ablation.trainings import CLAIMS, TRAININGS, changed, trainings_sheet
from hybridvla_core.training.hybrid.batch import Batch
from hybridvla_core.training.hybrid.config import DemonstrationConfig, ObjectiveConfig, TrainingConfig
from hybridvla_core.training.hybrid.draws import Noise
from hybridvla_core.training.hybrid.objective import HybridObjective
from hybridvla_core.training.hybrid.run import Request, train
from hybridvla_core.transforms.images import picture_key

RECIPE = load_file(TrainingConfig, ROOT / "config/training/ablation.yaml")


def setting(kind=1, state="embedding"):
    """Return the objective of a model with random weights, and a batch of one sample with labels of zeros."""
    config = tiniest(sequence=replace(tiniest().sequence, kind=kind, state=state))
    torch.manual_seed(1)
    objective = HybridObjective(HybridVLA(config).initialise(0.3), ObjectiveConfig(), "resize-naive").eval()
    rng = np.random.default_rng(2)
    text = torch.tensor([[5, 9, 40, config.sequence.bod]])
    actions = torch.zeros(1, 1, 7)
    tokens = objective.tokens.encode(actions[:, 0])
    picture = torch.from_numpy(rng.integers(0, 255, (1, 1, 32, 32, 3)).astype(np.uint8))
    batch = Batch({picture_key(config.towers[0], "resize-naive"): picture}, None, text, torch.tensor([4]),
                  torch.from_numpy(rng.uniform(-1, 1, (1, 7))).float(), actions, torch.zeros(1, 1, dtype=torch.bool), tokens,
                  torch.cat([tokens, tokens[:, :1]], 1),
                  Noise(ObjectiveConfig(), 4, "released").draw(5, 0, 0, 1, slice(0, 1), actions))
    return objective, batch


@pytest.mark.long
def test_whole_sequences_predict_what_the_policys_cached_prefix_predicts():
    objective, batch = setting()
    made = predict(objective, batch, True, True, 4, 11)
    engine = PlainDecoding(objective.model)
    noise = torch.from_numpy(np.random.default_rng(11).standard_normal((1, 1, 7))).float()
    with torch.inference_mode():
        prefix = engine.prefix(engine.encode(objective.pixels(batch)), batch.text, batch.state)
        x = engine.denoise(prefix, noise, 4)
        decoded = engine.decode(prefix, x.clamp(-1, 1), torch.zeros(1, dtype=torch.long))
    assert made.diffusion.numpy() == pytest.approx(x[:, 0].numpy(), abs=2e-4)
    actions = objective.tokens.valid(decoded.ids)       # the policy chooses among all words, `predict` among actions only
    first = int(actions[0].long().cumprod(0).sum())
    assert made.tokens[0, :first].tolist() == pytest.approx(decoded.values[0, :first].tolist())


@pytest.mark.parametrize("kind, state", [(1, "embedding"), (2, "embedding"), (3, "words"), (4, "embedding"), (1, "none")])
def test_no_prediction_looks_at_its_label(kind, state):
    objective, batch = setting(kind, state)
    other = replace(batch, actions=batch.actions + 0.7, tokens=batch.tokens - 60)
    one, two = (predict(objective, which, True, True, 4, 3) for which in (batch, other))
    assert torch.equal(one.diffusion, two.diffusion) and torch.equal(one.tokens, two.tokens)
    assert bool(torch.isfinite(one.diffusion).all()) and len(set(one.tokens[0].tolist())) > 1


@pytest.mark.parametrize("change", ["nothing", "tokens alone", "type 4"])
def test_a_training_is_measured_on_its_held_out_frames(tmp_path, monkeypatch, change):
    toy_data.add_preset(monkeypatch)
    recipe = changed(toy_data.config(), change, 5, 0.5)
    data = [toy_data.write(tmp_path / "data")]
    train(Request(config=recipe, data=tuple(data), work=tmp_path / "work", out=tmp_path / "out", threads=1))
    errors = errors_mm(tmp_path / "out", recipe, data)
    assert len(errors["tokens"]) == 6 and len(errors["diffusion"]) == (0 if change == "tokens alone" else 6)
    assert all(0 <= value < 1000 for values in errors.values() for value in values) and max(errors["tokens"]) > 1
    assert errors == errors_mm(tmp_path / "out", recipe, data)


def test_every_training_has_the_data_of_its_own_recipe(tmp_path, monkeypatch):
    asked = []

    def write_dataset(folder, frames, seed, labels, validation, even_phases, *_):
        made = DemonstrationConfig("blocks", frames, labels, seed, validation, even_phases)
        write_json(folder / layout.OURS, {"made_with": asdict(made)})

    monkeypatch.setattr("hybridvla_sim.tasks.blocks.dataset.write_dataset", write_dataset)
    monkeypatch.setattr("hybridvla_core.training.hybrid.run.train", lambda request: asked.extend(request.data))
    monkeypatch.setattr("hybridvla_core.training.ablation.held_out.errors_mm", lambda *_: {"diffusion": [1.0], "tokens": [2.0]})
    monkeypatch.setattr(measured, "RECIPE", tmp_path / "recipe.yaml")
    recipe = yaml.safe_load((ROOT / "config/training/ablation.yaml").read_text())
    for frames, batch in ((60, 4), (80, 4), (60, 8)):
        recipe.update(batch=batch, demonstrations={"task": "blocks", "frames": frames})
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        asked.clear()
        assert main(["ablate", "trainings", "--quick", "-o", str(tmp_path / "out")]) == 0
        assert f"out of {frames} pictures" in json.loads((tmp_path / "out/results.json").read_text())["sheets"][0]["about"]
        found = [json.loads((data / layout.OURS).read_text())["made_with"]["frames"] for data in asked]
        assert found == [frames] * len(TRAININGS)


def test_each_training_changes_one_thing_and_costs_the_same():
    assert len({training.change for training in TRAININGS}) == len(TRAININGS)
    steps = {sum(stage.steps for stage in changed(RECIPE, training.change, 2, 0.5).stages) for training in TRAININGS}
    assert steps == {600}
    assert changed(RECIPE, "nothing", 2, 1.0) == replace(RECIPE, seed=2)
    assert changed(RECIPE, "type 3", 1, 1.0).state == "words" and changed(RECIPE, "no state", 1, 1.0).state == "none"
    assert not changed(RECIPE, "no grounding", 1, 1.0).grounding.used
    assert {name for claim in CLAIMS for name in (claim.better, *claim.others)} == {training.change for training in TRAININGS}
    size = sum(parameter.numel() for parameter in HybridVLA(preset("ablation")).parameters())
    assert 1.5e6 < size < 2.5e6


def errors(**medians):
    """Return the errors of three seeds around a median in mm, by change."""
    return {(change.replace("_", " "), seed): {"diffusion": [median * (1 + 0.01 * seed) + 0.05 * seed ** 2],
                                               "tokens": [median * (1 + 0.02 * seed) + 0.1 * seed ** 2]}
            for change, median in medians.items() for seed in (1, 2, 3)}


def test_one_seed_tells_nothing_and_three_do():
    found = errors(nothing=50.0, no_state=70.0, no_grounding=40.0)
    sheet = trainings_sheet(found, (1, 2, 3), "six steps")
    verdicts = {claim["text"]: claim for claim in sheet["claims"]}
    assert verdicts["robot state helps"]["verdict"] == HOLDS and "t-test over 3 seeds" in verdicts["robot state helps"]["test"]
    assert verdicts["training before the hybrid loss helps"]["verdict"] == FAILS
    assert verdicts["sequence type 1 is better than types 2, 3 and 4"]["verdict"] == OPEN     # not run
    assert ["no robot state (Ex6)", 3, "71.6", "73.3", "", ""] in sheet["rows"]
    quick = trainings_sheet({key: value for key, value in found.items() if key[1] == 1}, (1,), "six steps")
    assert {claim["verdict"] for claim in quick["claims"]} == {OPEN} and "needs 3" in quick["claims"][-1]["test"]
