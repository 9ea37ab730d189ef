"""What `scripts/anywhere/together.py` decides by itself: recipes, and how many steps fit into the remaining time."""
import dataclasses
import importlib.util
import json
import sys
import time
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
