"""What a checkpoint states as learned: what the completed stages trained, and what its initial checkpoint had learned."""
from __future__ import annotations

import pytest
import toy_data
from small_policy import observation

from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.checkpoints.released import HEADS
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.policy.predictor import Policy
from hybridvla_core.training.hybrid.run import Request, train

BOTH, SEE = ("diffusion", "autoregressive"), dict(name="see", steps=1, train="towers", terms=["patches"])
ACT = dict(name="act", steps=1, train="full")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data.write(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    toy_data.add_preset(monkeypatch)


def go(folder, data, init=None, stages=(ACT,), request=None, **changes):
    recipe = toy_data.config(stages=list(stages), grounding=toy_data.GROUNDED, validation_frames=0,
                             **{**({} if init is None else dict(preset="")), **changes})
    return train(Request(recipe, (data,), folder / "work", folder / "out", threads=1, init=init, **(request or {})))


def said(folder):
    config = read_checkpoint(folder / "out").config
    return config.untrained, config.trained


@pytest.mark.parametrize("terms, untrained, trained", [
    (["patches"], HEADS, ("diffusion",)),
    (["tokens"], ("final_layer", "t_embedder", "x_embedder"), BOTH),
    (["diffusion", "places"], (), ("diffusion",)),
    ([], (), BOTH)])
def test_a_path_that_no_stage_names_is_not_called_trained(data, tmp_path, terms, untrained, trained):
    go(tmp_path, data, stages=[SEE, dict(ACT, terms=terms)])
    assert said(tmp_path) == (untrained, trained)
    if untrained:
        with pytest.raises(HybridVLAError, match="final_layer, .* hold random weights, because no stage .* term diffusion"):
            Policy.from_checkpoint(tmp_path / "out")
    elif trained != BOTH:
        with pytest.raises(HybridVLAError, match="tokens were never trained, as its source said"):
            Policy.from_checkpoint(tmp_path / "out").predict(observation())


def test_a_run_that_ends_before_the_paths_are_trained_says_so_until_the_same_command_went_on(data, tmp_path):
    stages = [dict(SEE, steps=2), dict(ACT, name="denoise", terms=["diffusion"], steps=2), dict(ACT, steps=2)]
    found = []
    while not found or not found[-1]["finished"]:
        found.append(go(tmp_path, data, stages=stages, request=dict(seconds=1e-9)))
        untrained, trained = said(tmp_path)
        if found[-1]["steps"] < 3:
            assert (untrained, trained) == (HEADS, ("diffusion",))
            with pytest.raises(HybridVLAError, match="hold random weights, because the run .* unfinished; run the same command"):
                Policy.from_checkpoint(tmp_path / "out")
        elif found[-1]["steps"] < 5:
            assert (untrained, trained) == ((), ("diffusion",))
            with pytest.raises(HybridVLAError, match="because its run is unfinished.*mode diffusion, or run the same command"):
                Policy.from_checkpoint(tmp_path / "out").predict(observation())
            Policy.from_checkpoint(tmp_path / "out", mode="diffusion").predict(observation())
        else:
            assert (untrained, trained) == ((), BOTH)
    assert {1, 3} <= {each["steps"] for each in found} and found[-1]["steps"] == 6
    Policy.from_checkpoint(tmp_path / "out").predict(observation())


def test_what_a_checkpoint_had_learned_stays_but_not_with_new_embedders(data, tmp_path):
    go(tmp_path / "base", data)
    base = tmp_path / "base/out"
    go(tmp_path / "kept", data, init=base, stages=[SEE])
    assert said(tmp_path / "kept") == ((), BOTH)
    Policy.from_checkpoint(tmp_path / "kept/out").predict(observation())
    go(tmp_path / "new", data, init=base, stages=[SEE], embedders="new")
    assert said(tmp_path / "new") == (("final_layer", "proprio_embedder", "x_embedder"), ("diffusion",))
    go(tmp_path / "again", data, init=tmp_path / "new/out", stages=[SEE])
    assert said(tmp_path / "again") == (HEADS, ("diffusion",)), "nobody trained them yet"
    go(tmp_path / "tuned", data, init=tmp_path / "new/out")
    assert said(tmp_path / "tuned") == ((), BOTH)


def test_weights_of_the_moment_can_be_evaluated_before_their_stage(data, tmp_path):
    seen = []

    def evaluate(folder):
        seen.append(Policy.from_checkpoint(folder).predict(observation()).action.shape)
        return {}

    go(tmp_path, data, stages=[SEE, ACT], request=dict(evaluate=evaluate, evaluate_every=1))
    assert seen == [(1, 7), (1, 7)]
