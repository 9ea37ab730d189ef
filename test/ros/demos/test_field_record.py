"""`make field-training` without its long steps: what it counts, what it leaves out, what it says."""
from __future__ import annotations

import json
import os
import subprocess

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


def test_steps_whose_results_are_there_are_left_out(tmp_path):
    for name in ("recorded", "dataset", "checkpoint"):
        (tmp_path / name).touch()
    for name, successes, interval in (("before", 4, [0.081, 0.416]), ("after", 45, [0.786, 0.957])):
        (tmp_path / f"{name}.json").write_text(json.dumps(
            {"successes": successes, "episodes": 20 if name == "before" else 50, "interval": interval}))
    done = subprocess.run([str(ROOT / "scripts/field_training.sh")], env={**os.environ, "FIELD_OUT": str(tmp_path)}, text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if " is there " in line] == [
        "record", "from-bags", "before", "train", "after"]
    assert "after: 45 of 50 successful (95 % interval 0.786 to 0.957)" in done.stdout
    assert not (tmp_path / "times.txt").exists()
