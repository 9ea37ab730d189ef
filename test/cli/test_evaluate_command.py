"""`hybridvla evaluate` with several tasks: what cannot be evaluated is named and does not count as a failure of the policy."""
import contextlib
import dataclasses
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from hybridvla_cli import evaluate
from hybridvla_cli.__main__ import main
from hybridvla_cli.evaluate_parts import order
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.checkpoints.manifest import write_manifest_of
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.reliability import of_episodes
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_core.transforms.normalise import Normaliser
from hybridvla_sim import origin, tasks
from hybridvla_sim.experts import ExpertPolicy

CONFIG, _ = load_configs(ROOT / "config/policies/suite.yaml", ROOT / "config/robots/sim_fr3.yaml", "diffusion")
TINY = str(ROOT / "checkpoints" / "tiny")


class TellingPolicy(ExpertPolicy):
    """The expert with tokens and confidences: in every other prediction, x is off by 0.1 m with low confidence."""

    def __init__(self):
        super().__init__(CONFIG.convention, ("front", "wrist"))
        checkpoint = read_checkpoint(Path(TINY))
        self.config = checkpoint.config
        self.normaliser = Normaliser.from_json(checkpoint.statistics, self.config.statistics_key, 7, TINY)
        self.count = 0

    def predict(self, observation, mode=None, seed=0):
        found = super().predict(observation, mode, seed)
        off = self.count % 2 == 1
        self.count += 1
        tokens = found.action + [0.1 * off, 0, 0, 0, 0, 2 * np.pi, 0]       # a full turn is no error
        return dataclasses.replace(found, autoregressive=tokens, token_confidence=np.array([0.15 if off else 0.95] + [0.95] * 6),
                                   mean_confidence=0.8 if off else 0.95)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """Make a checkpoint of two tasks whose policy is the tasks' own expert, with two cameras."""
    sentences = [text for name in ("close_fridge", "phone_on_base") for text in tasks.load(name).instructions()]
    write_manifest_of(tmp_path, (), {"instructions": sentences})
    monkeypatch.setattr(evaluate, "load_policy", lambda folder, mode: TellingPolicy())
    return str(tmp_path)


