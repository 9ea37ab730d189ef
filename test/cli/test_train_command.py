"""`hybridvla train`: from nothing to a checkpoint with one command, fine-tuning with another, and what is refused."""
from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import toy_data
import yaml
from small_models import tiniest

from hybridvla_cli import evaluate
from hybridvla_cli.__main__ import main
from hybridvla_cli.train_parts import general
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import LARGEST_TRAINING_SEED
from hybridvla_core.paths import ROOT
from hybridvla_core.training.hybrid.config import DemonstrationConfig
from hybridvla_ros.recording import locks

CONFIGS = sorted((ROOT / "config/training").glob("*.yaml"))


def recipe(folder, name="tiny_smoke", **changes):
    values = yaml.safe_load((ROOT / f"config/training/{name}.yaml").read_text())
    path = folder / f"{name}_short.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return str(path)


@pytest.mark.long
def test_one_command_makes_data_trains_and_writes_a_checkpoint_that_another_goes_on_from(tmp_path):
    stages = [dict(name="see", train="towers", steps=1, learning_rate=1e-3, terms=["patches"]),
              dict(name="act", train="full", steps=2, learning_rate=1e-3)]
    config = recipe(tmp_path, batch=4, labels=2, stages=stages, demonstrations=dict(task="blocks", frames=20, labels=2, seed=3),
                    validation_frames=2)
    first = tmp_path / "first"
    assert main(["train", "--config", config, "--work", str(first), "--json", str(tmp_path / "result.json")]) == 0
    made = LeRobotDataset(first / "data/blocks")
    assert made.moments().tolist() == [frame // 2 for frame in range(20)], "two sentences a picture"
    named = made.sample(0).grounding
    assert len(named) == 2 and made.sample(0).instruction[slice(*named[0].spans[0])].endswith("block")
    assert any(len(made.sample(i).grounding[0].patches["front"]) for i in range(len(made)))
    checkpoint = read_checkpoint(first / "checkpoint")
    assert not list(tmp_path.rglob("*partial*"))
    assert json.loads((tmp_path / "result.json").read_text())["manifest_sha256"] == checkpoint.manifest_sha256
    config = recipe(tmp_path, "finetune", batch=4, workers=0, stages=[dict(stages[1], name="tune")])
    assert main(["train", "--config", config, "--init", str(first / "checkpoint"), "--data", str(first / "data/blocks"),
                 "--work", str(tmp_path / "second"), "--out", str(tmp_path / "tuned")]) == 0
    tuned = read_checkpoint(tmp_path / "tuned")
    assert tuned.manifest["provenance"]["init"] == checkpoint.manifest_sha256 and tuned.statistics == checkpoint.statistics


@pytest.mark.long
@pytest.mark.skipif(sys.version_info < (3, 9), reason="several processes need torch 2.6")
@pytest.mark.parametrize("task, words", [("blocks", ""), ("tray", "task tray makes no data set by itself")])
def test_several_processes_make_the_data_set_once_and_tell_a_failure_once(tmp_path, task, words):
    config = recipe(tmp_path, batch=4, labels=2, stages=[dict(name="act", train="full", steps=1, learning_rate=1e-3)],
                    demonstrations=dict(task=task, frames=20, labels=2, seed=3), validation_frames=0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "hybridvla_cli"]
    done = subprocess.run([*launcher, "train", "--config", config, "--work", str(tmp_path / "work"), "--threads", "1"],
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    said = done.stdout.decode()
    if words:
        assert done.returncode and said.count(words) == 1, said
        return
    assert done.returncode == 0, said
    assert said.count("demonstrations: 100%") == 1 and len(LeRobotDataset(tmp_path / "work/data/blocks")) == 20
    read_checkpoint(tmp_path / "work/checkpoint")


def test_a_data_set_of_other_demonstrations_is_not_taken_for_the_recipes(tmp_path, capsys):
    made = dict(task="blocks", frames=4, labels=2, seed=3, validation=0.25)
    work, wanted = tmp_path / "work", DemonstrationConfig(**made)
    folder = toy_data.write(work / "data/blocks", episodes=2, frames=2)
    notes = json.loads((folder / layout.OURS).read_text())
    (folder / layout.OURS).write_text(json.dumps({**notes, "made_with": dataclasses.asdict(wanted)}))
    for changes, words in ((dict(frames=600), "frames 4, now 600"), (dict(seed=4, even_phases=True),
                                                                     "seed 3, now 4, even_phases False, now True")):
        assert main(["train", "--config", recipe(tmp_path, demonstrations={**made, **changes}), "--work", str(work)]) == 1
        said = capsys.readouterr().err
        assert f"{folder}: was made by a recipe with other demonstrations ({words}); remove that folder, or" in said
        assert said.count("\n") == 1 and not (work / "checkpoint").exists()
    assert general.demonstrations(wanted, work) == (folder,)
    (folder / layout.OURS).write_text(json.dumps(notes))       # as older versions left it
    assert general.demonstrations(dataclasses.replace(wanted, frames=600), work) == (folder,)


def test_a_second_run_in_a_work_folder_is_refused_and_harms_nothing(tmp_path, capsys, monkeypatch):
    plain(monkeypatch)
    config = recipe(tmp_path, preset="plain", batch=4, grounding={}, validation_frames=0,
                    stages=[dict(name="act", train="full", steps=1, learning_rate=1e-3)])
    half, work = tmp_path / "work/state/.step-000000002-stage-0", tmp_path / "work"
    command = ["train", "--config", config, "--data", str(toy_data.write(tmp_path / "toy")), "--work", str(work)]
    half.mkdir(parents=True)
    first = locks.OnlyUser(work / "run")
    assert main(command) == 1
    said = capsys.readouterr().err
    assert f"{work}: another run is in it (process {os.getpid()} on " in said and said.count("\n") == 1
    assert "wait for its end, or give another --work folder" in said and half.is_dir() and not (work / "checkpoint").exists()
    first.release()
    assert main(command) == 0 and not half.exists()

    def none_here(*_):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(locks.fcntl, "flock", none_here)
    assert main(command) == 0, "a file system without locks, in which nobody else is"


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_recipe_can_be_read(path):
    from hybridvla_core.training.hybrid.config import read_recipe

    read_recipe(path)


@pytest.mark.parametrize("change, words", [
    (lambda values: values.pop("recipe"), "own.yaml: names no recipe; write recipe: hybrid"),
    (lambda values: values.update(recipe=None), "own.yaml: names no recipe; write recipe: hybrid"),
    (lambda values: values.update(recipe="tiny"), "own.yaml: recipe is 'tiny'; write recipe: hybrid"),
    (lambda values: (values.clear(), values.update(preset="tiny", tower={"steps": 1}, policy={"steps": 1})),
     "names no recipe.*those of an earlier recipe, such as tower and policy, no longer exist")])
def test_a_file_without_a_known_recipe_is_refused_as_that_before_anything_is_made(tmp_path, capsys, change, words):
    values = yaml.safe_load((ROOT / "config/training/tiny_smoke.yaml").read_text())
    change(values)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    assert main(["train", "--config", str(tmp_path / "own.yaml"), "--work", str(tmp_path / "work")]) == 1
    said = capsys.readouterr().err
    assert re.search(words, said) and said.count("\n") == 1 and not (tmp_path / "work").exists()


@pytest.mark.parametrize("arguments, words", [
    ([], "give a recipe with --config, or a checkpoint to fine-tune with --init"),
    (["--config", str(ROOT / "config/training/finetune.yaml")], "no data set is given; name its folder with --data"),
    (["--config", str(ROOT / "config/training/tiny_smoke.yaml"), "--data", "/nowhere"], "/nowhere/meta/info.json"),
    (["--config", str(ROOT / "config/training/finetune.yaml"), "--data", "SET"], "a preset of its configuration or from --init"),
    (["--init", str(ROOT / "checkpoints/tiny"), "--data", "SET", "SET"], "SET: is given twice"),
    (["--init", str(ROOT / "checkpoints/tiny"), "--data", "SET", "WRIST"],
     "SET and .*WRIST: both data sets are named toy; write one under a name of its own with `hybridvla dataset merge .*WRIST -o"),
    (["--init", str(ROOT / "checkpoints/tiny"), "--data", "SET"], "outside the statistics of .*write statistics: data"),
    (["--init", str(ROOT / "checkpoints/tiny"), "--data", "WRIST"], "has no view front; it has wrist"),
    (["--init", str(ROOT / "checkpoints/tiny"), "--data", "CLOSED"], "gripper_sense is 'one_is_closed' and 'one_is_open'"),
    (["--config", str(ROOT / "config/training/tiny_smoke.yaml"), "--data", "SILENT"], "does not say what its actions mean"),
    (["--config", str(ROOT / "config/training/tiny_smoke.yaml"), "--data", "SET"], "in 2 rows of 2; the model sees 64"),
    (["--config", str(ROOT / "config/training/tiny_smoke.yaml"), "--data", "EIGHT", "--mixture",
      str(ROOT / "config/mixtures/oxe_35.yaml")], "names no weight for toy"),
    (["--config", str(ROOT / "config/training/tiny_smoke.yaml"), "--data", "SHARDS"], "SHARDS: .npz shards belong to a recipe"),
])
def test_what_does_not_fit_is_one_sentence(tmp_path, capsys, arguments, words):
    (tmp_path / "SHARDS").mkdir()
    (tmp_path / "SHARDS/base-000001.npz").touch()
    makes = {"SET": {}, "WRIST": dict(views={"wrist": (32, 32)}), "SILENT": dict(convention=None), "EIGHT": dict(grid=8),
             "CLOSED": dict(convention={**toy_data.describe().convention, "gripper_sense": "one_is_closed"})}
    for name in set(arguments) & set(makes):
        toy_data.write(tmp_path / name, **makes[name])
    given = [str(tmp_path / argument) if argument in {*makes, "SHARDS"} else argument for argument in arguments]
    assert main(["train", *given, "--work", str(tmp_path / "work")]) == 1
    assert re.search(words, capsys.readouterr().err), words
    assert not (tmp_path / "work/checkpoint").exists()


@pytest.mark.parametrize("options, words", [
    (["--out", "."], "the folder that this was started in"),
    (["--out", "work"], "is the work folder"),
    (["--released", "."], "the folder that this was started in"),
    (["--released", "work"], "is the work folder"),
    (["--released", "mine"], "already there"),
    (["--released", "work/checkpoint"], "is the folder of --out"),
    (["--released", "out/released", "--out", "out"], "holds the folder of --released"),
    (["--released", "released", "--out", "released/out"], "holds the folder of --out"),
])
def test_where_a_result_cannot_be_written_is_said_before_a_data_set_is_made(tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    assert main(["train", "--config", str(ROOT / "config/training/tiny_smoke.yaml"), "--work", "work", *options]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "choose another" in said
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "notes.txt"]


@pytest.mark.parametrize("option, changes, words", [
    ("--released", {}, "--released .*: the released layout has no norm after towers or projector"),
    ("--released", dict(preset="plain", sequence=4), "only sequence 1"),
    ("--released", dict(preset="plain", objective=dict(diffusion=0.0)), "parts are untrained, and final_layer"),
    ("--evaluate-every", dict(objective=dict(diffusion=0.0)), "--evaluate-every: no stage of the recipe trains diffusion")])
def test_what_could_only_fail_behind_the_steps_is_refused_before_data_are_made(tmp_path, capsys, monkeypatch, option, changes,
                                                                               words):
    plain(monkeypatch)
    config = recipe(tmp_path, **{"grounding": {}, "stages": [dict(name="act", train="full", steps=2)], **changes})
    value = str(tmp_path / "released") if option == "--released" else "1"
    assert main(["train", "--config", config, "--work", str(tmp_path / "work"), option, value]) == 1
    said = capsys.readouterr().err
    assert re.search(words, said) and said.count("\n") == 1 and "leave the option out" in said
    assert not (tmp_path / "work").exists()


def test_a_run_that_trains_one_path_is_evaluated_in_its_mode_to_its_end(tmp_path, monkeypatch):
    modes = []

    def run_suite(factory, config, robot, task, specs, processes, progress):
        modes.append((factory().mode.name, config.inference_mode.name))
        return []

    plain(monkeypatch)
    monkeypatch.setattr("hybridvla_sim.suite.run_suite", run_suite)
    toy_data.write(tmp_path / "toy")
    for name, changes in (("both", {}), ("one", dict(objective=dict(tokens=0.0)))):
        config = recipe(tmp_path, preset="plain", batch=4, grounding={}, validation_frames=0, **changes,
                        stages=[dict(name="act", train="full", steps=2, learning_rate=1e-3)])
        assert main(["train", "--config", config, "--data", str(tmp_path / "toy"), "--work", str(tmp_path / name),
                     "--evaluate-every", "1", "--evaluate-episodes", "1"]) == 0
    assert modes == [("ENSEMBLE", "ENSEMBLE")] * 2 + [("DIFFUSION", "DIFFUSION")] * 2


def plain(monkeypatch):
    """Adds `plain`, a preset that the released layout can hold."""
    from hybridvla_core.model import presets

    monkeypatch.setitem(presets.PRESETS, "plain", lambda *wanted, **named: dataclasses.replace(
        tiniest(*wanted, **named), tower_norm=False, projector_norm=False))


def test_the_released_layout_is_written_once_the_last_step_is_done(tmp_path, capsys, monkeypatch):
    from hybridvla_core.checkpoints.released import find_weights

    plain(monkeypatch)

    def failing(*_):
        raise HybridVLAError("no room")

    config = recipe(tmp_path, preset="plain", batch=4, stages=[dict(name="act", train="full", steps=2, learning_rate=1e-3)],
                    grounding={}, validation_frames=0)
    toy_data.write(tmp_path / "toy")
    command = ["train", "--config", config, "--data", str(tmp_path / "toy"), "--work", str(tmp_path / "work"), "--released",
               str(tmp_path / "released")]
    assert main([*command, "--seconds", "1e-9"]) == 0 and not (tmp_path / "released").exists()
    monkeypatch.setattr("hybridvla_core.checkpoints.released_layout.write_released", failing)
    assert main([*command, "--json", str(tmp_path / "result.json")]) == 1 and "no room" in capsys.readouterr().err
    assert json.loads((tmp_path / "result.json").read_text())["finished"], "the run is done, and its result is written"
    monkeypatch.undo()
    plain(monkeypatch)
    assert main(command) == 0 and find_weights(tmp_path / "released").is_file()
    assert main(command) == 1 and "already there" in capsys.readouterr().err


def test_a_run_judges_its_checkpoints_in_scenes_that_no_evaluation_begins_with(tmp_path, monkeypatch):
    seen = []

    def run_suite(factory, config, robot, task, specs, processes, progress):
        seen.extend(spec.seed for spec in specs)
        return [{"seed": spec.seed, "task": spec.goal, "success": True, "time": 1.0, "keyframes": 1, "violations": 0,
                 "counters": {}, "tick_ms": [], "decisions": []} for spec in specs]
    monkeypatch.setattr("hybridvla_sim.suite.run_suite", run_suite)
    monkeypatch.setattr("hybridvla_core.policy.predictor.Policy.from_checkpoint",
                        lambda folder, mode: SimpleNamespace(cameras=("front", "wrist")))
    asked = argparse.Namespace(evaluate_every=1, rig="fr3", task="close_fridge", variation="", evaluate_episodes=3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert general._evaluation(asked, "ensemble")(tmp_path)["successes"] == 3
        assert torch.get_num_threads() == 3, "a policy takes one, and the steps behind it would round otherwise"
    finally:
        torch.set_num_threads(before)
    final = argparse.ArgumentParser()
    evaluate.add_parser(final.add_subparsers())
    first = final.parse_args(["evaluate", "--checkpoint", "x"]).seed
    assert len(seen) == 3 and min(seen) > LARGEST_TRAINING_SEED and min(abs(seed - first) for seed in seen) > 1_000_000
