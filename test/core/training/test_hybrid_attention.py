"""`grounding: attention`: the decoder's own heads attend from a name to the patches of what it names."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import toy_data
from test_hybrid_run import GROUNDED, go

from hybridvla_core.errors import ConfigurationError, HybridVLAError
from hybridvla_core.model.decoder import Probe
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.sequence import embed_bos
from hybridvla_core.training.hybrid.grounding.config import GroundingConfig
from hybridvla_core.training.hybrid.grounding.heads import GroundingHeads
from hybridvla_core.training.hybrid.objective import HybridObjective
from hybridvla_core.training.hybrid.parts import ATTENTION

ONLY = frozenset([ATTENTION])


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    toy_data.add_preset(monkeypatch, layers=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data.write(tmp_path_factory.mktemp("data") / "toy", sentences=3, views={"front": (32, 32), "wrist": (32, 32)})


def subject(data):
    config = toy_data.config(grounding=dict(attention=1.0, attention_layers=[1], attention_heads=1), batch=12, labels=3)
    source = toy_data.feed(data.parent, config)
    torch.manual_seed(1)
    model = HybridVLA(source.model).initialise(0.3)
    heads = GroundingHeads(config.grounding, source.model.vision_width, source.model.decoder.hidden, 7)
    return HybridObjective(model, config.objective, "resize-naive", heads), source.training(0, 4, 12)


def by_hand(objective, batch):
    """Compute the mean over all names that are shown, from attention weights: each sentence alone after its pictures."""
    model, config, found = objective.model, objective.heads.config, []
    features = model.project(model.vision_features(objective.pixels(batch)))
    for number, sample in enumerate(batch.mentions.sample.tolist()):
        shown = batch.mentions.patches[number]
        if not shown.any():
            continue
        words = model.embed_tokens(batch.text[sample:sample + 1, :batch.lengths[sample]])
        seen = features[sample // batch.labels][None]
        rows = torch.cat([embed_bos(model, words.device).expand(1, -1, -1), seen, words], dim=1)
        probe = Probe.of(config.attention_layers)
        model.llm(rows, torch.arange(rows.shape[1]), attention_probe=probe)
        at = 1 + seen.shape[1] + int(batch.mentions.end[number]) - 1
        for scores in probe.values():
            weights = scores[0, :config.attention_heads, at].softmax(-1)[:, 1:1 + seen.shape[1]]
            found.append(-weights[:, shown].log().mean())
    return torch.stack(found).mean()


@pytest.mark.parametrize("changes", [dict(), dict(attention_layers=[0]), dict(attention_layers=[0, 1], attention_heads=2)])
def test_the_term_is_the_mean_of_what_each_name_misses(data, changes):
    objective, batch = subject(data)
    objective.heads.config = replace(objective.heads.config, **changes)
    terms, counts = objective(batch, ONLY), objective.counts(batch, ONLY)
    assert terms.keys() == ONLY and counts[ATTENTION] == float(batch.mentions.patches.any(1).sum()) > 4
    assert len(set(batch.lengths.tolist())) > 1, "texts of several lengths"
    torch.testing.assert_close(terms[ATTENTION] / counts[ATTENTION], by_hand(objective, batch), atol=1e-5, rtol=1e-5)


def test_what_is_not_shown_teaches_nothing_and_what_is_counts_the_same_beside_it(data):
    objective, batch = subject(data)
    hidden = batch.mentions.patches.clone()
    hidden[::2] = False
    half = replace(batch, mentions=replace(batch.mentions, patches=hidden))
    torch.testing.assert_close(objective(half, ONLY)[ATTENTION] / objective.counts(half, ONLY)[ATTENTION],
                               by_hand(objective, half), atol=1e-5, rtol=1e-5)
    none = replace(batch, mentions=replace(batch.mentions, patches=torch.zeros_like(hidden)))
    assert objective(none, ONLY)[ATTENTION].item() == 0.0 == objective.counts(none, ONLY)[ATTENTION]


def test_a_batch_without_names_has_a_term_that_can_be_differentiated(data):
    objective, batch = subject(data)
    nothing = objective(replace(batch, mentions=None), ONLY)[ATTENTION]
    nothing.backward()
    assert nothing.item() == 0.0
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in objective.parameters() if parameter.grad is not None)


def test_a_few_steps_turn_the_heads_to_what_is_named(data):
    objective, batch = subject(data)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    missed = []
    for _ in range(12):
        optimiser.zero_grad()
        missed.append(objective(batch, ONLY)[ATTENTION] / objective.counts(batch, ONLY)[ATTENTION])
        missed[-1].backward()
        optimiser.step()
    assert missed[-1] < 0.7 * missed[0]


def test_recomputed_activations_change_nothing(data):
    objective, batch = subject(data)
    found = []
    for again in (False, True):
        objective.model.llm.checkpointing = again
        objective.zero_grad()
        objective(batch, ONLY)[ATTENTION].backward()
        found.append({name: parameter.grad.clone() for name, parameter in objective.named_parameters()
                      if parameter.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("changes, words", [
    (dict(attention=0.2), "attention needs attention_layers"),
    (dict(attention=0.2, attention_layers=[1, 1]), r"attention_layers \[1, 1\] must be numbers of layers from 0, each once"),
    (dict(attention=0.2, attention_layers=[-1]), "from 0"),
    (dict(attention=0.2, attention_layers=[1], attention_heads=0), "attention_heads"),
    (dict(attention=-1.0, attention_layers=[1]), "grounding: attention")])
def test_a_recipe_that_does_not_fit_is_named(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        GroundingConfig(**changes)


@pytest.mark.parametrize("changes, words", [
    (dict(attention_layers=[0, 7]), r"attention_layers \[0, 7\]: the decoder has \d layers, 0 to \d"),
    (dict(attention_heads=64), r"attention_heads is 64; a layer of the decoder has \d")])
def test_layers_and_heads_that_the_decoder_has_not_are_refused_before_the_first_step(data, tmp_path, changes, words):
    with pytest.raises(ConfigurationError, match=words):
        go(tmp_path, data, config=toy_data.config(grounding={**GROUNDED, **changes}))


def test_runs_begun_before_there_was_attention_go_on_and_with_it_they_are_others(data, tmp_path):
    before = {"patches": 0.3, "places": 0.3}
    config = toy_data.config(grounding=before, stages=[dict(name="act", steps=2, train="full")])
    go(tmp_path, data, config=config)
    for origin in toy_data.origins(tmp_path):
        said = origin["configuration"]["grounding"]
        assert not [key for key in said if key.startswith("attention")] and said["places"] == 0.3
    go(tmp_path, data, config=config)
    other = toy_data.config(grounding={**before, "attention": 0.1, "attention_layers": [0]}, stages=[
        dict(name="act", steps=2, train="full")])
    with pytest.raises(HybridVLAError, match=r"another configuration \(grounding\)"):
        go(tmp_path, data, config=other)
