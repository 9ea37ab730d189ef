"""Parts of the general recipe: the shared prefix, all sequences of table 1, noise, chunks, stages, mixtures, augmentation."""
from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy_data
import yaml
from small_models import tiniest

from hybridvla_core.configuration import load_file
from hybridvla_core.data.mixture import MixtureConfig, by_size, mix, read_mixture
from hybridvla_core.errors import ConfigurationError, DataError
from hybridvla_core.model.hybridvla import HybridVLA
from hybridvla_core.model.presets import preset
from hybridvla_core.paths import ROOT
from hybridvla_core.training.augment import NEUTRAL, apply_augmentation, draw_augmentation
from hybridvla_core.training.hybrid.batch import Batch
from hybridvla_core.training.hybrid.config import ObjectiveConfig, StageConfig, TrainingConfig
from hybridvla_core.training.hybrid.draws import Noise
from hybridvla_core.training.hybrid.objective import HybridObjective
from hybridvla_core.training.hybrid.rows import markers_before_tokens, markers_behind_text, token_behind_actions
from hybridvla_core.training.hybrid.stages import choose_parameters
from hybridvla_core.transforms.images import picture_key

BOTH = frozenset({"diffusion", "tokens"})


def setting(kind=1, state="embedding", chunk=1, repeats=3, **changes):
    """Return a model, its objective and a batch of texts of different lengths."""
    config = tiniest(chunk=chunk, sequence=replace(tiniest().sequence, kind=kind, state=state))
    torch.manual_seed(1)
    model = HybridVLA(config).initialise(0.3)
    objective = HybridObjective(model, ObjectiveConfig(repeats=repeats, **changes), "resize-naive")
    rng = np.random.default_rng(2)
    texts = [[*rng.integers(3, 500, size), *markers_behind_text(config)] for size in (3, 7)]
    text = torch.full((2, max(map(len, texts))), config.sequence.pad)
    for row, ids in enumerate(texts):
        text[row, :len(ids)] = torch.tensor(ids)
    actions = torch.from_numpy(rng.uniform(-1, 1, (2, chunk, 7))).float()
    tokens = objective.tokens.encode(actions[:, 0])
    targets = torch.cat([tokens, torch.full((2, 1), token_behind_actions(config))], 1)
    picture = torch.from_numpy(rng.integers(0, 255, (2, 1, 32, 32, 3)).astype(np.uint8))
    noise = Noise(objective.objective, 4, "released").draw(5, 0, 0, 2, slice(0, 2), actions)
    batch = Batch({picture_key(config.towers[0], "resize-naive"): picture}, None, text, torch.tensor([len(ids) for ids in texts]),
                  torch.from_numpy(rng.uniform(-1, 1, (2, 7))).float(), actions, torch.zeros(2, chunk, dtype=torch.bool), tokens,
                  targets, noise)
    return model, objective, batch


def one_by_one(model, objective, batch, terms):
    """Compute the same losses from one sequence per sample and copy, built row by row as table 1 draws it."""
    config, sequence = model.config, model.config.sequence
    patches = model.encode_images(objective.pixels(batch))

    def ids(*values):
        return model.embed_tokens(torch.tensor(values, dtype=torch.long))

    errors, crosses = [], []
    for row in range(len(batch)):
        text = batch.text[row, :batch.lengths[row]].tolist()
        for copy in range(objective.objective.repeats):
            rows = [ids(sequence.bos), patches[row], ids(*text)]
            if sequence.state == "embedding":
                rows.append(model.embed_state(batch.state[row:row + 1]))
            answer = ids(*batch.tokens[row].tolist())
            if sequence.kind == 4 and "tokens" in terms:
                before = sum(map(len, rows))
                rows.append(answer)
            if "diffusion" in terms:
                rows += [ids(sequence.bod)] if sequence.kind == 4 else []
                rows.append(model.embed_timestep(batch.noise.timesteps[row, copy:copy + 1]))
                first = sum(map(len, rows))
                rows.append(model.embed_action(batch.noise.noisy[row, copy]))
            if sequence.kind != 4:
                rows.append(ids(*markers_before_tokens(config)))
                before = sum(map(len, rows))
                rows.append(answer)
            whole = torch.cat([part for part in rows if len(part)])[None]
            hidden = model.llm(whole, torch.arange(whole.shape[1]))[0]
            if "diffusion" in terms:
                predicted = model.noise_prediction(hidden[first:first + config.chunk])
                errors.append((predicted - batch.noise.target[row, copy]).square().flatten())
            if "tokens" in terms:
                logits = model.llm.logits(hidden[before - 1:before + config.action_dim])
                crosses.append(torch.nn.functional.cross_entropy(logits, batch.targets[row], reduction="none"))
    found = {"diffusion": torch.cat(errors).mean()} if errors else {}
    return {**found, "tokens": torch.cat(crosses).mean()} if crosses else found


