"""`scripts/train_anywhere.sh`: finished work counts only for the request that it answers."""
import os
import shutil
import subprocess
import sys

import pytest

from hybridvla_core.paths import ROOT


@pytest.fixture
def finished(run, tmp_path):
    """Return the folder of a finished run."""
    out = tmp_path / "partial-runs/out"        # a parent folder named like unfinished work
    (tmp_path / "calls").write_text("demonstrate\ntrain\nevaluate close_box ensemble\n")
    found = run("suite", str(out), TRAIN_EPISODES="2")
    assert found.returncode == 0, found.stderr
    (tmp_path / "calls").write_text("")
    return out


@pytest.mark.long
def test_results_of_other_code_are_not_counted(run, calls, tmp_path, finished):
    assert run("suite", str(finished), TRAIN_EPISODES="2").returncode == 0 and not calls()
    (tmp_path / "calls").write_text("evaluate close_box ensemble\n")
    assert run("suite", str(finished), TRAIN_EPISODES="2", FAKE_ORIGIN="ba9876543210").returncode == 0
    assert calls()[1:] == ["evaluate blocks ensemble", "evaluate close_box ensemble"]
    assert len(list((finished / "evaluation").iterdir())) == 2


@pytest.mark.long
@pytest.mark.parametrize("environment, words", [
    ({"TRAIN_RECIPE": str(ROOT / "config/training/suite_gpu.yaml")}, "was begun with this recipe"),
    ({"TRAIN_INIT": "/nowhere"}, "/nowhere")])
def test_a_finished_run_is_no_answer_to_another_recipe_or_checkpoint(run, calls, tmp_path, finished, environment, words):
    shutil.rmtree(finished / "train")
    found = run("suite", str(finished), TRAIN_EPISODES="2", **environment)
    assert found.returncode == 1 and words in found.stderr and not calls()


@pytest.mark.long
def test_a_table_that_cannot_be_made_leaves_the_last_one(run, finished):
    table = (finished / "table.md").read_text()
    next((finished / "evaluation").glob("*/blocks-*.json")).write_text("{")
    assert run("suite", str(finished), TRAIN_EPISODES="2").returncode != 0
    assert table and (finished / "table.md").read_text() == table


def test_what_is_kept_below_a_folder_named_as_if_half_done_counts(run, tmp_path):
    assert run("suite", str(tmp_path / "partial-runs/out")).returncode == 75


def test_half_written_parts_do_not_count_as_kept(run, tmp_path):
    found = run("suite", str(tmp_path / "out"), FAKE_ENDS="demonstrate", FAKE_LEAVES="blocks.npz.part-7 a.pyc")
    assert found.returncode == 1 and "nothing of this slice could be kept" in found.stderr


def test_a_missing_flock_is_named(run, tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname", "nproc", "tr", "sort", "mkdir", "ls", "tail"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    found = run("suite", str(tmp_path / "out"), PATH=str(tmp_path / "bin"))
    assert found.returncode == 2 and "flock is missing" in found.stderr and "another call" not in found.stderr


@pytest.fixture
def recipe():
    """Keep a recipe as the script does."""
    def keep(*arguments):
        return subprocess.run([sys.executable, str(ROOT / "scripts/anywhere/recipe.py"), *map(str, arguments), "cpu"],
                              text=True, capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    return keep


@pytest.mark.parametrize("behind, words", [
    ("preset: tiny", ""), ("preset: tiny\ntokenizer: own.json\n", ""),
    ("\"preset\": tiny\n", "take the preset out of the recipe")])
def test_a_preset_goes_where_a_checkpoint_is_given_or_is_refused(recipe, tmp_path, behind, words):
    text = (ROOT / "config/training/suite.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text + behind)
    found = recipe(tmp_path / "own.yaml", tmp_path, "fr3", "checkpoints/tiny")
    assert found.returncode == bool(words) and words in found.stderr, found.stderr
    assert words or (tmp_path / "recipe.yaml").read_text() == text
    assert {path.name for path in tmp_path.iterdir()} == {"own.yaml"} | (set() if words else {"recipe.yaml"})
