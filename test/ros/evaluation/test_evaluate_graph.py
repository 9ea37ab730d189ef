"""`hybridvla evaluate --ros`: rig, policy and filter of each task on their own master, and the fields of the evaluation."""
from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from hybridvla_core.paths import ROOT

pytestmark = [pytest.mark.ros, pytest.mark.long]


def evaluate(folder, *arguments):
    """Return the result, and what was printed."""
    out = folder / "result.json"
    done = subprocess.run([sys.executable, "-m", "hybridvla_cli", "evaluate", "--ros", *arguments, "--json", str(out), "--logs",
                           str(folder / "logs")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=900,
                          check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


def test_the_shipped_checkpoint_on_blocks_and_the_same_command_goes_on(tmp_path):
    command = ("--checkpoint", str(ROOT / "checkpoints" / "tiny"), "--episodes", "2", "--switch-episodes", "1", "--page",
               str(tmp_path / "page.html"))
    found, _ = evaluate(tmp_path, *command)
    assert found["task"] == "blocks" and found["episodes"] == 2 and found["successes"] >= 1
    assert [row["seed"] for row in found["rows"]] == [2_000_001, 2_000_002] and found["switched"]["episodes"] == 1
    assert all(row["predictions"] >= 3 and 0.0 < row["confidence"] <= 1.0 and row["time"] > 1.0 for row in found["rows"])
    assert found["limit_violations"] == 0 and found["prediction_ms"]["median"] > 0 and found["filter_tick_ms"]["median"] > 0
    assert "blocks" in (tmp_path / "page.html").read_text()
    shutil.rmtree(str(tmp_path / "logs"))
    again, said = evaluate(tmp_path, *command)
    assert again == found and "blocks with the same settings; kept" in said and not (tmp_path / "logs").exists()   # not launched


def test_the_experts_of_two_dual_arm_tasks_one_launch_after_the_other(tmp_path):
    found, _ = evaluate(tmp_path, "--expert", "--rig", "agilex", "--tasks", "lift_ball_and_place", "two_arm_pick_and_place",
                        "--variation", "light", "--episodes", "1")
    assert set(found["tasks"]) == {"lift_ball_and_place", "two_arm_pick_and_place"} and found["variation"] == "light"
    assert found["checkpoint"] == "expert" and found["mean_success_rate"] >= 0.5
    assert all(summary["limit_violations"] == 0 and summary["predictions"] for summary in found["tasks"].values())


def test_the_expert_of_a_single_arm_task_is_told_both_sentences_of_a_scene(tmp_path):
    found, _ = evaluate(tmp_path, "--expert", "--task", "wine_at_rack", "--episodes", "0", "--language-scenes", "1")
    assert found["language"]["scenes"] == 1 and found["episodes"] == 2 and found["successes"] >= 1
    assert len({row["instruction"] for row in found["rows"]}) == 2 and len({row["seed"] for row in found["rows"]}) == 1
