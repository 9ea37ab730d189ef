"""The shipped checkpoint in the rig: few passes, and the tokens and decisions of plain greedy decoding."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from recorded_ops import RecordedBackend
from small_policy import ENSEMBLE, observation, write

from hybridvla_cli.bench_parts.passes import collect
from hybridvla_core.benchmark.passes import compare, greedy
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.inference.graphs import GraphStages
from hybridvla_core.policy.predictor import Policy


@pytest.mark.long
def test_a_trained_model_decodes_as_plain_greedy_decoding_in_few_passes():
    torch.manual_seed(0)
    config, robot = load_configs(ROOT / "config" / "policies" / "tiny.yaml", ROOT / "config" / "robots" / "sim_fr3.yaml",
                                 "ensemble")
    quick = Policy.from_checkpoint(ROOT / "checkpoints" / "tiny", all_tokens=False)
    observations = collect(quick, config, robot, "blocks", seed=2000001, episodes=1)
    assert len(observations) >= 5
    for policy in (quick, Policy.from_checkpoint(ROOT / "checkpoints" / "tiny")):
        result = compare(policy, observations)
        assert result["differences"]["tokens_beyond_margin"] == result["differences"]["decisions_beyond_margin"] == 0
        assert result["more_than_greedy"] == 0 and result["all"]["mean"] <= 2.0
    alone = [quick.predict(o) for o in observations[:4]]
    for single, batched in zip(alone, quick.predict_batch(observations[:4])):
        assert np.allclose(single.action, batched.action, atol=1e-5) and single.fused == batched.fused


def test_plain_decoding_reads_the_text_alone_where_graphs_fill_it_up(tmp_path):
    policy = Policy.from_checkpoint(write(tmp_path / "small"), all_tokens=True)
    expected = greedy(policy, observation())
    policy.path.stages = GraphStages(RecordedBackend())
    found = greedy(policy, observation())
    assert policy.inputs([observation()], 0).lengths is not None, "the text was filled up"
    assert np.array_equal(found.ids, expected.ids) and np.allclose(found.denoised, expected.denoised, atol=1e-6)
    assert compare(policy, [observation()])["differences"]["tokens_beyond_margin"] == 0


def test_plain_decoding_is_judged_as_the_product_judges_where_a_token_is_no_action(tmp_path):
    # Random weights choose words, not actions. If they were actions, the gate would open at their confidences.
    policy = Policy.from_checkpoint(write(tmp_path / "small", ensemble=replace(ENSEMBLE, theta=1e-3)), all_tokens=True)
    plain = greedy(policy, observation())
    assert not policy.engine.tokens.valid(torch.from_numpy(plain.ids)).all() and not policy.predict(observation()).fused
    result = compare(policy, [observation()])
    assert result["differences"]["decisions"] == 0 and result["unfused"]["predictions"] == 1
    first = int(np.argmin(plain.confidence > 0.0)) + 1
    assert result["greedy"]["with_early_end"] == first, "plain decoding would end at the first token that is no action"
