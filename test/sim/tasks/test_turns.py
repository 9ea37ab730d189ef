"""The turn of a thing: it is labelled where the expert's yaw follows from it, and equals that yaw except for a constant."""
import contextlib
import math

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_core.training.tokenizer import build_tiny_tokenizer
from hybridvla_sim import tasks
from hybridvla_sim.demonstrations.record import Recorder, Settings
from hybridvla_sim.taskkit.moves import Tool
from hybridvla_sim.taskkit.world import SuiteWorld

CONFIGS = {kind: load_configs(ROOT / f"config/policies/{policy}.yaml", ROOT / f"config/robots/{robot}.yaml", "diffusion")
           for kind, policy, robot in (("fr3", "tiny", "sim_fr3"), ("piper", "agilex", "agilex"))}
EVERY = [(kind, name) for kind in CONFIGS for name in tasks.of_rig(kind)]
RIGHT, LEFT, HALF = 0, 1, np.pi / 2
#: Task -> (thing, arm, difference between the expert's yaw and the thing's turn, rad, what the hand holds then).
FOLLOWS = {
    "close_box": [("box", RIGHT, HALF, None), ("lid", RIGHT, HALF, None)],
    "close_fridge": [("fridge", RIGHT, 0.0, None)],
    "close_laptop_lid": [("laptop", RIGHT, 0.0, None), ("lid", RIGHT, 0.0, None)],
    "frame_off_hanger": [("frame", RIGHT, HALF, None)],
    "fridge_or_phone": [("fridge", RIGHT, 0.0, None), ("phone", RIGHT, 0.0, None), ("base", RIGHT, 0.0, "phone")],
    "hold_and_wipe": [("board", LEFT, 0.0, None), ("sponge", RIGHT, 0.0, None), ("board", RIGHT, 0.0, "sponge")],
    "phone_on_base": [("phone", RIGHT, 0.0, None), ("base", RIGHT, 0.0, "phone")],
    "sweep_to_dustpan": [("broom", RIGHT, 0.0, None), ("dustpan", RIGHT, HALF, "broom")],
    "toilet_seat_down": [("toilet", RIGHT, HALF, None), ("seat", RIGHT, HALF, None)],
    "two_arm_pick_and_place": [("right_block", RIGHT, 0.0, None), ("left_block", LEFT, 0.0, None)],
    "umbrella_out_of_stand": [("umbrella", RIGHT, 0.0, None)],
    "water_plants": [("can", RIGHT, -HALF, None)],
    "tray": [("tray", RIGHT, 0.0, None), ("tray", LEFT, 0.0, None)],
    "blocks": [(f"{colour} block", RIGHT, 0.0, None) for colour in ("red", "green", "blue", "yellow")]}
#: Held thing -> site by which it is held (None: its body), and its width between the fingers, m.
HELD = {"phone": (None, 0.052), "broom": ("broom_grip", 0.024), "sponge": (None, 0.032)}
WIDTH_M = {"fr3": 0.08, "piper": 0.07}


def opened(kind, name):
    return contextlib.closing(Recorder(name, Settings(kind, ("front",)), CONFIGS[kind][0].convention, CONFIGS[kind][1]))


def told(recorder, text, name):
    """Return the labelled turn of a thing, rad; None where it has no label."""
    phrases = recorder.phrases
    span = next(span for span, names in phrases.named(text).items() if names == (name,))
    nowhere = {view: dict.fromkeys(phrases.things, np.zeros(0, dtype=int)) for view in recorder.camera.views}
    found = next(item for item in recorder.camera.grounding(text, nowhere) if item.spans == (span,))
    return None if found.turn is None else math.atan2(found.turn[1], found.turn[0]) / found.symmetry


def hold(recorder, kind, held, monkeypatch):
    """Lifts a thing and puts the right hand around it, as far as the expert can see."""
    rig, world, (site, width) = recorder.rig, recorder.rig.world, HELD[held]
    rig.data.joint(held).qpos[2] += 0.25
    mujoco.mj_forward(rig.model, rig.data)
    place = world.point(site) if site else rig.data.body(held).xpos.copy()
    tool = Tool(place, Rotation.from_euler("z", world.heading(held)), width / WIDTH_M[kind])
    if kind == "fr3":
        monkeypatch.setattr(world, "tool", lambda: tool)
    else:
        others = world.tools()
        monkeypatch.setattr(world, "tools", lambda: {**others, "right": tool})


