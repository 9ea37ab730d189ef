"""The dual path in few passes: it gives the same tokens, confidences, decisions and actions as plain greedy decoding."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from recorded_ops import NoWaiting, PlainIndexing, RecordedBackend
from small_policy import observation, write

from hybridvla_core.checkpoints.config import EnsembleConfig
from hybridvla_core.contracts import Mode
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.presets import dino, llama, preset, siglip
from hybridvla_core.model.tokens import ActionTokens
from hybridvla_core.policy.inference.assemble import Assembler
from hybridvla_core.policy.inference.drafts import ConfidenceGate, FirstDraft, examine
from hybridvla_core.policy.inference.dual_path import DualPath
from hybridvla_core.policy.inference.graphs import GraphStages
from hybridvla_core.policy.inference.plain import PlainDecoding
from hybridvla_core.policy.inference.stages import EagerStages
from hybridvla_core.policy.inference.tensors import PredictionInputs, PredictionResult
from hybridvla_core.policy.predictor import Policy
from hybridvla_core.transforms.normalise import Scale

STEPS, WINDOW = 4, 3
GPU = "cuda:0"
CONDITIONS = ("denoised", "noise", "released")


def small_config(**changes):
    decoder = llama(64, 2, 4, 96, 832)
    if changes.pop("phi", False):
        decoder = replace(decoder, family="phi", rotary_dim=6)
    return preset("tiny", towers=(dino(32, 2, 2, 64, 32, 16), siglip(32, 2, 2, 64, 32, 16)), decoder=decoder,
                  projector=(64, 64, 64), **changes)


def build(config, seed, spread=0.3, rule="mean", theta=0.5, stages=None, **options):
    torch.manual_seed(seed)
    model = HybridVLA(config).initialise(spread).eval()
    for name, parameter in model.llm.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "dense.weight", "fc2.weight")):
            torch.nn.init.normal_(parameter, std=0.08)  # so that tokens depend on those before them
    model.llm.fuse()
    engine = PlainDecoding(model)
    gate = ConfidenceGate(EnsembleConfig(rule, theta, WINDOW, "so3", "diffusion"), config.action_dim)
    return DualPath(engine, STEPS, gate, FirstDraft(engine.tokens, None, ()), WINDOW, stages, **options)


def draw(config, batch=1, samples=1, condition="denoised", words=9):
    x = torch.randn(batch, config.chunk, config.action_dim)
    given = {"denoised": None, "noise": (x, torch.full((batch,), 99)), "released": (x, torch.randint(0, 100, (batch,)))}
    pixels = {tower.kind: torch.randn(batch, config.views, 3, 32, 32) for tower in config.towers}
    return PredictionInputs(pixels, torch.randint(3, 500, (batch, words)), torch.rand(batch, config.action_dim) * 2 - 1,
                  torch.randn(batch, samples, config.chunk, config.action_dim), None, given[condition])


def plain(path, inputs):
    engine = path.engine
    prefix = engine.prefix(engine.encode(inputs.pixels), inputs.text, inputs.state)
    x = engine.denoise(prefix, inputs.noise[:, 0], STEPS)
    condition = inputs.condition or (x.clamp(-1, 1), torch.zeros(len(x), dtype=torch.long))
    decoded = engine.decode(prefix, *condition, window=WINDOW, keep_logits=True)
    best = torch.stack(decoded.logits, 1).topk(2, -1).values
    return x.numpy(), decoded.ids.numpy(), decoded.trusted.numpy(), (best[..., 0] - best[..., 1]).amin(-1).numpy()


@pytest.mark.long
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("changes", [{}, dict(chunk=3, views=2), dict(action_dim=14), dict(phi=True)])
@torch.inference_mode()
def test_random_models_decode_as_plain_greedy_decoding(condition, changes):
    compared = saved = 0
    for seed in range(6):
        config = small_config(**changes)
        path = build(config, seed)
        inputs = draw(config, condition=condition)
        x, ids, confidence, margin = plain(path, inputs)
        result = path.run(inputs)
        assert np.allclose(result.denoised[:, 0], x, atol=1e-5)
        assert 0 <= result.passes[0] <= config.action_dim and result.exact[0] == config.action_dim
        saved += config.action_dim - int(result.passes[0])
        if margin[0] > 1e-4:
            compared += 1
            assert np.array_equal(result.ids, ids)
            assert np.allclose(result.confidence, confidence, atol=1e-5)
    assert compared >= 4
    if condition != "denoised":
        assert saved >= 6 * 3, "four shared passes prove at least four tokens"


@pytest.mark.parametrize("rule, theta", [("mean", 0.3), ("mean", 0.6), ("mean", 0.9), ("released", 1.5), ("released", 4.0)])
@torch.inference_mode()
def test_an_early_end_never_changes_the_decision(rule, theta):
    early = 0
    for seed in range(8):
        path = build(small_config(), seed, rule=rule, theta=theta)
        inputs = draw(small_config())
        _, ids, confidence, margin = plain(path, inputs)
        result = path.run(inputs, all_tokens=False)
        exact = int(result.exact[0])
        assert np.array_equal(result.ids[0, :exact], ids[0, :exact]) or margin[0] < 1e-4
        if exact < 7:
            early += 1
            assert not path.gate.config.opens(confidence[0])
    assert early or theta in (0.3, 1.5)


@torch.inference_mode()
def test_rows_of_a_batch_that_end_early_claim_no_token_that_was_not_proven():
    claimed = 0
    for seed in range(8):
        path = build(small_config(), seed, theta=0.6)
        inputs = draw(small_config(), batch=12)
        expected, result = path.run(inputs), path.run(inputs, all_tokens=False)
        for row, exact in enumerate(result.exact):
            assert np.array_equal(result.ids[row, :exact], expected.ids[row, :exact])
            claimed += int(exact) < 7
    assert claimed


@torch.inference_mode()
def test_batches_samples_and_padding_change_nothing():
    config = small_config()
    path = build(config, 3)
    single = draw(config, batch=1)
    expected = path.run(single)
    widened = {key: value.expand(3, *value.shape[1:]).clone() for key, value in single.pixels.items()}
    text = torch.cat([single.text.expand(3, -1), torch.zeros(3, 4, dtype=torch.long)], dim=1)
    text[2] = torch.randint(3, 500, (13,))
    noise = torch.randn(3, 5, 1, 7)
    noise[:, 0] = single.noise[:, 0]
    around = 2 + config.patches
    many = PredictionInputs(widened, text, single.state.expand(3, -1), noise, torch.tensor([around + 9, around + 9, around + 13]))
    result = path.run(many)
    for row in (0, 1):
        assert np.allclose(result.denoised[row, 0], expected.denoised[0, 0], atol=1e-5)
        assert np.array_equal(result.ids[row], expected.ids[0])
        assert np.allclose(result.confidence[row], expected.confidence[0], atol=1e-5)
    other = path.run(PredictionInputs({k: v[2:] for k, v in widened.items()}, text[2:], many.state[2:], noise[2:, :1]))
    assert np.allclose(result.denoised[2, 0], other.denoised[0, 0], atol=1e-5)
    assert not np.allclose(result.denoised[0, 1], result.denoised[0, 2], atol=1e-3)


@pytest.mark.parametrize("condition", CONDITIONS)
@torch.inference_mode()
def test_recorded_stages_repeat_and_equal_direct_calls(condition):
    """The same operations run on the same addresses, as a CUDA graph would repeat them."""
    config, backend = small_config(), RecordedBackend()
    eager = build(config, 5)
    graphed = DualPath(eager.engine, STEPS, eager.gate, eager.first_draft, WINDOW, GraphStages(backend))
    captures = []
    for turn in range(4):
        inputs = draw(config, condition=condition)
        width = graphed.stages.text_width(9)
        text = torch.cat([inputs.text, torch.full((1, width - 9), 768)], dim=1)
        padded = replace(inputs, text=text, lengths=torch.tensor([2 + config.patches + 9 + turn % 2]))
        if turn % 2:  # another length in the same shape: ten ids
            padded.text[:, 9] = 11
            inputs = replace(inputs, text=torch.cat([inputs.text, torch.tensor([[11]])], dim=1))
        expected, result = eager.run(inputs), graphed.run(padded)
        captures.append(backend.captures)
        assert np.allclose(result.denoised, expected.denoised, atol=1e-5)
        assert np.array_equal(result.ids, expected.ids) and np.array_equal(result.exact, expected.exact)
    assert captures[0] == captures[-1] > 2, "later predictions of the shape only repeat"


@pytest.mark.parametrize("condition", CONDITIONS)
@torch.inference_mode()
def test_recordings_of_two_modes_keep_their_own_lengths(condition):
    """First a run that ends early (no verifying pass is recorded yet), then diffusion alone on a longer text, then all tokens."""
    config = small_config()
    eager = build(config, 5, theta=0.99)
    graphed = DualPath(eager.engine, STEPS, eager.gate, eager.first_draft, WINDOW, GraphStages(RecordedBackend()))
    modes = [(9, dict(all_tokens=False)), (12, dict(decode=False)), (9, dict()), (12, dict()), (9, dict(decode=False))]
    for words, wanted in modes:
        inputs = draw(config, condition=condition, words=words)
        text = torch.cat([inputs.text, torch.full((1, 16 - words), 768)], dim=1)
        result = graphed.run(replace(inputs, text=text, lengths=torch.tensor([2 + config.patches + words])), **wanted)
        expected = eager.run(inputs, **wanted)
        assert np.allclose(result.denoised, expected.denoised, atol=1e-5)
        if expected.ids is not None:
            exact = int(expected.exact[0])
            assert np.array_equal(result.ids[0, :exact], expected.ids[0, :exact])


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("steps", [1, 4])
@torch.inference_mode()
def test_the_first_denoising_step_costs_no_pass_of_its_own(condition, steps):
    path = build(small_config(), 2)
    path = DualPath(path.engine, steps, path.gate, path.first_draft, WINDOW)
    rows, run = [], path.model.llm.run
    path.model.llm.run = lambda embeddings, *rest, **more: rows.append(embeddings.shape[1]) or run(embeddings, *rest, **more)
    inputs = draw(path.config, condition=condition)
    prefix = 2 + path.config.patches + 9
    path.run(inputs, decode=False)
    assert rows == [prefix + 2] + [2] * (steps - 1)
    rows.clear()
    result = path.run(inputs)
    assert len(rows) == steps + result.passes[0]
    branch = 0 if condition == "denoised" else 3 + 6
    assert rows[0] == prefix + 2 + branch, "a branch that does not wait for the action rides in the prefix's pass as well"
    rows.clear()
    result = path.run(inputs, diffusion=False)
    assert len(rows) == result.passes[0] + (steps if condition == "denoised" else 1)


@pytest.mark.long
@pytest.mark.parametrize("condition", CONDITIONS)
def test_no_stage_waits_for_the_device(condition):
    """With fake CUDA tensors, no data crosses between devices and no number is read until a decision."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    config = small_config()
    model = HybridVLA(config).to(torch.bfloat16).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), PlainIndexing():
        for module in model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=GPU)
                    module._parameters[name] = torch.nn.Parameter(empty, requires_grad=False)
        model.llm.fuse()
        engine = PlainDecoding(model)
        gate = ConfidenceGate(EnsembleConfig.paper(WINDOW), 7)
        path = DualPath(engine, STEPS, gate, FirstDraft(engine.tokens, None, (), GPU), WINDOW)
        inputs = draw(config, condition=condition)
        moved = [t.to(GPU) for t in (inputs.text, inputs.state, inputs.noise)]
        given = None if inputs.condition is None else tuple(t.to(GPU) for t in inputs.condition)
        lengths = torch.full((1,), 2 + config.patches + 7, device=GPU)
        inputs = PredictionInputs({k: v.to(GPU) for k, v in inputs.pixels.items()}, *moved, lengths, given)
        with NoWaiting() as guard, pytest.raises(AssertionError, match="moves data|reads a number"):
            path.run(inputs)
        # The first operation that waits is the transfer of the decision, after the verifying pass (with the early conditions,
        # after the denoising steps).
        assert guard.operations > 300
        space = next(iter(path._spaces.values()))
        with NoWaiting() as guard:
            x, branch, _ = path.open(space, True, engine.encode(inputs.pixels), inputs.text, inputs.state, inputs.noise,
                                     inputs.lengths, given)
            x, branch = path.denoise(space, True, given is not None, x, branch)
            branch = path.verify(space, branch)
        assert branch.examined.ids.device.type == "cuda" and x.shape == (1, 1, 1, 7)


