"""What a run starts from: data sets and a checkpoint whose views, grids, rates and denoising steps have the same meaning."""
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import toy_data
from small_policy import CONVENTION
from toy_data import config, go, origins, write

from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.errors import ConfigurationError, DataError, HybridVLAError
from hybridvla_core.model.schedule import DiffusionSchedule
from hybridvla_core.training.hybrid import parts
from hybridvla_core.training.hybrid.grounding.heads import GroundingHeads
from hybridvla_core.training.hybrid.start import prepare

GROUNDED = toy_data.GROUNDED
TWO = {"front": (32, 32), "wrist": (32, 32)}


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    toy_data.add_preset(monkeypatch)


def other(**changes):
    return {**dataclasses.asdict(CONVENTION), **changes}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("cameras, moved", [(["front"], 0), (["wrist"], 1), (["wrist", "front"], 1)])
def test_a_model_sees_the_patches_of_its_own_views_in_its_own_order(tmp_path, kept, cameras, moved):
    data = write(tmp_path / "toy", views=TWO)
    recipe = config(cameras=cameras, grounding=GROUNDED, keep_frames=kept)
    go(tmp_path, data, cameras=cameras, grounding=GROUNDED, keep_frames=kept)
    start = prepare(recipe, (data,), None)
    if kept:
        start.sets[0].keep(tmp_path / "work/pictures")
    samples, fitted = start.sets[0].read([start.sets[0].train[0]])
    assert list(samples[0].images) == cameras and len(next(iter(fitted.values()))) == len(cameras)
    batch = toy_data.feed(tmp_path, recipe).training(0, 0, 4)
    shown = batch.mentions.patches[:, :4]
    assert bool((shown.sum(1) == 1).all())
    corners = 2 * (batch.mentions.place[:, 0] > 0.5) + (batch.mentions.place[:, 1] > 0)
    # In the toy data, the second view shows objects one patch further.
    assert shown.int().argmax(1).tolist() == ((corners + moved) % 4).tolist()


def test_pictures_and_states_of_another_set_of_the_same_name_and_size_are_not_taken_for_this_ones(tmp_path):
    one, two = (write(tmp_path / name / "toy", seed=seed) for name, seed in (("one", 0), ("two", 1)))
    go(tmp_path, one, keep_frames=True)
    with pytest.raises(HybridVLAError, match="begun with another data"):
        go(tmp_path, two, keep_frames=True)
    frames = prepare(config(), (two,), None).sets[0]
    decoded = next(iter(frames.read([0])[1].values())).copy()
    frames.keep(tmp_path / "work/pictures")
    assert np.array_equal(next(iter(frames.read([0])[1].values())), decoded)
    assert len(list((tmp_path / "work/pictures").glob("toy-*"))) == 2


@pytest.mark.parametrize("grid, words", [(4, "in 4 rows of 4"), (0, "does not say in which grid")])
def test_patches_of_another_grid_are_refused_where_they_would_teach(tmp_path, grid, words):
    data = write(tmp_path / "toy", grid=grid)
    with pytest.raises(DataError, match=words):
        go(tmp_path, data, grounding=GROUNDED)
    go(tmp_path, data)


def test_patches_behind_the_grid_are_named_and_not_dropped(tmp_path):
    data = write(tmp_path / "toy", views=TWO, patches=6)      # the second view names patch 4, and patches 0 to 3 exist
    with pytest.raises(DataError, match="grounding names patch 4 of view wrist, and the model sees 4"):
        go(tmp_path, data, grounding=GROUNDED)


@pytest.mark.parametrize("term, heads", [(parts.PATCHES, ("patch_name", "word_name", "patch_place", "patch_turn")),
                                         (parts.POINTING, ("query", "key")), (parts.PLACES, ("place", "turn"))])
