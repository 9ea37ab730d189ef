"""Episodes in process with a scripted policy: the real proposer, filter and rig."""
from __future__ import annotations

import numpy as np
import pytest

from hybridvla_cli.__main__ import main
from hybridvla_core.contracts import Mode, Prediction
from hybridvla_core.evaluation.suite import Suite, draw_specs, load_configs, summarise
from hybridvla_core.paths import ROOT
from hybridvla_core.report.statistics import calibration, correlation, wilson


class ScriptedPolicy:
    """The expert behind the interface of `Policy`; it looks at the rig instead of the image."""

    cameras = ("front",)
    manifest_sha256 = "0" * 64
    rig = None

    def __init__(self, convention):
        self.convention = convention

    def predict(self, observation, mode=None, seed=0):
        from hybridvla_sim.tasks.blocks.expert import expert_action
        from hybridvla_sim.tasks.blocks.task import parse_instruction

        world = self.rig.world_state()
        action = expert_action(world, *parse_instruction(observation.instruction))
        row = np.array([[*(action.position - world.tool), 0.0, 0.0, action.yaw, action.opening]])
        return Prediction(action=row, mode=Mode.DIFFUSION, fused=False, diffusion=row)


@pytest.fixture(scope="module")
def suite():
    config, robot = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "diffusion")
    policy = ScriptedPolicy(config.convention)
    suite = Suite(policy, config, robot)
    policy.rig = suite.rig
    yield suite
    suite.rig.close()


def test_the_scripted_policy_succeeds_through_the_filter(suite):
    results = [suite.run(spec) for spec in draw_specs(5_000_001, 2, switched=False)]
    summary = summarise(results, "diffusion", 5_000_001)
    assert summary["successes"] == 2 and summary["limit_violations"] == 0
    assert summary["fused_share"] == 0.0 and summary["median_error_mm"] < 5.0
    again = suite.run(draw_specs(5_000_001, 1, switched=False)[0])
    assert again["time"] == results[0]["time"] and again["keyframes"] == results[0]["keyframes"]


def test_a_switched_instruction_is_carried_out(suite):
    spec = draw_specs(5_000_003, 1, switched=True)[0]
    assert spec.second[0] != spec.block and spec.second[1] != spec.pad
    result = suite.run(spec)
    assert result["success"] and result["violations"] == 0


def test_specs_are_drawn_from_the_seed():
    assert draw_specs(7, 5, True) == draw_specs(7, 5, True)
    assert draw_specs(7, 5, True)[1:] == draw_specs(8, 4, True)


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
