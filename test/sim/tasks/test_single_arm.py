"""The single-arm tasks: their experts work through the filter, and each fails without what it needs."""
import dataclasses

import numpy as np
import pytest

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_sim import tasks
from hybridvla_sim.experts import ExpertPolicy
from hybridvla_sim.suite import Suite
from hybridvla_sim.task import EpisodeSpec
from hybridvla_sim.taskkit.looks import VARIATIONS, snapshot

pytestmark = pytest.mark.robot_computer

SINGLE = ("close_box", "close_fridge", "close_laptop_lid", "frame_off_hanger", "phone_on_base", "sweep_to_dustpan",
          "toilet_seat_down", "umbrella_out_of_stand", "water_plants", "wine_at_rack")
#: Changes of the expert's keyframes with which the task fails.
UPRIGHT, TURNED = "a hand that does not tilt", "a hand turned by 90 degrees"
NEEDED = {"close_box": UPRIGHT, "frame_off_hanger": TURNED, "phone_on_base": TURNED, "sweep_to_dustpan": TURNED,
          "toilet_seat_down": TURNED, "umbrella_out_of_stand": TURNED, "water_plants": UPRIGHT}
CONFIG, ROBOT = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "diffusion")


class Spoilt(ExpertPolicy):
    """The expert without one of its abilities."""

    def __init__(self, lacks):
        super().__init__(CONFIG.convention, ["front"])
        self._lacks = lacks

    def predict(self, observation, mode=None, seed=0):
        found = super().predict(observation, mode, seed)
        action = found.action.copy()
        if self._lacks == UPRIGHT:
            action[0, 3:5] = 0.0
        else:
            action[0, 5] += np.pi / 2 * (-1.0 if action[0, 5] > 0.0 else 1.0)
        return dataclasses.replace(found, action=action, diffusion=action)


@pytest.fixture(scope="module", params=SINGLE)
def suite(request):
    made = Suite(ExpertPolicy(CONFIG.convention, ["front"]), CONFIG, ROBOT, tasks.load(request.param, rig="fr3"))
    yield made
    made.rig.close()


@pytest.mark.long
def test_the_expert_does_it_through_the_filter(suite):
    result = suite.run(suite.task.draw(2_000_003, 1, switched=False)[0])
    assert result["success"], [row["phase"] for row in result["decisions"]]
    assert result["violations"] == 0
    assert not any(name.startswith("rejected") for name in result["counters"])
    assert result["counters"]["holds"] == 0, "no hand comes down on what it should come down beside"


@pytest.mark.long
def test_what_is_done_early_waits_for_the_switch():
    suite = Suite(ExpertPolicy(CONFIG.convention, ["front"]), CONFIG, ROBOT, tasks.load("blocks", rig="fr3"))
    spec = EpisodeSpec(2_000_003, "put the blue block on the yellow pad", 20.0, "put the red block on the red pad")
    result = suite.run(spec)
    suite.rig.close()
    late = [row["phase"] for row in result["decisions"]].count("retreat")
    assert result["success"] and result["time"] > 20.0 and late > suite.task.max_keyframes, "more than an episode's decisions"


def test_nothing_is_done_before_anything_happens(suite):
    for seed in range(3):
        suite.rig.reset(np.random.default_rng(seed))
        suite.rig.step(0.3)
        assert not any(suite.rig.world.success(text) for text in suite.task.instructions())


def test_a_seed_draws_the_same_scene_and_another_one_another(suite):
    drawn = []
    for seed in (5, 5, 6):
        suite.rig.reset(np.random.default_rng(seed))
        drawn.append(np.concatenate([suite.rig.data.qpos, *(value.ravel() for value in snapshot(suite.rig.model).values())]))
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_every_sentence_has_a_goal_and_names_a_thing(suite):
    phrases = suite.task.phrases
    assert len(suite.task.instructions()) >= 3
    for text in suite.task.instructions():
        assert phrases.goal(f"  {text.upper()}. ") in phrases.goals
        assert phrases.named(text), text
    for thing in phrases.things:
        assert np.isfinite(suite.rig.world.where(thing)).all()
        assert any(thing in names for text in suite.task.instructions() for names in phrases.named(text).values()), thing
    with pytest.raises(HybridVLAError, match="cannot judge 'open the drawer'"):
        suite.rig.world.success("open the drawer")


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(NEEDED))
def test_it_fails_without_what_the_expert_turns_or_tilts(name):
    suite = Suite(Spoilt(NEEDED[name]), CONFIG, ROBOT, tasks.load(name))
    suite.task.max_keyframes, before = 10, suite.task.max_keyframes
    try:
        assert not suite.run(suite.task.draw(2_000_003, 1, switched=False)[0])["success"]
    finally:
        suite.task.max_keyframes = before
        suite.rig.close()


