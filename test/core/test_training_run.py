"""A training run from shards to a checkpoint, and fine-tuning of one, both a few steps long."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.errors import HybridVLAError
from hybridvla_sim.datagen import write_shard

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "base-000001.npz", 1, 24, "base")
    return folder


def recipe(folder, **changes):
    values = yaml.safe_load((ROOT / "config/training/tiny.yaml").read_text())
    stage = dict(images=2, labels=2, learning_rate=1e-3)
    values.update(tower=dict(stage, steps=1), grounding=dict(stage, steps=1), policy=dict(stage, steps=2, tower_rate=0.1),
                  dagger=dict(values["dagger"], at=[0.5], episodes=1, keyframes=1), **changes)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_run_writes_a_checkpoint_and_fine_tuning_keeps_its_statistics(data, tmp_path):
    from hybridvla_core.policy.predictor import Policy
    from hybridvla_core.training.run import train

    first, second = tmp_path / "first", tmp_path / "second"
    train(recipe(tmp_path), data, tmp_path / "work", first, 1, tmp_path / "summary.json")
    assert json.loads((tmp_path / "summary.json").read_text())["manifest_sha256"] == read_checkpoint(first).manifest_sha256
    assert (tmp_path / "work/rollouts-0.npz").exists()
    train(recipe(tmp_path, seed=8), data, tmp_path / "tune", second, 1, None, init=ROOT / "checkpoints/tiny")
    shipped, tuned = read_checkpoint(ROOT / "checkpoints/tiny"), read_checkpoint(second)
    key = shipped.config.statistics_key
    assert tuned.config == shipped.config
    for kind in ("action", "proprio"):
        for name, values in shipped.statistics[key][kind].items():
            assert tuned.statistics[key][kind][name] == pytest.approx(values)
    assert tuned.manifest["provenance"]["init"] == shipped.manifest_sha256
    assert Policy.from_checkpoint(second, mode="ensemble").cameras == ("front",)


def test_training_without_data_says_what_to_do(tmp_path):
    from hybridvla_core.training.run import train

    with pytest.raises(HybridVLAError, match="no .npz shards"):
        train(recipe(tmp_path), tmp_path, tmp_path / "work", tmp_path / "out", 1, None)
