"""Where a run writes its checkpoint: what is refused before the first step, what is replaced, what an interruption leaves."""
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import toy_data
from safetensors.torch import load_file

from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.checkpoints.weights import WEIGHTS
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.training.hybrid.export import gather
from hybridvla_core.training.hybrid.run import Request, train

STAGES = [dict(name="act", steps=1, train="full", learning_rate=1e-3)]


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    toy_data.add_preset(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with a data set and a checkpoint that was trained on it."""
    with pytest.MonkeyPatch.context() as patch:
        toy_data.add_preset(patch)
        folder = tmp_path_factory.mktemp("made")
        toy_data.write(folder / "data/toy")
        go(folder, folder / "checkpoint")
    shutil.rmtree(folder / "work")
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """Return a copy of that folder; the working directory is the folder in which the run is started."""
    shutil.copytree(made, tmp_path / "lab")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "lab"


def go(folder, out, seed=3, export="float16", confidence_window_bins=None, **changes):
    config = toy_data.config(stages=STAGES, seed=seed, export=export, confidence_window_bins=confidence_window_bins)
    return train(Request(config, (folder / "data/toy",), folder / "work", out, threads=1, **changes))


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def mine(folder):
    folder.mkdir()
    (folder / "mine.txt").write_text("x")


def beside_a_checkpoint(folder):
    shutil.copytree(folder.parent / "checkpoint", folder)
    (folder / "notes.md").write_text("x")


def without_manifest(folder):
    shutil.copytree(folder.parent / "checkpoint", folder)
    (folder / "MANIFEST.json").unlink()


def named_as_a_file(folder):
    shutil.copytree(folder.parent / "checkpoint", folder)
    (folder / "config.json").unlink()
    mine(folder / "config.json")


@pytest.mark.parametrize("out, make, words", [
    ("work", None, "is the work folder"),
    ("work", mine, "is the work folder"),
    (".", None, "holds the work folder"),
    ("..", None, "holds the folder that this was started in"),
    ("../here", None, "is the folder that this was started in"),
    ("data/toy", None, "is a data set"),
    ("data", None, "holds a data set"),
    ("link", lambda link: link.symlink_to(link.parent / "data"), "holds a data set"),
    ("checkpoint", None, "is the checkpoint of --init"),
    ("work/state", None, "is the run's own"),
    ("work/evaluations", None, "is the run's own"),
    ("full", mine, "mine.txt"),
    ("full", beside_a_checkpoint, "already there, with notes.md;"),
    ("full", without_manifest, "already there, with config.json, .*tokenizer.json;"),
    ("full", named_as_a_file, "already there, with config.json;"),
    ("file", lambda file: file.write_text("x"), "already there"),
])
def test_a_folder_that_would_be_lost_is_refused_before_the_first_step(place, out, make, words):
    if make is not None:
        make(place / out)
    before = tree(place)
    with pytest.raises(HybridVLAError, match=f"{words}.*choose another") as caught:
        go(place, place / out, init=place / "checkpoint")
    assert "\n" not in str(caught.value) and tree(place) == before


def test_the_folder_that_the_run_is_started_in_is_refused_by_its_short_name(place):
    with pytest.raises(HybridVLAError, match=r"^\.: is the folder that this was started in"):
        go(place, Path("."))


def test_a_new_and_an_empty_folder_are_filled_and_the_empty_one_stays_itself(place):
    (place / "empty").mkdir()
    number = (place / "empty").stat().st_ino
    for out in (place / "new/deep", place / "empty"):
        assert go(place, out)["manifest_sha256"] == read_checkpoint(out).manifest_sha256
    assert (place / "empty").stat().st_ino == number
    go(place, place / "empty")
    assert sorted(tree(place / "empty")) == sorted(tree(place / "checkpoint"))


@pytest.mark.parametrize("kind", ["folder", "link", "disk"])
def test_a_checkpoint_alone_is_replaced_and_nothing_of_it_is_left(place, kind):
    out = old = place / "old"
    shutil.copytree(place / "checkpoint", old)
    if kind == "link":
        out = place / "link"
        out.symlink_to(old)
    elif kind == "disk":                   # an entry of a disk's root: the folder cannot be renamed
        (old / "lost+found").mkdir()
    before = read_checkpoint(old).manifest_sha256
    result = go(place, out, seed=4)
    assert read_checkpoint(out).manifest_sha256 == result["manifest_sha256"] != before
    assert out.is_symlink() == (kind == "link") and (old / "lost+found").is_dir() == (kind == "disk")
    assert not [name for name in tree(place) if "partial" in name]


def test_what_somebody_else_put_there_meanwhile_stays(place):
    out = place / "old"
    shutil.copytree(place / "checkpoint", out)

    def evaluate(_):
        (out / "theirs.txt").write_text("x")
        return {}

    with pytest.raises(HybridVLAError, match="already there, with theirs.txt"):
        go(place, out, seed=4, evaluate=evaluate, evaluate_every=1)
    assert (out / "theirs.txt").read_text() == "x" and (out / WEIGHTS).is_file()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(16, "Device or resource busy")], ids=["ctrl-c", "busy"])
@pytest.mark.parametrize("at", [1, 2])
def test_an_interruption_leaves_a_whole_checkpoint_and_the_same_command_ends_it(place, monkeypatch, at, error):
    out = place / "old"
    shutil.copytree(place / "checkpoint", out)
    rename, calls = os.rename, []

    def fails(old, new):
        if Path(old).parent == place:
            calls.append(new)
            if len(calls) >= at:
                raise error
        return rename(old, new)

    monkeypatch.setattr("hybridvla_core.checkpoints.target.os.rename", fails)
    with pytest.raises((KeyboardInterrupt, HybridVLAError)) as caught:
        go(place, out, seed=4)
    assert len(calls) >= at
    whole = [folder for folder in place.glob("old*") if (folder / "MANIFEST.json").is_file() and read_checkpoint(folder)]
    assert len(whole) == 2, "the earlier one and the new one"
    if isinstance(caught.value, HybridVLAError):
        assert "nothing is lost" in str(caught.value)
    monkeypatch.undo()
    toy_data.add_preset(monkeypatch)
    result = go(place, out, seed=4)
    assert read_checkpoint(out).manifest_sha256 == result["manifest_sha256"] and len(list(place.glob("old*"))) == 1


def test_a_checkpoint_names_the_tasks_of_its_data_where_every_episode_does(place):
    notes = place / "data/toy/meta/hybridvla.json"
    ours = json.loads(notes.read_text())
    for number, episode in enumerate(ours["episodes"]):
        episode["source"] = f"{('close_box', 'blocks')[number % 2]}, seed {number}, driven"
    notes.write_text(json.dumps(ours))
    go(place, place / "told")
    provenance = read_checkpoint(place / "told").manifest["provenance"]
    assert provenance["tasks"] == ["blocks", "close_box"] and provenance["instructions"]
    shutil.rmtree(place / "work")
    ours["episodes"][0]["source"] = "2026-11-28 a bag of the lab"
    notes.write_text(json.dumps(ours))
    go(place, place / "untold")
    assert "tasks" not in read_checkpoint(place / "untold").manifest["provenance"]


def test_a_weight_that_is_too_large_for_float16_is_named_and_the_same_run_goes_on_in_bfloat16(place, monkeypatch):
    def large(*arguments):
        tensors = gather(*arguments)
        tensors["final_layer.mlp.fc2.bias"] += 1e6
        return tensors

    monkeypatch.setattr("hybridvla_core.training.hybrid.run.gather", large)
    out = place / "new"
    with pytest.raises(HybridVLAError, match="final_layer.mlp.fc2.bias: as torch.float16 it would hold .* write export: bfloat16 "
                                             "into the recipe, and the same command goes on") as caught:
        go(place, out)
    assert str(caught.value).startswith(f"{out}: ") and "--dtype" not in str(caught.value) and not out.exists()
    steps = sorted((place / "work/state").iterdir())
    assert go(place, out, export="bfloat16")["finished"] and sorted((place / "work/state").iterdir()) == steps
    assert float(load_file(str(out / WEIGHTS))["final_layer.mlp.fc2.bias"].min()) > 9e5


def test_another_window_of_confidence_is_written_by_the_same_run_also_if_an_older_version_began_it(place):
    out, state = place / "narrow", place / "work/state"
    go(place, out, confidence_window_bins=4)
    steps = sorted(state.iterdir())
    for step in steps:      # an older version held the window for a part of the run
        meta = json.loads((step / "run.json").read_text())
        meta["origin"]["configuration"]["confidence_window_bins"] = 4
        (step / "run.json").write_text(json.dumps(meta))
    assert go(place, place / "wide", confidence_window_bins=12)["finished"] and sorted(state.iterdir()) == steps
    assert read_checkpoint(out).config.ensemble.confidence_window_bins == 4
    assert read_checkpoint(place / "wide").config.ensemble.confidence_window_bins == 12
    assert (out / WEIGHTS).read_bytes() == (place / "wide" / WEIGHTS).read_bytes()