def test_the_gate_counts_unknown_confidences_as_one():
    mean = ConfidenceGate(EnsembleConfig("mean", 0.9, 0, "so3", "diffusion"), 7)
    assert mean.reachable(np.array([0.31] + [0.0] * 6), 1) and not mean.reachable(np.array([0.29] + [1.0] * 6), 1)
    released = ConfidenceGate(EnsembleConfig.released(), 14)
    known = np.array([1.0] * 6 + [1e-3] * 8)
    assert released.reachable(known, 14), "tokens after the sixth do not count"
    assert not released.reachable(np.array([0.7] + [1.0] * 13), 3)


@pytest.mark.long
def test_batches_are_recorded_in_a_few_sizes_and_filled_up(tmp_path):
    policy = Policy.from_checkpoint(write(tmp_path / "checkpoint"))
    observations = [observation(stamp=i) for i in range(3)]
    expected = [policy.predict(o) for o in observations]
    backend = RecordedBackend()
    policy.path.stages = GraphStages(backend)
    assert policy.path.stages.batches(23) == [(16, 16), (7, 16)] and policy.path.stages.batches(1) == [(1, 1)]
    three = policy.predict_batch(observations)
    captures = backend.captures
    two = policy.predict_batch(observations[:2])
    assert len(three) == 3 and len(two) == 2 and captures == backend.captures, "both run as four"
    for single, batched in zip(expected + expected[:2], three + two):
        assert np.allclose(single.diffusion, batched.diffusion, atol=1e-5)
    assert policy.predict_batch([]) == []