@pytest.mark.long
def test_several_tasks_have_a_summary_each_and_their_confidence_is_held_against_what_was_right(checkpoint, tmp_path):
    out, page = tmp_path / "result.json", tmp_path / "page.html"
    assert main(["evaluate", "--checkpoint", checkpoint, "--tasks", "close_fridge", "phone_on_base", "--episodes", "1", "--mode",
                 "diffusion", "--json", str(out), "--page", str(page)]) == 0
    found = json.loads(out.read_text())
    assert set(found["tasks"]) == {"close_fridge", "phone_on_base"} and found["mean_success_rate"] == 1.0
    assert all(summary["episodes"] == 1 and summary["limit_violations"] == 0 for summary in found["tasks"].values())
    for summary in found["tasks"].values():
        low, high = summary["reliability"]["tokens"]
        assert low == {"told": 0.15, "right": 0.0, "tokens": summary["predictions"] // 2} and high["right"] == 1.0
        assert low["tokens"] + high["tokens"] == 7 * summary["predictions"]
        assert 0.05 < summary["reliability"]["expected_calibration_error"] < 0.08
    assert page.read_text().count("told 0.15, right 0.00") == 2


def test_the_halves_are_of_the_confidence_and_what_told_none_is_left_out():
    nan = float("nan")
    found = of_episodes([0.9, 0.2, nan, 0.8, 0.1, 0.5], [True, False, True, True, True, False])
    assert found["confident_half"]["successes"] == 2 and found["confident_half"]["mean_confidence"] == 0.85
    assert found["other_half"]["episodes"] == 2 and found["other_half"]["successes"] == 1
    assert of_episodes([nan, 0.3], [True, True]) == {}


def test_language_scenes_come_twice_with_goals_that_differ_and_both_must_be_done(tmp_path, monkeypatch):
    from hybridvla_sim import suite

    sentences = tasks.load("wine_at_rack").instructions()
    write_manifest_of(tmp_path, (), {"instructions": sentences})
    monkeypatch.setattr(evaluate, "load_policy", lambda folder, mode: TellingPolicy())
    goal, ran = tasks.load("wine_at_rack").phrases.goal, []

    def deaf(factory, config, robot, task, specs, processes, progress, film):
        """Run a suite in which the policy always fills the left place."""
        ran.extend(specs)
        return [{"seed": spec.seed, "task": spec.goal, "success": goal(spec.instruction) == "left" or spec.seed == 2_000_001,
                 "time": 1.0, "keyframes": 1, "violations": 0, "counters": {}, "tick_ms": [], "decisions": []} for spec in specs]

    monkeypatch.setattr(suite, "run_suite", deaf)
    out = tmp_path / "result.json"
    assert main(["evaluate", "--checkpoint", str(tmp_path), "--task", "wine_at_rack", "--episodes", "0",
                 "--language-scenes", "20", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["language"]["scenes"] == 20 and found["language"]["followed"] == 1 and found["episodes"] == 40
    assert found["successes"] == sum(goal(spec.instruction) == "left" or spec.seed == 2_000_001 for spec in ran)
    for first, second in zip(ran[::2], ran[1::2]):
        assert first.seed == second.seed and goal(first.instruction) != goal(second.instruction)
        assert first.second is None and first.switch_at is None


@pytest.mark.long
def test_a_variation_is_named_in_the_result(checkpoint, tmp_path):
    out = tmp_path / "result.json"
    assert main(["evaluate", "--checkpoint", checkpoint, "--task", "close_fridge", "--episodes", "1", "--mode", "diffusion",
                 "--variation", "light", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["variation"] == "light" and found["successes"] == 1


@pytest.fixture
def ran(monkeypatch):
    """Record the specs that a suite requests, by task; the worker of a task named in `dies` ends."""
    from hybridvla_sim import suite

    found, dies = {}, []

    def run_suite(factory, config, robot, task, specs, processes, progress, film=None):
        if task.name in dies:
            raise HybridVLAError("worker process ended without a result")
        found[task.name] = specs
        return [{"seed": spec.seed, "task": spec.goal, "success": True, "time": 1.0, "keyframes": 1, "violations": 0,
                 "counters": {}, "tick_ms": [], "decisions": []} for spec in specs]
    monkeypatch.setattr(suite, "run_suite", run_suite)
    return found, dies


@pytest.mark.parametrize("option", ["--json", "--page"])
def test_a_target_that_cannot_be_written_is_refused_before_the_first_episode(checkpoint, tmp_path, ran, capsys, option):
    (tmp_path / "file").touch()
    for target, words in ((tmp_path, "is a folder"), (tmp_path / "file" / "result", "cannot be written")):
        assert main(["evaluate", "--checkpoint", checkpoint, "--task", "close_fridge", option, str(target)]) == 1
        said = capsys.readouterr().err
        assert f"{option} {target}" in said and words in said and not ran[0]


def test_a_package_that_the_page_lacks_is_missed_before_the_first_episode(checkpoint, tmp_path, ran, capsys, monkeypatch):
    for name in ("hybridvla_core.evaluation.suite_page", "hybridvla_core.report.page"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["evaluate", "--checkpoint", checkpoint, "--task", "close_fridge", "--episodes", "1",
                 "--page", str(tmp_path / "page.html")]) == 1
    assert "jinja2" in capsys.readouterr().err and not ran[0]


def test_a_worker_that_dies_in_a_later_task_leaves_the_results_of_the_earlier_ones(checkpoint, tmp_path, ran):
    found, dies = ran
    dies.append("phone_on_base")
    out = tmp_path / "result.json"
    command = ["evaluate", "--checkpoint", checkpoint, "--tasks", "close_fridge", "phone_on_base", "--episodes", "3",
               "--json", str(out)]
    assert main(command) == 1 and list(found) == ["close_fridge"]
    result = json.loads(out.read_text())
    assert result["tasks"]["close_fridge"]["successes"] == 3 and list(result["tasks"]) == ["close_fridge"]
    assert "mean_success_rate" not in result                # the mean is over all tasks, or missing
    dies.clear()
    assert main(command) == 0 and json.loads(out.read_text())["mean_success_rate"] == 1.0


def test_the_same_command_goes_on_and_another_order_begins_anew(checkpoint, tmp_path, ran, capsys):
    found, dies = ran
    out = tmp_path / "result.json"
    command = ["evaluate", "--checkpoint", checkpoint, "--tasks", "close_fridge", "phone_on_base", "--episodes", "3",
               "--json", str(out)]
    dies.append("phone_on_base")
    assert main(command) == 1
    found.clear()
    dies.clear()
    assert main(command) == 0 and list(found) == ["phone_on_base"]          # the other task's results are kept
    assert "close_fridge with the same settings; kept" in capsys.readouterr().out
    whole = out.read_text()
    found.clear()
    assert main(command) == 0 and not found and json.loads(out.read_text()) == json.loads(whole)
    for change in (["--seed", "2000101"], ["--mode", "diffusion"], ["--episodes", "4"], ["--variation", "light"]):
        found.clear()
        assert main([*command, *change]) == 0 and set(found) == {"close_fridge", "phone_on_base"}, change
    assert main(command) == 0
    found.clear()
    sentences = [text for name in ("close_fridge", "phone_on_base") for text in tasks.load(name).instructions()]
    write_manifest_of(Path(checkpoint), (), {"instructions": sentences, "steps": 2})       # another checkpoint in the same folder
    assert main(command) == 0 and len(found) == 2


def test_fewer_tasks_of_the_same_order_drop_none_that_were_run(checkpoint, tmp_path, ran, capsys):
    found, out = ran[0], tmp_path / "result.json"
    command = ["evaluate", "--checkpoint", checkpoint, "--episodes", "3", "--json", str(out)]
    assert main([*command, "--tasks", "close_fridge", "phone_on_base"]) == 0
    found.clear()
    assert main([*command, "--tasks", "phone_on_base"]) == 0 and not found
    assert set(json.loads(out.read_text())["tasks"]) == {"close_fridge", "phone_on_base"}
    capsys.readouterr()
    assert main([*command, "--task", "phone_on_base"]) == 1 and "close_fridge" in capsys.readouterr().err
    assert set(json.loads(out.read_text())["tasks"]) == {"close_fridge", "phone_on_base"}


def test_results_of_another_code_of_scenes_are_run_again(checkpoint, tmp_path, ran, monkeypatch):
    found, out = ran[0], tmp_path / "result.json"
    command = ["evaluate", "--checkpoint", checkpoint, "--tasks", "close_fridge", "--episodes", "3", "--json", str(out)]
    assert main(command) == 0
    found.clear()
    monkeypatch.setattr(origin, "sources", lambda: "another")
    assert main(command) == 0 and list(found) == ["close_fridge"]


@pytest.mark.parametrize("name", ["src/hybridvla_ros/runtime/node.py", "nodes/policy_node", "launch/sim.launch"])
def test_results_of_other_nodes_are_run_again_over_ros_alone(checkpoint, tmp_path, ran, monkeypatch, name):
    from hybridvla_ros.evaluation import tasks as graphs
    from hybridvla_sim import suite

    found, fake, file = ran[0], suite.run_suite, tmp_path / name
    graph = types.SimpleNamespace(run=lambda task, specs, progress: fake(None, None, None, task, specs, 1, progress))
    monkeypatch.setattr(graphs, "Launched", lambda request: contextlib.nullcontext(graph))
    monkeypatch.setattr(order, "ROOT", tmp_path)
    file.parent.mkdir(parents=True)
    for options, runs in ((("--expert", "--ros"), (1, 0, 1)), (("--checkpoint", checkpoint), (1, 0, 0))):
        for text, count in zip(("A = 1\n", "A = 1\n", "A = 2\n"), runs):
            file.write_text(text)
            found.clear()
            assert main(["evaluate", *options, "--tasks", "close_fridge", "--episodes", "3", "--json",
                         str(tmp_path / f"{options[-1][-3:]}.json")]) == 0
            assert len(found) == count


@pytest.mark.parametrize("words, said", [
    (("--task", "all"), "--tasks all"), (("--task", "close_fridge", "--seed", "1000000"), "belong to training"),
    (("--task", "close_fridge", "--seed", "4000001"), "may have been chosen"),
    (("--task", "close_fridge", "--seed", "3999990", "--episodes", "12"), "may have been chosen")])
def test_scenes_that_are_not_for_evaluation_are_refused(checkpoint, ran, capsys, words, said):
    assert main(["evaluate", "--checkpoint", checkpoint, *words]) == 1 and said in capsys.readouterr().err and not ran[0]


def test_each_episode_is_kept_with_its_confidence_and_its_tokens(checkpoint, tmp_path, ran):
    out = tmp_path / "result.json"
    assert main(["evaluate", "--checkpoint", checkpoint, "--task", "close_fridge", "--episodes", "2", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["task"] == "close_fridge" and [row["seed"] for row in result["rows"]] == [2_000_001, 2_000_002]
    assert all(row["success"] and row["confidence"] is None and row["tokens"] == [] for row in result["rows"])


def test_of_all_tasks_those_with_one_goal_have_no_language_scenes_and_are_named(tmp_path, ran, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "load_policy", lambda folder, mode: TellingPolicy())
    write_manifest_of(tmp_path, (), {})
    out = tmp_path / "result.json"
    command = ["evaluate", "--checkpoint", str(tmp_path), "--tasks", "all", "--language-scenes", "2", "--json", str(out)]
    assert main([*command, "--episodes", "0"]) == 0
    assert set(ran[0]) == {"blocks", "fridge_or_phone", "wine_at_rack"}
    result, said = json.loads(out.read_text()), capsys.readouterr().out
    assert "close_box" in result["left_out"] and len(result["left_out"]) == 9 and "close_box" in said and "left out" in said
    assert main([*command, "--episodes", "1"]) == 0 and "have plain episodes only" in capsys.readouterr().out
    result = json.loads(out.read_text())["tasks"]
    assert len(result) == 12 and "language" not in result["close_box"] and result["blocks"]["language"]["scenes"] == 2
    assert main(["evaluate", "--rig", "agilex", *command[1:], "--episodes", "0"]) == 1
    assert "every task of the rig has one goal" in capsys.readouterr().err


def test_a_variation_with_new_sentences_is_for_whoever_was_trained_for_the_task(tmp_path, ran, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "load_policy", lambda folder, mode: TellingPolicy())
    command = ["evaluate", "--checkpoint", str(tmp_path), "--task", "blocks", "--variation", "colour", "--episodes", "2"]
    write_manifest_of(tmp_path, (), {"instructions": tasks.load("blocks").instructions()})
    assert main(command) == 0 and all("purple" in spec.instruction for spec in ran[0]["blocks"])
    write_manifest_of(tmp_path, (), {"instructions": tasks.load("close_box").instructions()})
    assert main(command) == 1 and "not trained for task blocks" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, words", [
    (["--tasks", "close_box"], "was not trained for task close_box: its data had sentences as"),
    (["--tasks", "all"], "was not trained for task blocks"),
    (["--task", "fly"], "there is no task 'fly'; the tasks are blocks, close_box"),
    (["--task", "tray"], "task 'tray' is for the piper rig, and this is the fr3 rig"),
    (["--task", "close_fridge", "--language-scenes", "1"], "has one instruction, so none can be switched"),
    (["--task", "close_fridge", "--language-scenes", "-1"], "--language-scenes must not be negative"),
    (["--task", "close_fridge", "--variation", "weather"], "no variation 'weather'"),
    (["--task", "close_fridge", "--ros", "--processes", "2"], "leave it out with --ros"),
    (["--task", "close_fridge", "--ros", "--film", "film"], "with --ros leave it out, and record a bag"),
    (["--task", "close_fridge", "--film", "setup.py/film"], "--film setup.py/film"),
    (["--task", "close_fridge", "--seed", "1000000"], "seeds up to 1000000 belong to training"),
    (["--rig", "agilex", "--tasks", "hold_and_wipe"], "was not trained for task hold_and_wipe")])
def test_what_cannot_be_evaluated_is_named(checkpoint, capsys, arguments, words):
    assert main(["evaluate", "--checkpoint", checkpoint, "--episodes", "1", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_the_shipped_checkpoint_knows_blocks_alone(capsys):
    assert main(["evaluate", "--checkpoint", TINY, "--task", "phone_on_base", "--episodes", "1"]) == 1
    assert "was not trained for task phone_on_base but for blocks" in capsys.readouterr().err
