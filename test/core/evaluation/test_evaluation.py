"""Episodes in process with a scripted policy: the real proposer, filter and rig."""
from __future__ import annotations

import numpy as np
import pytest

from hybridvla_cli.__main__ import main
from hybridvla_core.contracts import Mode, Prediction
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import load_configs, summarise
from hybridvla_core.paths import ROOT
from hybridvla_core.report.statistics import calibration, correlation, wilson
from hybridvla_sim import tasks
from hybridvla_sim.suite import Suite
from hybridvla_sim.tasks.blocks.task import parse_instruction

BLOCKS = tasks.load("blocks")


class ScriptedPolicy:
    """The expert behind the interface of `Policy`; it reads the rig's state instead of the image."""

    cameras = ("front",)
    manifest_sha256 = "0" * 64
    rig = None

    def __init__(self, convention):
        self.convention = convention

    def predict(self, observation, mode=None, seed=0):
        label = self.rig.world.expert(observation.instruction)
        row = np.array([[*label.delta[0], 0.0, 0.0, label.yaw[0], label.opening[0]]])
        return Prediction(action=row, mode=Mode.DIFFUSION, fused=False, diffusion=row)


@pytest.fixture(scope="module")
def suite():
    config, robot = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "diffusion")
    policy = ScriptedPolicy(config.convention)
    suite = Suite(policy, config, robot, BLOCKS)
    policy.rig = suite.rig
    yield suite
    suite.rig.close()


@pytest.mark.long
def test_the_scripted_policy_succeeds_through_the_filter(suite):
    results = [suite.run(spec) for spec in BLOCKS.draw(5_000_001, 2, switched=False)]
    summary = summarise(results, "diffusion", 5_000_001)
    assert summary["successes"] == 2 and summary["limit_violations"] == 0
    assert summary["fused_share"] == 0.0 and summary["median_error_mm"] < 5.0
    again = suite.run(BLOCKS.draw(5_000_001, 1, switched=False)[0])
    assert again["time"] == results[0]["time"] and again["keyframes"] == results[0]["keyframes"]


@pytest.mark.long
def test_a_task_that_its_last_keyframe_finishes_is_done(suite, monkeypatch):
    spec = BLOCKS.draw(5_000_001, 1, switched=False)[0]
    needed = suite.run(spec)["keyframes"]
    monkeypatch.setattr(suite.task, "max_keyframes", needed - 1, raising=False)
    result = suite.run(spec)
    assert result["success"] and result["keyframes"] == needed


@pytest.mark.long
def test_a_switched_instruction_is_carried_out(suite):
    spec = BLOCKS.draw(5_000_003, 1, switched=True)[0]
    first, second = parse_instruction(spec.instruction), parse_instruction(spec.second)
    assert first[0] != second[0] and first[1] != second[1] and spec.goal == spec.second
    result = suite.run(spec)
    assert result["success"] and result["violations"] == 0


def test_specs_are_drawn_from_the_seed():
    assert BLOCKS.draw(7, 5, True) == BLOCKS.draw(7, 5, True)
    assert BLOCKS.draw(7, 5, True)[1:] == BLOCKS.draw(8, 4, True)


def test_a_task_is_found_by_its_folder_and_an_unknown_or_unfit_one_is_refused_by_name():
    assert {"blocks", "tray"} <= set(tasks.names())
    for name in tasks.names():
        task = tasks.load(name)
        assert task.name == name and task.instructions() and task.draw(3, 2, False)[1].seed == 4
    with pytest.raises(HybridVLAError, match=f"no task 'drawers'; the tasks are {', '.join(tasks.names())}"):
        tasks.load("drawers")
    with pytest.raises(HybridVLAError, match="'tray' is for the piper rig, and this is the fr3 rig"):
        tasks.load("tray", rig="fr3")
    with pytest.raises(HybridVLAError, match="'tray' has one instruction"):
        tasks.load("tray").draw(1, 1, switched=True)


def test_statistics():
    assert wilson(0, 0) == [0.0, 1.0]
    low, high = wilson(95, 100)
    assert low == pytest.approx(0.8882, abs=1e-3) and high == pytest.approx(0.9785, abs=1e-3)
    errors = [np.array([0.1, -0.2, 0.3])]
    assert correlation(errors, errors) == pytest.approx(1.0)
    assert np.isnan(correlation([], []))
    assert calibration([0.9, 0.1, 0.8, 0.2], [0.001, 0.01, 0.001, 0.01])["confident_half_median_mm"] == 1.0


def test_training_seeds_are_refused(capsys):
    assert main(["evaluate", "--checkpoint", "nowhere", "--seed", "5"]) == 1
    assert "belong to training" in capsys.readouterr().err
