"""What `scripts/anywhere/together.py` decides by itself: recipes, steps that fit into the remaining time, and what failed."""
import dataclasses
import importlib.util
import json
import sys
import time
import types
from pathlib import Path

import pytest
import yaml

from hybridvla_core.configuration import load_file
from hybridvla_core.training.hybrid.config import TrainingConfig

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def together():
    spec = importlib.util.spec_from_file_location("together", ROOT / "scripts/anywhere/together.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["together"] = module      # dataclasses look up their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["together"]


def plan(together, out, **changes):
    found = together.Plan(out, time.time() + 600.0, [7], ["suite"], 800, 2, 2, 2, 4, "cuda", None)
    return dataclasses.replace(found, **changes)


@pytest.mark.parametrize("name", ["suite", "dual"])
def test_a_suite_trains_for_as_long_as_there_is_time(together, name):
    suite = together.SUITES[name]
    see, ground, act = (stage["steps"] for stage in yaml.safe_load(suite.recipe.read_text())["stages"])
    seconds = {"see": 0.02, "ground": 0.04, "act": 0.05}
    long = together.steps_within(900.0, seconds, suite.recipe)
    assert long[:2] == [see, ground] and 900.0 - 0.05 < sum(n * s for n, s in zip(long, seconds.values())) <= 900.0
    short = together.steps_within(100.0, seconds, suite.recipe)
    assert sum(n * s for n, s in zip(short, seconds.values())) <= 100.0 and short[2] * 0.05 >= 50.0, "half of it acts"
    assert short[0] / see == pytest.approx(short[1] / ground, rel=0.01)


def test_the_pace_is_that_of_the_last_rows_of_each_stage(together, tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [{"kind": "train", "stage": "see", "step": 20 * n, "seconds": 30.0 + 0.4 * n} for n in range(1, 4)]
    rows += [{"kind": "validation", "stage": "see", "step": 60, "patches": 1.0}]
    rows += [{"kind": "train", "stage": "act", "step": 20 * n, "seconds": 90.0 + n * (3.0 if n < 5 else 1.0)}
             for n in range(1, 30)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert together.pace(log) == {"see": pytest.approx(0.02), "act": pytest.approx(0.05)}
    assert together.pace(tmp_path / "none") == {}


def test_recipes_of_the_run_are_whole_recipes(together, tmp_path):
    given = plan(together, tmp_path)
    seed = load_file(TrainingConfig, together.changed(given, together.TINY, tmp_path / "seed.yaml", 9, None, 2))
    before = load_file(TrainingConfig, together.TINY)
    assert seed == dataclasses.replace(before, seed=9, workers=2)
    for suite in together.SUITES.values():
        found = load_file(TrainingConfig, together.changed(given, suite.recipe, tmp_path / "suite.yaml", None, [5, 6, 7], 3))
        assert [stage.steps for stage in found.stages] == [5, 6, 7] and found.workers == 3
    on_cpu = plan(together, tmp_path, device="cpu")
    found = load_file(TrainingConfig, together.changed(on_cpu, together.TINY, tmp_path / "cpu.yaml", 7, None, 1))
    assert found.precision == "float32"


@pytest.fixture
def trained(together, tmp_path, monkeypatch):
    """Runs everything with verbs that end with the given statuses; returns the exit status and the verbs that were called."""
    def run(*words, decoded=0, **statuses):
        def call(command, **_streams):
            called.append(command[3])
            return statuses.get(command[3], 0)

        called = []
        process = types.SimpleNamespace(start=lambda: None, join=lambda: None, exitcode=decoded)
        context = types.SimpleNamespace(Process=lambda **_given: process)
        monkeypatch.setattr(together.subprocess, "call", call)
        monkeypatch.setattr(together.multiprocessing, "get_context", lambda _way: context)
        monkeypatch.setattr(together, "decode", lambda *_given: None)
        monkeypatch.setattr("hybridvla_sim.tasks.blocks.dataset.write_dataset", lambda *_given, **_more: None)
        return together.main([str(tmp_path / "out"), "--steps", "1", "1", "1", *words]), called
    return run


@pytest.mark.parametrize("statuses, named, calls", [
    ({}, [], 6), ({"demonstrate": 3}, ["suite/data: demonstrate failed (3); see "], 5),
    ({"train": 1}, ["suite/train/train: train failed (1)", "seed7/train: train failed (1)"], 3),
    ({"evaluate": -9}, ["seed7/evaluate: evaluate failed (-9)"] * 3, 6),
    ({"decoded": 1}, ["suite: the pictures could not be decoded (1)"], 6)])
def test_what_fails_is_named_at_the_end_and_costs_no_other_training(trained, capsys, statuses, named, calls):
    status, called = trained("--seeds", "7", "--suites", "suite", **statuses)
    said = capsys.readouterr().err
    assert status == bool(named) and len(called) == calls
    assert said.count("together: ") == len(named) and all(words in said for words in named)


def test_a_thread_that_dies_is_named(trained, capsys):
    status, _ = trained("--seeds", "7", "7", "--suites")
    assert status == 1 and "together: seed7: FileExistsError: " in capsys.readouterr().err


def test_a_folder_that_holds_something_is_refused(trained, tmp_path, capsys):
    (tmp_path / "out/seed7").mkdir(parents=True)
    with pytest.raises(SystemExit) as refused:
        trained("--seeds", "7", "--suites")
    assert refused.value.code == 2 and "is no empty folder; name a new one" in capsys.readouterr().err
