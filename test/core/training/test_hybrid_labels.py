"""`labels`: the rows of one moment share picture, tower pass and first rows, and nothing else changes."""
from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy_data
from test_hybrid_run import GROUNDED, assert_same, go, rows, weights

from hybridvla_cli.dataset_parts.manage import copy
from hybridvla_core.errors import ConfigurationError, DataError, HybridVLAError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.training.augment import disturb
from hybridvla_core.training.distributed import Processes
from hybridvla_core.training.hybrid.grounding.config import GroundingConfig
from hybridvla_core.training.hybrid.grounding.heads import GroundingHeads
from hybridvla_core.training.hybrid.loop import StageLoop
from hybridvla_core.training.hybrid.objective import HybridObjective
from hybridvla_core.training.hybrid.parts import TERMS

EVERY = frozenset(TERMS)
NOISY = dict(augment="photometric", state_noise=dict(position_m=0.01))


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    toy_data.add_preset(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data.write(tmp_path_factory.mktemp("data") / "toy", sentences=3)


def feed(data, **changes):
    return toy_data.feed(data.parent, toy_data.config(**{**NOISY, "grounding": GROUNDED, "batch": 12, **changes}))


def alone(batch):
    """Return the same rows, each with a picture of its own."""
    return replace(batch, pixels={key: shown.repeat_interleave(batch.labels, 0) for key, shown in batch.pixels.items()},
                   augment=batch.augment.repeat_interleave(batch.labels, 0))


@pytest.mark.parametrize("changes", [dict(), dict(sequence=2, labels=2), dict(sequence=3, state="words"), dict(sequence=4),
                                     dict(objective=dict(repeats=4, token_condition="own", x0_jitter=0.1))])
def test_losses_and_gradients_are_those_of_the_same_rows_alone(tmp_path, changes):
    views = {"front": (32, 32), "wrist": (32, 32)}
    toy_data.write(tmp_path / "toy", sentences=3, episodes=2, views=views)
    source = feed(tmp_path / "toy", **{"labels": 3, "objective": dict(repeats=4), **changes})
    torch.manual_seed(1)
    model = HybridVLA(source.model).initialise(0.3)
    heads = GroundingHeads(GroundingConfig(**GROUNDED), source.model.vision_width, source.model.decoder.hidden, 7, 4)
    objective = HybridObjective(model, source.config.objective, "resize-naive", heads)
    batch = source.training(0, 4, 12)
    assert batch.labels == source.config.labels and len(batch) == 12 and len(batch.mentions.sample) >= 4
    assert source.model.views == 2 and len(set(batch.lengths.tolist())) > 1
    found = []
    for given in (batch, alone(batch)):
        objective.zero_grad(set_to_none=True)
        terms, counts = objective(given, EVERY), objective.counts(given, EVERY)
        sum(value / counts[name] for name, value in terms.items()).backward()
        found.append(({name: float(value.detach()) / counts[name] for name, value in terms.items()},
                      {name: parameter.grad.clone() for name, parameter in objective.named_parameters()
                       if parameter.grad is not None}))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert ours == pytest.approx(theirs, abs=1e-5) and ours.keys() == EVERY and our_gradients.keys() == their_gradients.keys()
    for name, gradient in their_gradients.items():
        np.testing.assert_allclose(our_gradients[name], gradient, atol=1e-5, err_msg=name)


def test_a_step_is_of_moments_with_different_sentences_whichever_process_reads_it(data):
    source = feed(data, labels=3)
    whole = source.training(1, 7, 12)
    texts = whole.text.view(4, 3, -1)
    assert all(len(np.unique(moment.numpy(), axis=0)) == 3 for moment in texts)
    assert bool((whole.state.view(4, 3, -1) == whole.state.view(4, 3, -1)[:, :1]).all()), "state and its noise are one"
    first = feed(data).training(1, 7, 4)
    for ours, theirs in ((whole.text[::3], first.text), (whole.state[::3], first.state), (whole.augment, first.augment)):
        assert torch.equal(ours[:, :theirs.shape[1]], theirs), "the first row of each moment is what is drawn without labels"
    source.rows = Processes(1, 2, torch.device("cpu")).rows
    half = source.training(1, 7, 12)
    for key, shown in half.pixels.items():
        assert torch.equal(shown, whole.pixels[key][2:])
    assert torch.equal(half.state, whole.state[6:]) and torch.equal(half.augment, whole.augment[2:])
    assert torch.equal(half.noise.noisy, whole.noise.noisy[6:])


def test_no_part_of_a_batch_cuts_a_moment_in_two(data):
    batch = feed(data, labels=3).training(0, 0, 12)
    parts = list(batch.parts(8))
    assert [len(part) for part in parts] == [6, 6] and all(part.labels == 3 for part in parts)
    assert torch.equal(torch.cat([part.augment for part in parts]), batch.augment)
    assert [len(part) for part in batch.parts(2)] == [3] * 4


@pytest.mark.parametrize("sentences, labels, different", [(1, 2, 1), (2, 4, 2)])
def test_rows_of_a_moment_that_has_too_few_are_repeated_with_other_noise(tmp_path, caplog, sentences, labels, different):
    folder = toy_data.write(tmp_path / "toy", episodes=2, sentences=sentences)
    batch = feed(folder, labels=labels).training(0, 0, 8)
    for moment in batch.actions.view(8 // labels, labels, -1).numpy().round(4):
        assert len(np.unique(moment, axis=0)) == different
    assert len(np.unique(batch.noise.noisy.flatten(1).numpy(), axis=0)) == 8
    stages = [dict(name="act", steps=1, train="full")]
    go(tmp_path / "run", folder, config=toy_data.config(labels=labels, stages=stages))
    assert f"no picture of toy has more than {sentences} sentence(s)" in caplog.text


@pytest.mark.long
@pytest.mark.parametrize("draw, share, labels", [("rows", 0.75, 1), ("moments", 0.5, 1), ("moments", 0.5, 3)])
def test_a_picture_with_several_sentences_comes_as_often_as_any_other_where_moments_are_drawn(tmp_path, draw, share, labels):
    for name, sentences in (("one", 1), ("three", 3)):
        toy_data.write(tmp_path / name, sentences=sentences, seed=sentences, frames=20, moments=True, labels="next_keyframe")
    copy([tmp_path / "one", tmp_path / "three"], tmp_path / "toy")
    source, several, each = toy_data.feed(tmp_path, toy_data.config(labels=labels, batch=12, draw=draw)), [], set()
    frames = source.sets[0]
    for step in range(100):
        for _, drawn in source._moments(0, step, 12):
            moment = frames.moment(drawn[0])
            assert set(drawn) <= set(moment) <= set(frames.train) and len(set(drawn)) == min(labels, len(moment))
            several.append(len(moment) > 1)
            each.update(drawn)
    assert np.mean(several) == pytest.approx(share, abs=0.05) and len(each) > 0.95 * len(frames.train)


def test_a_run_with_labels_that_dies_goes_on_as_the_same_run(data, tmp_path, monkeypatch):
    config = toy_data.config(labels=2, micro_batch=4, export="float32", keep_frames=True, **NOISY)
    go(tmp_path / "unbroken", data, config=config)
    kept = np.load(next((tmp_path / "unbroken/work/pictures").glob("toy-*/0.npy")))
    assert len(kept) == 4 * 6, "each moment's pictures are kept once"
    whole, steps = StageLoop._step, [0]

    def dies(self, batch, step):
        steps[0] += 1
        if steps[0] == 4:
            raise KeyboardInterrupt
        return whole(self, batch, step)

    monkeypatch.setattr(StageLoop, "_step", dies)
    config = replace(config, keep_frames=False)     # changes no number
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, data, config=config)
    go(tmp_path, data, config=config)
    assert_same(weights(tmp_path), weights(tmp_path / "unbroken"))
    assert rows(tmp_path) == rows(tmp_path / "unbroken")


def test_runs_begun_before_there_were_labels_go_on_and_with_labels_they_are_others(data, tmp_path):
    config = toy_data.config(stages=[dict(name="act", steps=3, train="full")])
    go(tmp_path, data, config=config)
    for origin in toy_data.origins(tmp_path):
        said = origin["configuration"]
        assert "labels" not in said and {"lora", "batch"} <= said.keys(), "a key at its default is as before it was there"
    go(tmp_path, data, config=config)
    with pytest.raises(HybridVLAError, match=r"another configuration \(labels\)"):
        go(tmp_path, data, config=replace(config, labels=2))


@pytest.mark.parametrize("changes, words", [
    (dict(labels=3), "stage act: a batch of 8 samples cannot be made of moments with 3 samples"),
    (dict(labels=4, micro_batch=6), "micro_batch 6 would cut moments of 4 samples"),
    (dict(labels=0), "labels"),
    (dict(labels=2, stages=[dict(name="see", steps=1, batch=3)]), "stage see: a batch of 3")])
def test_labels_that_do_not_fit_the_batch_are_refused(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        toy_data.config(**changes)


def test_moments_that_cannot_be_shared_by_the_processes_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "start", classmethod(lambda cls, device: cls(0, 4, torch.device("cpu"))))
    with pytest.raises(ConfigurationError, match=r"2 moments a step \(4 samples each\) cannot be shared by 4 processes"):
        go(tmp_path, data, config=toy_data.config(labels=4))


def test_a_batch_goes_to_a_device_and_into_pinned_memory_whole(data):
    batch = feed(data, labels=3).training(0, 0, 6)
    there = batch.to(torch.device("cpu"))
    assert there.labels == 3 and {field.name for field in dataclasses.fields(there)} == set(vars(batch))


def test_numbers_of_a_batch_are_scaled_by_the_set_of_each_row(data, tmp_path):
    source = feed(data)
    toy_data.write(tmp_path / "toy", seed=5, sentences=2)
    source.sets = [*source.sets, *feed(tmp_path / "toy").sets]
    sets = [0, 1, 1, 0, 1]
    samples = [source.sets[index].read([frame])[0][0] for frame, index in enumerate(sets)]
    shifts = np.random.default_rng(1).normal(size=(5, 7))
    state, actions = source._numbers(samples, sets, shifts)
    for row, (sample, index) in enumerate(zip(samples, sets)):
        seen, relative = disturb(sample.state, sample.actions, shifts[row], source.from_state)
        scales = source.sets[index].scales
        np.testing.assert_array_equal(state[row].numpy(), scales.state.normalise(seen).astype(np.float32))
        np.testing.assert_array_equal(actions[row].numpy(), scales.action.normalise(relative).astype(np.float32))
    assert not np.array_equal(source.sets[0].scales.state.q01, source.sets[1].scales.state.q01)
    shifts[2, 3] = np.inf
    with pytest.raises(DataError, match="episode 0, frame 2: the state holds a number that is not finite"):
        source._numbers(samples, sets, shifts)