def gradients(model, total):
    model.zero_grad(set_to_none=True)
    total.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("terms", [BOTH, {"tokens"}, {"diffusion"}], ids=lambda terms: "+".join(sorted(terms)))
@pytest.mark.parametrize("kind, state, chunk", [(1, "embedding", 1), (1, "embedding", 3), (1, "none", 1), (2, "embedding", 1),
                                                (2, "none", 1), (3, "words", 1), (4, "embedding", 1), (4, "none", 2)])
def test_one_shared_prefix_gives_what_a_sequence_for_each_copy_gives(kind, state, chunk, terms):
    model, objective, batch = setting(kind, state, chunk)
    terms = frozenset(terms)
    counts = objective.counts(batch, terms)
    shared = {name: value / counts[name] for name, value in objective(batch, terms).items()}
    ours = gradients(model, sum(shared.values()))
    alone = one_by_one(model, objective, batch, terms)
    theirs = gradients(model, sum(alone.values()))
    assert shared.keys() == alone.keys() == terms
    for name, value in alone.items():
        assert float(shared[name].detach()) == pytest.approx(float(value.detach()), abs=2e-6), name
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        np.testing.assert_allclose(ours[name], gradient, atol=2e-6, err_msg=name)


def test_what_lies_behind_the_episode_teaches_nothing():
    model, objective, batch = setting(chunk=3)
    padding = torch.tensor([[False, False, True], [False, True, True]])
    padded = replace(batch, padding=padding)
    other = replace(padded, noise=replace(padded.noise, target=padded.noise.target + 9.0 * padding[:, None, :, None]))
    one, two = (objective(given, BOTH)["diffusion"] for given in (padded, other))
    assert float(one.detach()) == float(two.detach()) < float(objective(batch, BOTH)["diffusion"].detach())
    assert objective.counts(padded, BOTH)["diffusion"] == 3 * 3 * 7


def test_tokens_with_a_condition_of_their_own_are_decoded_once_behind_it():
    model, objective, batch = setting(token_condition="own", condition_zero=1.0)
    plan = objective.plan(batch, BOTH)
    assert plan.own and plan.tokens_from(batch.lengths).shape == (2, 1, 8) and bool((batch.noise.condition_timesteps == 0).all())
    copies = replace(batch.noise, noisy=batch.noise.condition[:, None].expand(-1, 3, -1, -1).contiguous(),
                     timesteps=torch.zeros(2, 3, dtype=torch.long))
    _, plain, _ = setting()
    plain.model.load_state_dict(model.state_dict())
    released = plain(replace(batch, noise=copies), BOTH)["tokens"] / 3
    assert float(objective(batch, BOTH)["tokens"].detach()) == pytest.approx(float(released.detach()), rel=1e-5)


def test_the_noise_of_a_step_is_the_same_for_any_share_of_it():
    actions = torch.linspace(-1, 1, 8 * 7).view(8, 1, 7)
    noise = Noise(ObjectiveConfig(x0_jitter=0.1, inference_share=0.5, condition_zero=0.5, weight_max=5.0), 4, "released")
    whole, again = (noise.draw(3, 1, 17, 8, slice(0, 8), actions) for _ in range(2))
    half = noise.draw(3, 1, 17, 8, slice(4, 8), actions[4:])
    other = noise.draw(3, 1, 18, 8, slice(0, 8), actions)
    for name in vars(whole):
        drawn = getattr(whole, name)
        assert torch.equal(drawn, getattr(again, name)) and torch.equal(drawn[4:], getattr(half, name))
    assert not torch.equal(whole.noisy, other.noisy)
    abar = noise.abar[whole.timesteps][..., None, None]
    clean = (whole.noisy - (1 - abar).sqrt() * whole.target) / abar.sqrt()
    torch.testing.assert_close(clean, actions[:, None].expand(-1, 4, -1, -1), atol=2e-2, rtol=0)


