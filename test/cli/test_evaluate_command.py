"""`hybridvla evaluate` with several tasks: what cannot be evaluated is named, and is no failure of the policy."""
import json

import pytest

from hybridvla_cli import evaluate
from hybridvla_cli.__main__ import main
from hybridvla_core.checkpoints.manifest import write_manifest_of
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_sim import tasks
from hybridvla_sim.experts import ExpertPolicy

CONFIG, _ = load_configs(ROOT / "config/policies/suite.yaml", ROOT / "config/robots/sim_fr3.yaml", "diffusion")
TINY = str(ROOT / "checkpoints" / "tiny")


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint of two tasks whose policy is the tasks' own expert, with two cameras."""
    sentences = [text for name in ("close_fridge", "phone_on_base") for text in tasks.load(name).instructions()]
    write_manifest_of(tmp_path, (), {"instructions": sentences})
    monkeypatch.setattr(evaluate, "load_policy", lambda folder, mode: ExpertPolicy(CONFIG.convention, ("front", "wrist")))
    return str(tmp_path)


def test_several_tasks_have_a_summary_each_and_a_mean(checkpoint, tmp_path):
    out = tmp_path / "result.json"
    assert main(["evaluate", "--checkpoint", checkpoint, "--tasks", "close_fridge", "phone_on_base", "--episodes", "1", "--mode",
                 "diffusion", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert set(found["tasks"]) == {"close_fridge", "phone_on_base"} and found["mean_success_rate"] == 1.0
    assert all(summary["episodes"] == 1 and summary["limit_violations"] == 0 for summary in found["tasks"].values())


def test_a_variation_is_named_in_the_result(checkpoint, tmp_path):
    out = tmp_path / "result.json"
    assert main(["evaluate", "--checkpoint", checkpoint, "--task", "close_fridge", "--episodes", "1", "--mode", "diffusion",
                 "--variation", "light", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["variation"] == "light" and found["successes"] == 1


@pytest.mark.parametrize("arguments, words", [
    (["--tasks", "close_box"], "was not trained for task close_box: its data had sentences as"),
    (["--tasks", "all"], "was not trained for task blocks"),
    (["--task", "fly"], "there is no task 'fly'; the tasks are blocks, close_box"),
    (["--task", "tray"], "task 'tray' is for the piper rig, and this is the fr3 rig"),
    (["--task", "close_fridge", "--variation", "weather"], "no variation 'weather'"),
    (["--task", "close_fridge", "--seed", "1000000"], "seeds up to 1000000 belong to training"),
    (["--rig", "agilex", "--tasks", "hold_and_wipe"], "was not trained for task hold_and_wipe")])
def test_what_cannot_be_evaluated_is_named(checkpoint, capsys, arguments, words):
    assert main(["evaluate", "--checkpoint", checkpoint, "--episodes", "1", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_the_shipped_checkpoint_knows_blocks_alone(capsys):
    assert main(["evaluate", "--checkpoint", TINY, "--task", "phone_on_base", "--episodes", "1"]) == 1
    assert "was not trained for task phone_on_base but for blocks" in capsys.readouterr().err