def test_a_batch_that_names_nothing_gives_the_same_gradients_to_be_summed(tmp_path, term, heads):
    """Otherwise one of several processes leaves out a gradient that the others wait for."""
    recipe = config(grounding={**GROUNDED, "turns": 1.0})
    source = toy_data.feed(tmp_path, recipe)
    batch = source.training(0, 0, 4)
    nothing = dataclasses.replace(batch.mentions, **{field.name: getattr(batch.mentions, field.name)[:0]
                                                     for field in dataclasses.fields(batch.mentions)})
    hidden, model = source.model.decoder.hidden, source.model
    for mentions in (batch.mentions, nothing):
        at_hand = dataclasses.replace(batch, mentions=mentions)
        found, embed = GroundingHeads(recipe.grounding, model.vision_width, hidden, 7), torch.nn.Embedding(900, hidden)
        words, seen = torch.randn(4, batch.text.shape[1], hidden), torch.randn(4, model.patches, hidden)
        if term == parts.PATCHES:
            loss = found.patches(torch.randn(4, model.patches, model.vision_width), at_hand, embed)
            assert loss.backward() is None and embed.weight.grad is not None
        else:
            found.words(words, seen, words[:, -1], at_hand, frozenset([term]))[term].backward()
        for name in heads:
            gradients = [parameter.grad for parameter in getattr(found, name).parameters()]
            assert all(gradient is not None for gradient in gradients), name
            assert any(bool(gradient.any()) for gradient in gradients) == (mentions is batch.mentions), name
        assert {name.split(".")[0] for name, parameter in found.named_parameters() if parameter.grad is not None} == set(heads)


def moving_part(heads, batch, model):
    """Return the size (2,) of the gradient that the loss of places gives to the features of the front and wrist views."""
    for part in (heads.patch_name, heads.word_name):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    features = torch.randn(len(batch), 2 * model.patches, model.vision_width, requires_grad=True)
    heads.patches(features, batch, torch.nn.Embedding(900, model.decoder.hidden)).backward()
    return features.grad.abs().sum((0, 2)).reshape(2, -1).sum(1)


def test_only_views_that_know_places_are_asked_for_them(tmp_path):
    write(tmp_path / "toy", views=TWO)
    recipe = config(grounding={**GROUNDED, "place_views": ["front"]})
    source = toy_data.feed(tmp_path, recipe)
    model, batch = source.model, source.training(0, 0, 8)
    front = batch.mentions.patches.clone()
    front[:, 4:] = False
    hidden = dataclasses.replace(batch.mentions, patches=batch.mentions.patches & ~front)      # only the wrist shows them
    some = dataclasses.replace(batch.mentions, patches=torch.where(torch.arange(8)[:, None] < 3, hidden.patches,
                                                                   batch.mentions.patches))
    every, terms = frozenset([parts.PATCHES, parts.PLACES]), frozenset([parts.PLACES])
    words, end = torch.randn(8, batch.text.shape[1], model.decoder.hidden), torch.randn(8, model.decoder.hidden)
    seen, found = torch.randn(8, 2 * model.patches, model.decoder.hidden), {}
    batches = [dataclasses.replace(batch, mentions=mentions) for mentions in (batch.mentions, some, hidden)]
    for views in ((), ("front",)):
        torch.manual_seed(0)
        grounding = dataclasses.replace(recipe.grounding, place_views=views)
        placing = grounding.placing(("front", "wrist"), 4)
        heads = GroundingHeads(grounding, model.vision_width, model.decoder.hidden, 7, 4, placing)
        found[views] = [float(heads.words(words, seen, end, given, terms)[parts.PLACES].detach()) for given in batches]
        counts = [heads.counts(given, every) for given in batches]
        assert [count[parts.PATCHES] for count in counts] == [8, 8, 8], "names are told in all views"
        assert [count[parts.PLACES] for count in counts] == ([8, 5, 0] if views else [8, 8, 8])
        asked = moving_part(heads, batch, model)
        assert asked[0] > 0 and (asked[1] > 0) == (not views)
    assert found[()][0] == found["front",][0] > found["front",][1] > found["front",][2] == 0.0
    go(tmp_path, tmp_path / "toy", grounding={**GROUNDED, "place_views": ["front"]})
    assert all("place_views" in origin["configuration"]["grounding"] for origin in origins(tmp_path))


def test_a_view_that_the_model_has_not_is_named_and_without_one_older_runs_go_on(tmp_path):
    data = write(tmp_path / "toy", views=TWO)
    with pytest.raises(ConfigurationError, match="place_views names side; the model's cameras are wrist, front"):
        go(tmp_path, data, cameras=["wrist", "front"], grounding={**GROUNDED, "place_views": ["front", "side"]})
    go(tmp_path, data, grounding=GROUNDED)
    for origin in origins(tmp_path):
        assert "place_views" not in origin["configuration"]["grounding"] and "draw" not in origin["configuration"]
    go(tmp_path, data, grounding=GROUNDED)


@pytest.mark.parametrize("changes, words", [
    (dict(action_period_s=0.1), "one leads to keyframes"), (dict(delta_base="commanded"), "delta_base"),
    (dict(state_source="last_command"), "state_source")])
