"""A training run from shards to a checkpoint, and fine-tuning of one, both a few steps long."""
from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from hybridvla_core.checkpoints.format import TOKENIZER, read_checkpoint, write_manifest
from hybridvla_core.checkpoints.weights import WEIGHTS
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.training.tiny.world import TrainingWorld
from hybridvla_sim.tasks.blocks.demonstrations import write_shard
from hybridvla_sim.tasks.blocks.expert import PHASES
from hybridvla_sim.tasks.blocks.kinematic_world import record_policy_episodes
from hybridvla_sim.tasks.blocks.task import instructions

WORLD = TrainingWorld(PHASES, instructions(), record_policy_episodes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "base-000001.npz", 1, 24, "base")
    return folder


def recipe(folder, **changes):
    values = yaml.safe_load((ROOT / "config/training/tiny.yaml").read_text())
    stage = dict(images=2, labels=2, learning_rate=1e-3)
    values.update(tower=dict(stage, steps=1), grounding=dict(stage, steps=1), policy=dict(stage, steps=2, tower_rate=0.1),
                  dagger=dict(values["dagger"], at=[0.5], episodes=1, keyframes=1))
    values.update(changes)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.long
def test_a_run_writes_a_checkpoint_and_fine_tuning_keeps_its_statistics(data, tmp_path):
    from hybridvla_core.policy.predictor import Policy
    from hybridvla_core.training.tiny.run import train

    first, second = tmp_path / "first", tmp_path / "second"
    train(recipe(tmp_path), data, tmp_path / "work", first, 1, tmp_path / "summary.json", WORLD)
    assert json.loads((tmp_path / "summary.json").read_text())["manifest_sha256"] == read_checkpoint(first).manifest_sha256
    assert (tmp_path / "work/rollouts-0.npz").exists()
    train(recipe(tmp_path, seed=8), data, tmp_path / "tune", second, 1, None, WORLD, init=ROOT / "checkpoints/tiny")
    shipped, tuned = read_checkpoint(ROOT / "checkpoints/tiny"), read_checkpoint(second)
    key = shipped.config.statistics_key
    assert tuned.config == shipped.config
    for kind in ("action", "proprio"):
        for name, values in shipped.statistics[key][kind].items():
            assert tuned.statistics[key][kind][name] == pytest.approx(values)
    assert tuned.manifest["provenance"]["init"] == shipped.manifest_sha256
    assert Policy.from_checkpoint(second, mode="ensemble").cameras == ("front",)


def test_training_without_data_says_what_to_do(tmp_path):
    from hybridvla_core.training.tiny.run import train

    with pytest.raises(HybridVLAError, match="no .npz shards"):
        train(recipe(tmp_path), tmp_path, tmp_path / "work", tmp_path / "out", 1, None, WORLD)


# Resuming ------------------------------------------------------------------------------------------------------------

def stop_before(monkeypatch, step):
    """The policy stage is interrupted once, before that step, as Ctrl-C would; every step before it is saved."""
    from hybridvla_core.training.tiny.recipe import Recipe

    losses = Recipe.policy_losses

    def interrupted(self, at, share):
        if at == step:
            raise KeyboardInterrupt
        return losses(self, at, share)

    monkeypatch.setattr(Recipe, "policy_losses", interrupted)


def train_in(folder, config, data):
    from hybridvla_core.training.tiny.run import train

    result = train(config, data, folder / "work", folder / "out", 1, None, WORLD)
    return result["samples"], load_file(folder / "out" / WEIGHTS)


