"""Which words of a sentence name which things: each letter belongs to at most one name, and each name means what people mean."""
import contextlib
import dataclasses

import mujoco
import numpy as np
import pytest
from toy_data import add_preset, config, feed, write

from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_sim import tasks
from hybridvla_sim.demonstrations.record import Recorder, Settings

SENTENCES = [(name, text) for kind in ("fr3", "piper") for name in tasks.chosen(["all"], kind)
             for text in tasks.load(name, rig=kind).phrases.sentences()]
CONFIG, ROBOT = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "diffusion")
DUAL, PIPERS = load_configs(ROOT / "config/policies/agilex.yaml", ROOT / "config/robots/agilex.yaml", "diffusion")


def words(task, text):
    """Return what is named -> the words that name it."""
    return {names: text[begin:end] for (begin, end), names in tasks.load(task).phrases.named(text).items()}


def test_no_two_names_of_a_sentence_share_a_letter_and_each_is_a_noun_of_what_it_names():
    assert len({name for name, _ in SENTENCES}) == 16
    for task, text in SENTENCES:
        phrases = tasks.load(task).phrases
        named = phrases.named(text)
        spans = sorted(named)
        assert named and all(one[1] <= other[0] for one, other in zip(spans, spans[1:])), text
        assert len(set(named.values())) == len(named), f"{text}: a thing is named twice"
        for (begin, end), names in named.items():
            assert names and all(text[begin:end] in phrases.things[name].nouns for name in names), text


@pytest.mark.parametrize("task, text, expected", [
    ("wine_at_rack", "place the wine in the left slot of the wine rack",
     {("bottle",): "wine", ("left",): "left", ("rack",): "wine rack"}),
    ("umbrella_out_of_stand", "take umbrella out of umbrella stand", {("umbrella",): "umbrella", ("stand",): "umbrella stand"}),
    ("close_laptop_lid", "close laptop lid", {("lid",): "laptop lid"}),
    ("water_plants", "pour the water of the can into the plant pot", {("can",): "can", ("pot",): "plant pot"}),
    ("two_arm_pick_and_place", "place the left block and the right block on the plates",
     {("left_block",): "left block", ("right_block",): "right block", ("right_plate", "left_plate"): "plates"}),
    ("two_arm_pick_and_place", "put both blocks on their plates",
     {("right_block", "left_block"): "both blocks", ("right_plate", "left_plate"): "plates"})])
def test_the_longest_noun_counts_and_a_noun_of_two_things_names_both(task, text, expected):
    assert words(task, text) == expected


def test_one_name_of_several_things_is_one_object_of_all_their_patches_and_no_place():
    recorder = Recorder("two_arm_pick_and_place", Settings("piper", ("front",)), DUAL.convention, PIPERS)
    recorder.rig.reset(np.random.default_rng(1))
    patches = recorder.camera.patches()
    found = {item.spans[0]: item for item in recorder.camera.grounding("put both blocks on their plates", patches)}
    assert len(found) == 2 and all(item.place is None for item in found.values())
    of_both = patches["front"]["left_plate"].tolist() + patches["front"]["right_plate"].tolist()
    assert of_both and found[25, 31].patches["front"].tolist() == sorted(set(of_both))
    recorder.close()


def test_dirt_is_one_heap_of_all_five_pieces():
    recorder = Recorder("sweep_to_dustpan", Settings("fr3", ("front",)), CONFIG.convention, ROBOT)
    recorder.rig.reset(np.random.default_rng(3))
    found = {item.spans[0]: item for item in recorder.camera.grounding("clean up the dirt", recorder.camera.patches())}
    pieces = {recorder.rig.model.body(f"dirt_{number}").id for number in range(5)}
    geoms = recorder.camera._geoms["dirt"]
    assert {int(recorder.rig.model.geom_bodyid[geom]) for geom in geoms} == pieces
    middle = np.mean([recorder.rig.data.body(f"dirt_{number}").xpos for number in range(5)], axis=0)
    np.testing.assert_allclose(found[13, 17].place, middle)
    assert len(found[13, 17].patches["front"])
    recorder.close()


def test_names_of_older_data_sets_are_read_the_same_way(tmp_path, monkeypatch):
    """A thing that is named several times counts by its first name, and things that share words are one mention."""
    add_preset(monkeypatch)
    write(tmp_path / "toy", episodes=2)
    source = feed(tmp_path, config(grounding=dict(places=0.3, pointing=0.3)))
    sample = source.sets[0].read([0])[0][0]
    item, pad = sample.grounding[0], sample.instruction.index("pad")
    twice = dataclasses.replace(item, spans=(*item.spans, (pad, pad + 3)))
    one = source._mentions([dataclasses.replace(sample, grounding=[twice])])
    assert int(one.end[0] - one.begin[0]) == 2 and np.isfinite(one.place).all()
    other = dataclasses.replace(item, patches={"front": np.array([0, 3])}, place=item.place + 0.1)
    both = source._mentions([dataclasses.replace(sample, grounding=[item, other])])
    assert len(both.sample) == 1 and bool(both.place.isnan().all())
    assert both.patches[0].nonzero().flatten().tolist() == sorted({0, 3, *item.patches["front"].tolist()})


TURNED = [(name, thing) for kind in ("fr3", "piper") for name in tasks.chosen(["all"], kind)
          for thing, told in tasks.load(name, rig=kind).phrases.things.items() if told.symmetry]


@pytest.mark.parametrize("task, name", TURNED, ids=[f"{task} {name}" for task, name in TURNED])
def test_what_is_turned_says_by_how_much(task, name):
    kind = "piper" if task in tasks.chosen(["all"], "piper") else "fr3"
    config, robot = (DUAL, PIPERS) if kind == "piper" else (CONFIG, ROBOT)
    told = []
    with contextlib.closing(Recorder(task, Settings(kind, ("front",)), config.convention, robot)) as recorder:
        thing, model, data = recorder.phrases.things[name], recorder.rig.model, recorder.rig.data
        recorder.rig.reset(np.random.default_rng(3))
        body = int(model.geom(thing.geoms[0]).bodyid[0]) if thing.geoms else model.body(thing.body).id
        stand = quaternion_of_what_it_hangs_on(model, data, body)
        before = stand.copy()
        text, span = next((text, span) for text in recorder.phrases.sentences()
                          for span, names in recorder.phrases.named(text).items() if names == (name,))
        for angle in (0.0, 0.4, 2 * np.pi / thing.symmetry):
            mujoco.mju_mulQuat(stand, np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)]), before)
            mujoco.mj_forward(model, data)
            found = next(item for item in recorder.camera.grounding(text, recorder.camera.patches()) if item.spans == (span,))
            told.append(np.arctan2(*found.turn[::-1]))
    wrapped = [(angle + np.pi) % (2 * np.pi) - np.pi for angle in (told[1] - told[0] - 0.4 * thing.symmetry, told[2] - told[0])]
    np.testing.assert_allclose(wrapped, 0.0, atol=1e-6)


def quaternion_of_what_it_hangs_on(model, data, body):
    """Return a view of the quaternion that turns its outermost body in the scene."""
    root = int(model.body_rootid[body])
    joint = int(model.body_jntadr[root])
    return data.qpos[model.jnt_qposadr[joint] + 3:][:4] if joint >= 0 else model.body_quat[root]