@pytest.mark.parametrize("train, trained, frozen", [
    ("align", ["projector", "x_embedder", "proprio_embedder"], ["vision_backbone", "llm"]),
    ("finetune", ["projector", "llm", "final_layer"], ["vision_backbone"]),
    ("full", ["vision_backbone", "projector", "llm", "t_embedder"], []),
    ("last_layer", ["llm.lm_head", "llm.model.embed_tokens", "x_embedder"], ["vision_backbone", "projector", "llm.model.norm"]),
    ("sandwich", ["vision_backbone", "projector", "llm.lm_head"], ["llm.model.norm"]),
    ("towers", ["vision_backbone", "tower_norm"], ["projector.", "llm"]),
])
def test_a_stage_trains_its_parts_and_leaves_the_others(train, trained, frozen):
    _, objective, batch = setting()
    chosen = choose_parameters(objective, StageConfig("stage", 1, train), 1, False)
    names = [name for name, _ in objective.named_parameters()]
    assert all(name in chosen for part in trained for name in names if name.startswith(f"model.{part}"))
    assert not any(name in chosen for part in frozen for name in names if name.startswith(f"model.{part}"))
    sum(objective(batch, BOTH).values()).backward()
    moved = {name for name, parameter in objective.named_parameters() if parameter.grad is not None}
    assert moved == chosen


def test_the_papers_mixture_is_table_six_and_is_renormalised_over_what_is_there():
    config = read_mixture(ROOT / "config/mixtures/oxe_35.yaml")
    assert len(config.weights) == 35 and sum(config.weights.values()) == pytest.approx(100.2)
    mixture, absent = mix(config, ["kuka", "droid"], "oxe")
    assert dict(zip(mixture.names, mixture.shares)) == pytest.approx({"kuka": 27.8 / 35.0, "droid": 7.2 / 35.0})
    assert len(absent) == 33 and "bc_z" in absent
    assert "79.43 %  kuka" in mixture.table(absent) and "not present: austin" in mixture.table(absent)
    with pytest.raises(DataError, match="oxe: names no weight for mine; add one"):
        mix(config, ["kuka", "mine"], "oxe")
    with pytest.raises(ConfigurationError, match="weights of kuka must be above 0"):
        MixtureConfig({"kuka": 0.0})


def test_draws_follow_the_shares_and_the_sizes():
    sets, places = by_size({"a": 30, "b": 10}).draw(20000, [30, 10], np.random.default_rng(0))
    assert np.mean(sets == 0) == pytest.approx(0.75, abs=0.01)
    assert set(places[sets == 1]) == set(range(10)) and places[sets == 0].max() == 29


def test_released_augmentation_turns_colours_as_the_hue_model_says():
    rng = np.random.default_rng(4)
    pixels = torch.from_numpy(rng.random((6, 3, 8, 8)).astype(np.float32))
    numbers = np.tile(np.array(NEUTRAL, np.float32), (6, 1))
    torch.testing.assert_close(apply_augmentation(pixels, torch.from_numpy(numbers)), pixels)
    numbers[:, 5], numbers[:, 6] = 1.2, rng.uniform(-0.05, 0.05, 6)
    found = apply_augmentation(pixels, torch.from_numpy(numbers))
    for index in range(6):
        h, s, v = colorsys.rgb_to_hsv(*(float(value) for value in pixels[index, :, 3, 5]))
        expected = colorsys.hsv_to_rgb((h + float(numbers[index, 6])) % 1.0, min(1.0, 1.2 * s), v)
        np.testing.assert_allclose(found[index, :, 3, 5], expected, atol=2e-6)
    drawn = draw_augmentation("released", (500,), np.random.default_rng(1))
    assert np.allclose(drawn[:, 0], 0.9 ** 0.5) and np.abs(drawn[:, 3]).max() <= 0.2 and np.abs(drawn[:, 6]).max() <= 0.05
    assert drawn[:, 4:6].min() >= 0.8 and drawn[:, 4:6].max() <= 1.2
    step = torch.zeros(1, 3, 41, 41)
    step[..., 20:] = 1.0
    crop = np.array([[0.5, 0.0, 0.5, 0, 1, 1, 0, 1, 1, 1]], np.float32)
    # Half of the picture, with its left edge at a quarter: the step stays in the middle.
    assert apply_augmentation(step, torch.from_numpy(crop))[0, 0, 20].round().diff().nonzero().item() in (18, 19, 20)