def test_data_whose_actions_mean_something_else_are_not_mixed(tmp_path, changes, words):
    one = write(tmp_path / "one", name="one")
    two = write(tmp_path / "two", name="two", convention=other(**changes))
    with pytest.raises(DataError, match=words):
        go(tmp_path, one, two)


def test_data_sets_in_another_order_are_another_run(tmp_path):
    one, two = (write(tmp_path / name, name=name, seed=seed) for seed, name in enumerate(("one", "two")))
    go(tmp_path, one, two)
    with pytest.raises(HybridVLAError, match=r"work: .* data sets in another order \(one, two\); give another --work"):
        go(tmp_path, two, one)
    assert go(tmp_path, one, two)["finished"]


def test_data_of_two_rates_are_mixed_with_a_word_about_it(tmp_path, caplog):
    one, two = (write(tmp_path / name, name=name, convention=other(action_period_s=period))
                for name, period in (("one", 0.1), ("two", 0.2)))
    go(tmp_path, one, two)
    assert "action_period_s is 0.2 and 0.1" in caplog.text
    assert read_checkpoint(tmp_path / "out").config.convention.action_period_s == 0.1


def test_sets_with_other_statistics_are_named_and_so_is_the_one_whose_statistics_the_checkpoint_gets(tmp_path, caplog):
    one, same, two = (write(tmp_path / name, name=name, episodes=count) for name, count in (("one", 4), ("same", 4), ("two", 3)))
    assert prepare(config(), (one, same), None).checkpoint.statistics_key == "one"
    assert not caplog.text
    assert prepare(config(), (one, same, two), None).checkpoint.statistics_key == "one"
    (said,) = caplog.messages
    assert said.startswith(f"{one}: the checkpoint gets the statistics of this set (one)") and "those of two differ" in said
    assert "`hybridvla dataset merge DIR DIR -o NEW`" in said
    go(tmp_path / "base", one)
    caplog.clear()
    prepare(config(preset="", statistics="init"), (one, two), tmp_path / "base/out")
    assert "differ" not in caplog.text


def test_what_the_recipe_does_not_say_is_the_checkpoints_and_what_it_says_counts(tmp_path):
    data = write(tmp_path / "toy")
    go(tmp_path / "base", data, chunk=3, ddim_steps=5, confidence_window_bins=2, image_strategy="letterbox")
    base = tmp_path / "base/out"
    said = read_checkpoint(base).config
    assert (said.model.chunk, said.ddim_steps) == (3, 5)
    assert (said.ensemble.confidence_window_bins, said.image_strategy) == (2, "letterbox")
    go(tmp_path / "kept", data, init=base, preset="", statistics="init")
    assert read_checkpoint(tmp_path / "kept/out").config == said
    go(tmp_path / "said", data, init=base, preset="", statistics="init", chunk=1, ddim_steps=2, confidence_window_bins=0)
    now = read_checkpoint(tmp_path / "said/out").config
    assert (now.model.chunk, now.ddim_steps, now.ensemble.confidence_window_bins, now.image_strategy) == (1, 2, 0, "letterbox")


def test_noise_is_drawn_at_the_timesteps_that_the_checkpoint_visits(tmp_path):
    source = toy_data.feed(tmp_path, config(ddim_steps=2, objective=dict(repeats=2, inference_share=1.0)))
    visited = set(DiffusionSchedule().ddim_timesteps(2).tolist())
    assert set(source.training(0, 0, 8).noise.timesteps.flatten().tolist()) <= visited


def test_the_state_token_is_taught_the_names_of_the_steps(tmp_path):
    recipe = config(grounding=dict(subtask=0.5))
    source = toy_data.feed(tmp_path, recipe)
    batch = source.training(0, 0, 8)
    corners = 2 * (batch.actions[:, 0, 0] > 0) + (batch.actions[:, 0, 1] > 0)
    assert batch.subtasks.tolist() == corners.tolist() and len(set(corners.tolist())) > 2
    model = source.model
    heads = GroundingHeads(recipe.grounding, model.vision_width, model.decoder.hidden, 7, 4)
    some = dataclasses.replace(batch, subtasks=torch.where(torch.arange(8) < 3, -1, batch.subtasks))
    end, terms = torch.randn(8, model.decoder.hidden), frozenset([parts.SUBTASK])
    words, seen = torch.zeros(8, batch.text.shape[1], model.decoder.hidden), torch.zeros(8, model.patches, model.decoder.hidden)
    logits = heads.subtask(end)[3:].log_softmax(-1)
    expected = -logits[torch.arange(5), batch.subtasks[3:]].sum()
    torch.testing.assert_close(heads.words(words, seen, end, some, terms)[parts.SUBTASK], expected)
    assert heads.counts(some, terms) == {parts.SUBTASK: 5.0}