@pytest.mark.long
@pytest.mark.parametrize("variation", VARIATIONS)
def test_a_variation_changes_the_scene_as_it_says_and_the_expert_still_works(variation):
    plain, varied = tasks.load("phone_on_base"), tasks.load("phone_on_base").varied(variation)
    scenes = []
    for task in (plain, varied):
        suite = Suite(ExpertPolicy(CONFIG.convention, ["front"]), CONFIG, ROBOT, task)
        suite.rig.reset(np.random.default_rng(9))
        scenes.append(snapshot(suite.rig.model))
        if task is varied:
            assert suite.run(task.draw(2_000_009, 1, switched=False)[0])["success"]
        suite.rig.close()
    field = {"object": "geom_rgba", "background": "geom_rgba", "height": "body_pos", "light": "light_diffuse"}[variation]
    assert not np.array_equal(scenes[0][field], scenes[1][field])
    assert plain.variation == "", "the plain task is not changed"


def test_an_unknown_variation_is_named():
    with pytest.raises(HybridVLAError, match="no variation 'weather'; use one of object, background, height, light"):
        tasks.load("phone_on_base").varied("weather")
    with pytest.raises(HybridVLAError, match="task 'blocks' has no variation 'weather'"):
        tasks.load("blocks").varied("weather")


@pytest.mark.long
@pytest.mark.parametrize("variation", VARIATIONS)
def test_the_blocks_vary_too_and_their_expert_still_works(variation):
    task = tasks.load("blocks").varied(variation)
    suite = Suite(ExpertPolicy(CONFIG.convention, ["front"]), CONFIG, ROBOT, task)
    model = suite.rig.model
    before = {name: getattr(model, name).copy() for name in ("geom_type", "geom_rgba", "geom_pos", "light_diffuse")}
    assert suite.run(task.draw(2_000_011, 1, switched=False)[0])["success"]
    field = {"object": "geom_type", "background": "geom_rgba", "height": "geom_pos", "light": "light_diffuse"}[variation]
    table = model.geom("table").id
    changed = {name for name, value in before.items() if not np.array_equal(value, getattr(model, name))}
    assert field in changed and changed <= {field, "geom_pos"}             # pads are always placed anew
    assert (model.geom_pos[table, 2] > before["geom_pos"][table, 2]) == (variation == "height")
    suite.rig.close()


@pytest.mark.long
def test_the_other_place_of_the_rack_is_asked_for_in_mid_episode():
    task = tasks.load("wine_at_rack")
    suite = Suite(ExpertPolicy(CONFIG.convention, ["front"]), CONFIG, ROBOT, task)
    spec = task.draw(2_000_001, 1, switched=True)[0]
    assert task.phrases.goal(spec.instruction) != task.phrases.goal(spec.second)
    assert suite.run(spec)["success"]
    suite.rig.close()
    with pytest.raises(HybridVLAError, match="one instruction"):
        tasks.load("close_box").draw(2_000_001, 1, switched=True)


@pytest.mark.long
def test_where_two_tasks_are_possible_the_sentence_decides():
    task = tasks.load("fridge_or_phone")
    suite = Suite(ExpertPolicy(CONFIG.convention, ["front"]), CONFIG, ROBOT, task)
    spec = task.draw(2_000_001, 1, switched=True)[0]
    assert {task.phrases.goal(text) for text in (spec.instruction, spec.second)} == {"fridge", "phone"}
    suite.rig.reset(np.random.default_rng(spec.seed))
    assert not any(suite.rig.world.success(text) for text in task.instructions())
    for text, other in ((spec.instruction, spec.second), (spec.second, spec.instruction)):
        assert suite.run(dataclasses.replace(spec, instruction=text, second=None, switch_at=None))["success"]
        assert not suite.rig.world.success(other)
    suite.rig.close()


def test_water_leaves_only_a_tilted_can():
    suite = Suite(ExpertPolicy(CONFIG.convention, ["front"]), CONFIG, ROBOT, tasks.load("water_plants"))
    rig = suite.rig
    rig.reset(np.random.default_rng(3))
    rig.step(1.0)
    inside = [rig.world.inside(rig.data.body(f"drop_{n}").xpos, "can", (-0.02,) * 3, (0.02, 0.02, 0.05)) for n in range(5)]
    assert rig.world.poured == 0 and all(inside)
    can = rig.data.joint("can").qpos
    can[2], can[3:] = 0.2, (np.cos(0.5), 0.0, np.sin(0.5), 0.0)
    rig.data.joint("can").qvel[:] = 0.0
    for _ in range(3):
        rig.step(0.005)
    assert rig.world.poured == 1
    rig.close()
