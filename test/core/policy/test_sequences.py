"""Predictions of every sequence of the paper's table 1, compared with rows assembled as the table draws them."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small_policy
import torch

from hybridvla_core.checkpoints.config import PATHS
from hybridvla_core.policy.predictor import Policy

SEQUENCES = [(1, "embedding"), (1, "none"), (1, "words"), (2, "embedding"), (2, "none"), (3, "words"), (4, "embedding"),
             (4, "none")]


def loaded(folder, kind, state, **changes):
    model = small_policy.small_model()
    model = replace(model, sequence=replace(model.sequence, kind=kind, state=state))
    return Policy.from_checkpoint(small_policy.write(folder, model=model, ddim_steps=1, **changes))


def drawn(policy, inputs, row):
    """Return the prefix of an observation without padding, (S, H)."""
    model, sequence = policy.model, policy.model.config.sequence
    text = policy.prompts.text_ids(TEXTS[row])
    words = policy.engine.tokens.encode(inputs.state[row]).tolist() if sequence.state == "words" else []
    begin = [sequence.bod] if sequence.kind in (1, 3) else []
    pixels = {kind: view[row:row + 1] for kind, view in inputs.pixels.items()}
    parts = [ids(model, [sequence.bos]), policy.engine.encode(pixels)[0], ids(model, [*text, *words, *begin])]
    return parts + ([model.embed_state(inputs.state[row:row + 1])] if sequence.state == "embedding" else [])


def ids(model, numbers):
    return model.embed_tokens(torch.as_tensor(numbers, dtype=torch.long))


def hidden(model, parts):
    whole = torch.cat(parts)[None]
    return model.llm(whole, torch.arange(whole.shape[1]))[0]


TEXTS = ("put the red block on the green pad", "put it there")


@torch.inference_mode()
@pytest.mark.parametrize("kind, state", SEQUENCES)
def test_predictions_are_those_of_the_drawn_sequence(tmp_path, kind, state):
    policy = loaded(tmp_path / "small", kind, state)
    model, engine = policy.model, policy.engine
    given = [small_policy.observation(stamp, instruction=text, state=np.full(7, 0.3 - 0.2 * stamp))
             for stamp, text in enumerate(TEXTS)]
    inputs = policy.inputs(given, 0)
    result = policy.path.run(inputs)
    assert result.ids.shape == (2, 7) and np.isfinite(result.denoised).all()
    for row in range(2):
        prefix, tokens = drawn(policy, inputs, row), torch.from_numpy(result.ids[row])
        noise = inputs.noise[row, 0]
        step = int(engine.schedule.ddim(1).timesteps[0])
        before = [*prefix, ids(model, tokens), ids(model, [model.config.sequence.bod])] if kind == 4 else prefix
        start = [model.embed_timestep(torch.tensor([step])), model.embed_action(noise)]
        eps = model.noise_prediction(hidden(model, before + start)[-1:])
        x = engine.schedule.ddim(1).step(0, noise[None], eps[None])[1][0]
        np.testing.assert_allclose(result.denoised[row, 0], x.numpy(), atol=2e-4)
        if kind == 4:
            logits = model.llm.logits(hidden(model, [*prefix, ids(model, tokens[:-1])])[-7:])
        else:
            follows = [model.embed_timestep(torch.tensor([0])), model.embed_action(x.clamp(-1, 1))]
            marks = [model.config.sequence.eod] if kind in (1, 3) else []
            logits = model.llm.logits(hidden(model, [*prefix, *follows, ids(model, marks), ids(model, tokens[:-1])])[-7:])
        assert logits.argmax(-1).tolist() == tokens.tolist()


@pytest.mark.parametrize("kind, state", SEQUENCES[1:])
def test_every_mode_predicts(tmp_path, kind, state):
    policy = loaded(tmp_path / "small", kind, state)
    found = {mode: policy.predict(small_policy.observation(), mode=mode) for mode in ("ensemble", "diffusion", "autoregressive")}
    assert all(np.isfinite(prediction.action).all() for prediction in found.values())
    np.testing.assert_allclose(found["diffusion"].action, found["ensemble"].diffusion, atol=1e-5)
    moved = policy.predict(small_policy.observation(state=np.full(7, 0.6)), mode="diffusion")
    assert (state == "none") == np.allclose(moved.action, found["diffusion"].action)


def test_an_answer_that_was_never_trained_does_not_stand_before_the_noise(tmp_path):
    policy = loaded(tmp_path / "small", 4, "embedding", trained=PATHS[:1])
    other = loaded(tmp_path / "other", 4, "embedding")
    one, two = (each.predict(small_policy.observation(), mode="diffusion").action for each in (policy, other))
    assert np.isfinite(one).all() and not np.allclose(one, two)