def test_data_that_name_no_step_are_refused_where_steps_are_to_be_known(tmp_path):
    data = write(tmp_path / "toy", subtasks=False)
    with pytest.raises(DataError, match="no row of .*toy names a subtask"):
        go(tmp_path, data, grounding=dict(subtask=0.5))


def test_a_state_that_never_moved_for_the_checkpoint_may_move_now(tmp_path, caplog):
    still = write(tmp_path / "still/toy", still=(3, 4))
    go(tmp_path / "base", still)
    base, moving = tmp_path / "base/out", write(tmp_path / "moving/toy")
    go(tmp_path / "on", moving, init=base, preset="", statistics="init")
    assert "state channel 3, 4 moves, and never did" in caplog.text


def test_a_scene_held_out_in_one_set_and_trained_on_in_another_is_named(tmp_path, caplog):
    one, more, other_scenes = (write(tmp_path / name, episodes=episodes, seed=seed, name=name)
                               for name, episodes, seed in (("one", 4, 0), ("more", 5, 0), ("another", 5, 1)))
    go(tmp_path / "apart", one, other_scenes)
    assert "holds out" not in caplog.text
    go(tmp_path / "both", one, more)
    assert f"1 episode(s) that {one} holds out are trained on in {more}, such as 'episode 3'" in caplog.text
    assert f"{more} holds out" not in caplog.text


def test_patches_and_words_know_how_a_named_object_is_turned(tmp_path):
    recipe = config(grounding=dict(patches=1.0, places=1.0, turns=0.5))
    source = toy_data.feed(tmp_path, recipe)
    mentions = source.training(0, 0, 8).mentions
    corners = (2 * (mentions.place[:, 0] > 0.5) + (mentions.place[:, 1] > 0)).numpy()
    told = corners > 0
    assert told.any() and not told.all()
    np.testing.assert_allclose(mentions.turn[told], np.stack([np.cos(0.8 * corners), np.sin(0.8 * corners)], 1)[told], atol=1e-6)
    assert bool(mentions.turn[~told].isnan().all())
    model, batch = source.model, source.training(0, 0, 8)
    torch.manual_seed(0)
    heads = GroundingHeads(recipe.grounding, model.vision_width, model.decoder.hidden, 7)
    plain = config(grounding=dict(patches=1.0, places=1.0)).grounding
    without = GroundingHeads(plain, model.vision_width, model.decoder.hidden, 7)
    without.load_state_dict({name: value for name, value in heads.state_dict().items() if "turn" not in name})
    features = torch.randn(8, model.patches, model.vision_width)
    hidden = torch.randn(8, batch.text.shape[1], model.decoder.hidden)
    embed, terms = torch.nn.Embedding(4000, model.decoder.hidden), frozenset([parts.PLACES])
    more = heads.patches(features, batch, embed) - without.patches(features, batch, embed)
    here = batch.mentions
    off = [(heads.patch_turn(features[row, here.patches[number]]) - here.turn[number]).abs().mean()
           for number, row in enumerate(here.sample.tolist()) if told_of(here, number)]
    torch.testing.assert_close(more, 0.5 * torch.stack(off).sum())
    seen, end = torch.zeros(8, model.patches, model.decoder.hidden), torch.zeros(8, model.decoder.hidden)
    both, one = (subject.words(hidden, seen, end, batch, terms)[parts.PLACES] for subject in (heads, without))
    more = both - one
    last = heads.turn(hidden[here.sample, here.end - 1])
    off = [torch.nn.functional.smooth_l1_loss(last[number], here.turn[number], beta=0.2)
           for number in range(len(here.sample)) if told_of(here, number)]
    torch.testing.assert_close(more, 0.5 * torch.stack(off).sum())


def told_of(mentions, number):
    return bool(mentions.turn[number].isfinite().all())


def test_data_that_tell_no_turn_are_refused_where_turns_are_to_be_known(tmp_path):
    data = write(tmp_path / "toy", grounded=False)
    with pytest.raises(DataError, match="toy does not say how any object is turned"):
        go(tmp_path, data, grounding=dict(patches=0.5, turns=1.0))
