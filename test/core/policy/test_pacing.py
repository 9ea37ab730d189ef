"""Execution modes: when the next prediction starts, what is sent of a chunk, and how old executed commands are."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hybridvla_core.benchmark.staleness import Setting, Simulation
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Mode, Observation, Pose, Prediction
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.proposing.pacing import PredictionPacing
from hybridvla_core.policy.proposing.proposals import Inference, make_proposal

BASE = load_file(PolicyConfig, ROOT / "config" / "policies" / "tiny.yaml")


def dense(execution, period=0.05):
    return replace(BASE, execution=execution, convention=replace(BASE.convention, action_period_s=period))


def test_auto_blocks_for_keyframes_and_runs_on_for_dense_actions():
    assert BASE.execution_way == "blocking" and dense("auto").execution_way == "asynchronous"
    with pytest.raises(ConfigurationError, match="overlap"):
        replace(BASE, execution="overlap")
    with pytest.raises(ConfigurationError, match="use one of"):
        replace(BASE, execution="sometimes")


def test_blocking_waits_for_the_end_of_a_chunk_and_overlap_starts_early_enough():
    blocking, overlap = PredictionPacing(dense("blocking")), PredictionPacing(dense("overlap"))
    for pacing in (blocking, overlap):
        pacing.sent(1, 10.0, 100.0, 8, 0.15)
    assert blocking.waiting(10.39) and not blocking.waiting(10.4)
    # The two clocks are read one after the other, so the stamp clock may still be just before the end of the chunk.
    assert not blocking.shows_rest(100.3, clock=100.399) and blocking.shows_rest(100.401, clock=100.41)
    assert blocking.shows_rest(5.0, clock=5.1), "a clock that was set back does not block"
    assert overlap.waiting(10.2)
    assert not overlap.waiting(10.24), "a prediction takes 0.15 s, and 0.02 s more to arrive"


def test_asynchronous_execution_waits_for_nothing_even_with_keyframes():
    pacing = PredictionPacing(replace(BASE, execution="asynchronous"))
    pacing.sent(1, 10.0, 10.0, 1, 0.1)
    assert not pacing.waiting(10.0)


@pytest.mark.parametrize("execution, sent", [("asynchronous", 5), ("blocking", 8)])
def test_steps_whose_time_is_over_are_not_sent(execution, sent):
    class Policy:
        manifest_sha256 = "x"

    pose = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
    action = np.zeros((8, 7))
    action[:, 0] = np.arange(8) * 0.01
    inference = Inference(Observation({}, "x", np.zeros(7), 1), 1, 1.0, 0.0, ((pose, 1.0),))
    proposal = make_proposal(dense(execution), Policy(), inference, Prediction(action, Mode.DIFFUSION, False,
                             diffusion=action), 1, 1, 0.17)
    assert proposal.chunk == sent == len(proposal.targets)
    assert proposal.prediction.action[0, 0] == pytest.approx(0.01 * (8 - sent))
    whole = make_proposal(dense(execution), Policy(), inference, Prediction(action, Mode.DIFFUSION, False), 1, 1, 0.0)
    assert np.allclose(proposal.targets[-1].target.position, whole.targets[-1].target.position)


def test_overlap_leaves_no_gap_and_asynchronous_commands_are_the_freshest():
    results = {way: Simulation(dense(way), Setting(way, 0.15, 8, 0.05)).run(15.0)
               for way in ("blocking", "overlap", "asynchronous")}
    assert results["overlap"]["idle_share"] < 0.02 < results["blocking"]["idle_share"]
    ages = {way: result["command_staleness_ms"]["median"] for way, result in results.items()}
    assert ages["asynchronous"] < ages["blocking"]
    assert results["asynchronous"]["predictions"] > results["overlap"]["predictions"] > results["blocking"]["predictions"]