@pytest.mark.parametrize("kind, name", [(kind, name) for kind, name in EVERY if name in FOLLOWS])
def test_the_yaw_of_the_expert_is_the_told_turn_but_for_a_constant(kind, name, monkeypatch):
    with opened(kind, name) as recorder:
        phrases = recorder.phrases
        for thing, arm, constant, held in FOLLOWS[name]:
            text = next(text for text in phrases.sentences() if (thing,) in phrases.named(text).values())
            turns = []
            for seed in range(12):
                recorder.rig.reset(np.random.default_rng(seed))
                with monkeypatch.context() as patched:
                    if held:
                        hold(recorder, kind, held, patched)
                    yaw, turn = float(recorder.rig.world.expert(text).yaw[arm]), told(recorder, text, thing)
                assert turn is not None, f"{text}: how the {thing} is turned is not told"
                off = math.remainder(yaw - turn - constant, 2 * np.pi / phrases.things[thing].symmetry)
                assert abs(off) < 1e-3, f"{text}, seed {seed}: yaw {yaw:.3f}, {thing} turned by {turn:.3f}"
                turns.append(turn)
            assert np.ptp(turns) > 0.1, "scenes turn it"


@pytest.mark.parametrize("kind, name", EVERY)
def test_every_body_whose_heading_an_expert_reads_is_turned_with_a_thing_that_tells_it(kind, name, monkeypatch):
    read, heading = set(), SuiteWorld.heading
    monkeypatch.setattr(SuiteWorld, "heading", lambda self, body: (read.add(body), heading(self, body))[1])
    with opened(kind, name) as recorder:
        things = recorder.phrases.things
        for held in (None, *(held for *_, held in FOLLOWS.get(name, ()) if held)):
            recorder.rig.reset(np.random.default_rng(3))
            with monkeypatch.context() as patched:
                if held:
                    hold(recorder, kind, held, patched)
                for goal in recorder.phrases.goals.values():
                    recorder.rig.world.expert(goal[0])
    telling = {thing.turned or thing.body for thing in things.values() if thing.symmetry}
    assert read <= telling
    followed = {things[thing].turned or things[thing].body for thing, *_ in FOLLOWS.get(name, ())}
    assert read <= followed, "what an expert's yaw follows from stands in FOLLOWS"


def test_nearly_every_sentence_tells_a_turn_where_an_expert_needs_one():
    """Things that a sentence does not name have no turn, and neither have things that share one name."""
    silent = {}
    for kind, name in EVERY:
        phrases = tasks.load(name, rig=kind).phrases
        for text in phrases.sentences():
            if name in FOLLOWS and not any(len(names) == 1 and phrases.things[names[0]].symmetry
                                           for names in phrases.named(text).values()):
                silent.setdefault(name, []).append(text)
    assert silent == {"sweep_to_dustpan": ["sweep the dirt up", "clean up the dirt"],
                      "two_arm_pick_and_place": ["put both blocks on their plates",
                                                 "pick up the two blocks and place them on the plates"],
                      "water_plants": ["water plants", "water the plant", "pour some water on the plant",
                                       "give the plant some water"]}


def test_the_tiny_tokenizer_knows_every_word_and_mark_of_every_sentence():
    tokenizer = build_tiny_tokenizer()
    for kind, name in EVERY:
        for text in tasks.load(name, rig=kind).instructions():
            assert "<unk>" not in tokenizer.encode(text).tokens, text


def test_stains_are_their_own_shapes_and_no_more_once_they_are_wiped_off():
    text = "wipe the stains off the board while holding it"
    with contextlib.closing(Recorder("hold_and_wipe", Settings("piper", ("front", "right"), grid=16),
                                     CONFIGS["piper"][0].convention, CONFIGS["piper"][1])) as recorder:
        model, data, world = recorder.rig.model, recorder.rig.data, recorder.rig.world
        recorder.rig.reset(np.random.default_rng(0))
        shapes = [model.geom(f"stain_{number}").id for number in range(3)]
        counts, places = [], []
        for wiped in range(4):
            model.geom_rgba[shapes[:wiped], 3] = 0.0
            stains, board = recorder.camera.grounding(text, recorder.camera.patches())
            assert [text[slice(*item.spans[0])] for item in (stains, board)] == ["stains", "board"]
            counts.append(len(stains.patches["right"]))
            places.append(stains.place)
            assert len(stains.patches["front"]) < 0.4 * len(board.patches["front"]) and board.place is not None
        assert counts[0] > counts[2] > counts[3] == 0 and places[3] is None
        for wiped, place in enumerate(places[:3]):
            np.testing.assert_allclose(place, data.geom_xpos[shapes[wiped:]].mean(axis=0))
        assert not world.lost(text)


def test_a_stain_that_fills_no_patch_is_shown_by_the_one_that_has_most_of_it():
    with opened("piper", "hold_and_wipe") as recorder:
        recorder.rig.reset(np.random.default_rng(0))
        assert len(recorder.camera.patches()["front"]["stains"]) == 1