def test_eager_stages_leave_texts_as_long_as_they_are():
    assert EagerStages().text_width(17) == 17 and GraphStages(RecordedBackend()).text_width(17) == 32


def test_a_token_that_is_no_action_never_counts_as_confident():
    config = small_config(action_dim=14)
    tokens = ActionTokens(config)
    for window in (0, WINDOW):
        logits = torch.full((1, 14, config.decoder.vocab_rows), -30.0)
        ids = torch.full((14,), tokens.first + 100)
        ids[9] = tokens.first - 1       # a word, chosen with certainty, on the second arm
        logits[0, torch.arange(14), ids] = 30.0
        examined = examine(logits, ids[None, :-1], window, tokens)
        assert examined.confidence[0, 9] == 0.0 and examined.confidence[0, 8] > 0.99
        gate = ConfidenceGate(replace(EnsembleConfig.released(), confidence_window_bins=window), 14)
        assert gate.reachable(examined.confidence[0].numpy(), 9) and not gate.reachable(examined.confidence[0].numpy(), 10)
        scale = Scale(np.full(14, -1.0), np.full(14, 1.0), np.ones(14, dtype=bool))
        result = PredictionResult(np.zeros((1, 1, 1, 14), np.float32), ids[None].numpy(), examined.confidence.numpy(),
                                  np.array([14]), np.array([1]))
        prediction = Assembler(gate.config, scale, (6, 13), tokens).prediction(result, 0, Mode.ENSEMBLE, 0, {})
        assert not prediction.fused and prediction.token_confidence[9] == 0.0