@pytest.mark.parametrize("changes, words", [
    (dict(recipe="tiny"), "this trainer runs hybrid"),
    (dict(stages=[]), "stages is empty"),
    (dict(stages=[dict(name="a", steps=1, train="half")]), "train is 'half'; use one of align"),
    (dict(stages=[dict(name="a", steps=1, terms=["noise"])]), "terms noise are unknown"),
    (dict(objective=dict(diffusion=0.0, tokens=0.0)), "nothing would be learned"),
    (dict(objective=dict(repeats=0)), "repeats"),
    (dict(sequence=3), "its state in words"),
    (dict(seed=2_000_000), "larger ones belong to evaluation"),
    (dict(optimizer=dict(schedule="linear")), "use one of constant, cosine"),
    (dict(lora=dict(rank=0)), "lora: rank"),
    (dict(lora=dict(rank=4), stages=[dict(name="a", steps=1, train="align")]), "stages are finetune or full"),
    (dict(batch="many"), "batch"),
    (dict(stages=[dict(name="a", steps=1, batch=-8)]), "stage a: batch"),
    (dict(augment="mirrored"), "augment is 'mirrored'; use one of none, released, photometric"),
    *((dict(augment="released", grounding=dict(weights)), f"grounding: {names} would be taught by .* write augment: photometric")
      for names, weights in (("patches", dict(patches=0.1)), ("pointing", dict(pointing=0.1)),
                             ("attention, pointing", dict(attention=0.1, attention_layers=[0], pointing=0.1)))),
    (dict(preset="", tokenizer="tokenizer.json"), "tokenizer is for a preset; a run that starts from --init CHECKPOINT keeps"),
])
def test_a_recipe_that_does_not_fit_is_named(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        toy_data.config(**changes)


def test_released_augmentation_goes_with_what_is_not_taught_by_patches():
    grounding = dict(places=0.3, state_action=0.3, subtask=0.3, turns=0.3)
    assert toy_data.config(augment="released", grounding=grounding).grounding.used
    assert toy_data.config(augment="photometric", grounding=toy_data.GROUNDED).grounding.patches


def test_the_released_recipe_is_the_papers():
    values = yaml.safe_load((ROOT / "config/training/paper.yaml").read_text())
    config = toy_data.config(**{**values, "preset": "", "ema": 0.0})
    assert config.optimizer.factor(0, 100) == config.optimizer.factor(99, 100) == 1.0
    assert (config.batch, config.objective.repeats, config.stages[0].learning_rate) == (256, 4, 2e-5)
    assert config.optimizer.betas == (0.9, 0.999) and config.optimizer.weight_decay == 0.0 and not config.ema


@pytest.mark.parametrize("name, stages", [
    *((name, ["see", "ground", "act"]) for name in ("suite", "suite_gpu", "dual_gpu", "tiny_general")),
    ("dual", ["see", "act"]), ("dual_front", ["act"]), ("dual_views", ["act"]),
    ("dual_diffusion", ["act"])])    # of a checkpoint whose words are grounded
def test_recipes_of_the_tasks_see_ground_and_act_with_what_their_model_has(name, stages):
    recipe = load_file(TrainingConfig, ROOT / f"config/training/{name}.yaml")
    decoder, grounding = preset(recipe.preset or "tiny").decoder, recipe.grounding
    grounding.fit(decoder.layers, decoder.heads)
    assert [stage.name for stage in recipe.stages] == stages
    assert grounding.attention and grounding.subtask and recipe.state_noise.used
    fixed = grounding.placing(recipe.cameras, 1)
    assert not fixed or [view for view, known in zip(recipe.cameras, fixed) if known] == ["front"], "hand cameras move"
    assert fixed or recipe.cameras == ("front",)
    assert recipe.statistics_tail == (0.01 if name == "tiny_general" else 0.001)
    assert (recipe.labels, recipe.draw) == {"suit": (2, "moments"), "dual": (1, "rows"), "tiny": (4, "rows")}[name[:4]]


def test_the_released_way_that_is_timed_gives_the_same_loss_and_gradients():
    pytest.importorskip("transformers")
    from hybridvla_core.training.speed import Setting, Step, measure, released

    config = tiniest(chunk=2)
    step = Step(Setting("tiniest", config, 2, 3))
    ours = gradients(step.objective.model, step.loss())
    other = released(step)
    assert other() == pytest.approx(float(step.loss().detach()), abs=1e-5)
    theirs = {name: parameter.grad for name, parameter in step.objective.model.named_parameters() if parameter.grad is not None}
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        np.testing.assert_allclose(theirs[name], gradient, atol=2e-6, err_msg=name)
    found = measure(Setting("tiniest", config, 2, 3), 1, 0.1, {"compared": released})
    assert found["samples_per_s"] > 0 and found["gflop"] > 0 and found["ratios"]["compared_over_ours"] > 0
    assert found["rows"] == step.rows == 1 + 4 + 21 + 1 + 3 * (1 + 2 + 1 + 7)
