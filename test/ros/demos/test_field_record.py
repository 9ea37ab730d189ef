"""`make field-training` without its long steps: what it counts, what it leaves out, what it says."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from unittest import mock

import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.demos import command, field_record
from hybridvla_ros.demos.command import carry_out
from hybridvla_ros.recording.config import RecordingConfig


def test_only_complete_bags_of_successful_demonstrations_count(tmp_path):
    for number, (complete, label) in enumerate([(True, "success"), (True, "failure"), (False, "success"), (True, "success")]):
        (tmp_path / f"{number}.json").write_text(json.dumps({"complete": complete, "label": label}))
    assert field_record.recorded(tmp_path) == 2 and field_record.sidecars(tmp_path) == 4
    field_record.wait_for(tmp_path, 4)


def test_a_run_goes_on_with_the_next_scene(tmp_path):
    assert field_record.first_scene(tmp_path) == 0
    (tmp_path / field_record.SCENES).write_text('{"seed": 4001}\n{"seed": 4002}\n')
    assert field_record.first_scene(tmp_path) == 2


def test_a_scene_whose_line_was_cut_off_is_not_used_again_nor_the_one_after_it(tmp_path, monkeypatch):
    def episode(seed, _instruction):
        used.append(seed)
        (tmp_path / f"bags/{seed}.json").write_text('{"complete": true, "label": "success"}')
        return "success"

    used = []
    monkeypatch.setattr(field_record, "Graph", mock.MagicMock())
    monkeypatch.setattr(field_record, "Operator", lambda: mock.Mock(episode=episode))
    (tmp_path / field_record.SCENES).write_text('{"seed": 4001}\n{"seed": 40')
    for episodes in (1, 2):
        field_record.run(tmp_path, episodes, "blocks", "", 4001)
    assert used == [4003, 4004] and field_record.first_scene(tmp_path) == 4


def test_scenes_that_are_all_used_end_it_with_a_sentence_before_anything_starts(tmp_path, monkeypatch, capsys):
    (tmp_path / "bags").mkdir()
    (tmp_path / field_record.SCENES).write_text('{"seed": 1}\n' * 10)
    monkeypatch.setattr("sys.argv", ["field_record", "--out", str(tmp_path), "--episodes", "1"])
    monkeypatch.setattr(field_record, "Graph", None)
    monkeypatch.setattr(command, "leave_on_signals", lambda: None)
    assert field_record.main() == 1
    said = capsys.readouterr().err
    assert "all 10 scenes from seed 4001 on were used, and 0 demonstrations are recorded" in said and "--seed" in said


def test_the_demos_end_alike_with_a_sentence_and_a_status(monkeypatch, capsys):
    monkeypatch.setattr(command, "leave_on_signals", lambda: None)

    def raises(error):
        raise error

    assert carry_out("demo", lambda: 3) == 3 and capsys.readouterr().err == ""
    assert carry_out("demo", lambda: raises(HybridVLAError("no port is free"))) == 1
    assert capsys.readouterr().err == "demo: no port is free\n"
    assert carry_out("rigs", lambda: raises(KeyboardInterrupt()), "go on") == 130
    assert capsys.readouterr().err == "rigs: interrupted; go on\n"


def test_recording_and_robot_bear_a_simulation_that_stands_still(tmp_path):
    recording, robot = field_record._configurations(tmp_path, tmp_path / "bags")
    settings = load_file(RecordingConfig, recording)
    assert settings.folder == str(tmp_path / "bags")
    assert min(topic.max_gap_s for topic in settings.topics if topic.max_gap_s) == field_record.LONGEST_SILENCE_S
    ours, shipped = load_file(RobotConfig, robot), load_file(RobotConfig, field_record.ROBOT)
    assert ours.watchdogs.joint_state_s == field_record.STANDSTILL_S and ours.arms == shipped.arms


def field_training(out, bin_folder, slow="", **environment):
    """Run the script with commands that only print their arguments. slow: what the check of the processor prints."""
    bin_folder.mkdir(exist_ok=True)
    (bin_folder / "python").write_text(f'#!/bin/bash\ncase "$2" in *slowness*) echo "{slow}" ;; '
                                       f'*) exec {sys.executable} "$@" ;; esac\n')
    (bin_folder / "hybridvla").write_text('#!/bin/bash\necho "asked: $*"\n')
    for script in bin_folder.iterdir():
        script.chmod(0o755)
    return subprocess.run([str(ROOT / "scripts/field_training.sh")], text=True, capture_output=True, timeout=120, env={
        **os.environ, "FIELD_OUT": str(out), "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", **environment})


def test_steps_whose_results_are_there_are_left_out(tmp_path):
    for name in ("recorded", "dataset", "checkpoint"):
        (tmp_path / name).touch()
    for name, successes, interval in (("before", 4, [0.081, 0.416]), ("after", 45, [0.786, 0.957])):
        (tmp_path / f"{name}.json").write_text(json.dumps(
            {"successes": successes, "episodes": 20 if name == "before" else 50, "interval": interval}))
    done = field_training(tmp_path, tmp_path / "bin")
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if " is there " in line] == ["record", "from-bags", "train"]
    # The script calls evaluate: the command keeps results of the same checkpoint, and repeats those of another.
    assert [line.split()[1:4] for line in done.stdout.splitlines() if line.startswith("asked: ")] == [
        ["evaluate", "--checkpoint", "checkpoints/tiny"], ["evaluate", "--checkpoint", f"{tmp_path}/checkpoint"]]
    assert "after: 45 of 50 successful (95 % interval 0.786 to 0.957)" in done.stdout


@pytest.mark.parametrize("other", [{"FIELD_VARIATION": "light"}, {"FIELD_BAGS": "10"}])
def test_recordings_of_other_settings_are_not_mixed(tmp_path, other):
    for name in ("recorded", "dataset", "checkpoint", "before.json", "after.json"):
        (tmp_path / name).write_text(json.dumps({"successes": 1, "episodes": 2, "interval": [0.0, 1.0]}))
    assert field_training(tmp_path, tmp_path / "bin").returncode == 0
    done = field_training(tmp_path, tmp_path / "bin", **other)
    assert done.returncode == 1 and "choose another FIELD_OUT" in done.stderr and "asked:" not in done.stdout
    assert field_training(tmp_path, tmp_path / "bin").returncode == 0


@pytest.mark.parametrize("slow, begun, float32", [("it is slow", "", True), ("", "", False), ("it is slow", "work", False),
                                                  ("", "work recipe.yaml", True), ("", "recipe.yaml", False)])
def test_a_cpu_without_bfloat16_trains_in_float32_and_a_run_goes_on_as_it_began(tmp_path, slow, begun, float32):
    """`begun`: files that an earlier call left."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("recorded", "dataset", "before.json", *begun.split()):
        (out / name).write_text(json.dumps({"successes": 1, "episodes": 2, "interval": [0.0, 1.0]}))
    (out / "after.json").write_text((out / "before.json").read_text())
    done = field_training(out, tmp_path / "bin", slow)
    assert done.returncode == 0, done.stderr
    chosen, shipped = out / "recipe.yaml", "config/training/small_finetune.yaml"
    assert f"asked: train --config {chosen if float32 else shipped} --init checkpoints/tiny" in done.stdout
    assert chosen.exists() == float32
    if slow and float32:
        assert f"field-training: it is slow; {chosen} is {shipped} with precision: float32" in done.stdout
        before, after = ((ROOT / shipped).read_text().splitlines(), chosen.read_text().splitlines())
        assert [line for line in after if line not in before] == [
            line.replace("precision: bfloat16", "precision: float32") for line in before if line.startswith("precision: ")]