def changed(folder, **changes):
    """state.pt with some of its entries taken away (None) or replaced."""
    state = torch.load(folder / "work/state.pt", weights_only=True)
    state.update(changes)
    torch.save({key: value for key, value in state.items() if value is not None}, folder / "work/state.pt")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A recipe with rollouts after the second of four policy steps, and what comes out of it in one go."""
    folder = tmp_path_factory.mktemp("whole")
    stage = dict(images=2, labels=2, learning_rate=1e-3)
    config = recipe(folder, save_every_s=0.0, policy=dict(stage, steps=4, tower_rate=0.1))
    return (config, *train_in(folder, config, data))


@pytest.mark.long
@pytest.mark.parametrize("stop", [1, 2, 3], ids=["before the rollouts", "right after them", "later"])
def test_an_interrupted_run_ends_as_the_same_run(data, tmp_path, monkeypatch, whole, stop):
    config, samples, weights = whole
    with monkeypatch.context() as patch:
        stop_before(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            train_in(tmp_path, config, data)
    if stop == 1:    # rollouts of a step that no state has seen: they are made again, and counted once
        shutil.copy(next(data.glob("*.npz")), tmp_path / "work/rollouts-0.npz")
    again, resumed = train_in(tmp_path, config, data)
    assert again == samples
    assert all(torch.equal(resumed[name], value) for name, value in weights.items())


@pytest.mark.long
def test_a_state_of_the_older_form_goes_on_and_counts_rollouts_once(data, tmp_path, monkeypatch, whole):
    config, samples, _ = whole
    for stop, rollouts in ((1, 0), (3, 1)):
        folder = tmp_path / str(stop)
        folder.mkdir()
        with monkeypatch.context() as patch:
            stop_before(patch, stop)
            with pytest.raises(KeyboardInterrupt):
                train_in(folder, config, data)
        assert len(list((folder / "work").glob("rollouts-*.npz"))) == rollouts
        changed(folder, rollouts=None, origin=None, generators=None, torch_random=None)
        assert train_in(folder, config, data)[0] == samples


@pytest.mark.long
def test_a_work_folder_that_does_not_fit_is_one_sentence(data, tmp_path, whole):
    config, _, _ = whole
    train_in(tmp_path, config, data)
    with pytest.raises(HybridVLAError, match="begun from preset tiny with seed 7 .* preset tiny with seed 8; give another"):
        train_in(tmp_path, recipe(tmp_path, seed=8), data)
    (tmp_path / "work/rollouts-0.npz").unlink()
    with pytest.raises(HybridVLAError, match="rollouts-0.npz is missing"):
        train_in(tmp_path, config, data)
    changed(tmp_path, model={"another.weight": torch.zeros(2)})
    with pytest.raises(HybridVLAError, match="state.pt: not a state of this recipe's model .*; give another --work"):
        train_in(tmp_path, config, data)
    (tmp_path / "work/state.pt").write_bytes(b"torn")
    with pytest.raises(HybridVLAError, match="state.pt: not a state of this recipe's model"):
        train_in(tmp_path, config, data)


# Fine-tuning ---------------------------------------------------------------------------------------------------------

def base(folder, change=lambda config: None, tokenizer=None):
    """The shipped checkpoint with its configuration or its tokenizer changed, and a manifest that fits."""
    shutil.copytree(ROOT / "checkpoints/tiny", folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    if tokenizer is not None:
        (folder / TOKENIZER).write_text(tokenizer(json.loads((folder / TOKENIZER).read_text())))
    write_manifest(folder, {})
    return folder


@pytest.mark.parametrize("change, words", [
    (lambda c: c["convention"].update(delta_base="commanded"), "convention.delta_base is 'commanded' there and 'measured'"),
    (lambda c: c["convention"].update(gripper_sense="one_is_closed"), "convention.gripper_sense is 'one_is_closed'"),
    (lambda c: c["convention"].update(rotation_reference_xyzw=[0.0, 0.0, 0.0, 1.0]), "convention.rotation_reference_xyzw"),
    (lambda c: c.update(cameras=["wrist"]), "cameras is .'wrist'. there and .'front'. in this recipe"),
    (lambda c: c.update(image_strategy="letterbox"), "image_strategy is 'letterbox' there"),
])
def test_a_base_that_means_something_else_is_refused(data, tmp_path, change, words):
    from hybridvla_core.training.tiny.run import train

    with pytest.raises(HybridVLAError, match=words):
        train(recipe(tmp_path), data, tmp_path / "work", tmp_path / "out", 1, None, WORLD, base(tmp_path / "base", change))
    assert not (tmp_path / "work").exists()


def swapped(tokenizer):
    words = tokenizer["model"]["vocab"]
    words["red"], words["wine"] = words["wine"], words["red"]
    return json.dumps(tokenizer)


@pytest.mark.long
def test_fine_tuning_keeps_the_tokenizer_of_its_base(data, tmp_path):
    from hybridvla_core.training.tiny.run import train
    from hybridvla_core.transforms.prompt import load_tokenizer

    start = base(tmp_path / "base", tokenizer=swapped)
    train(recipe(tmp_path), data, tmp_path / "work", tmp_path / "out", 1, None, WORLD, start)
    theirs, ours = (load_tokenizer(folder / TOKENIZER).get_vocab() for folder in (start, tmp_path / "out"))
    assert ours == theirs


def test_a_base_that_lacks_a_word_of_the_instructions_is_refused(data, tmp_path):
    from hybridvla_core.training.tiny.run import train

    def forgets(tokenizer):
        tokenizer["model"]["vocab"].pop("red")
        return json.dumps(tokenizer)

    with pytest.raises(HybridVLAError, match="tokenizer.json: 'put the red .* is not one known token a word"):
        train(recipe(tmp_path), data, tmp_path / "work", tmp_path / "out", 1, None, WORLD,
              base(tmp_path / "base", tokenizer=forgets))
