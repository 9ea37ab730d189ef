"""The dual-arm tasks: their experts work through the filter, and both arms are needed, at the right time."""
import dataclasses

import numpy as np
import pytest

from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_sim import tasks
from hybridvla_sim.experts import ExpertPolicy
from hybridvla_sim.suite import Suite

pytestmark = pytest.mark.robot_computer

DUAL = ("hold_and_wipe", "lift_ball_and_place", "two_arm_pick_and_place")
CONFIG, ROBOT = load_configs(ROOT / "config/policies/agilex.yaml", ROOT / "config/robots/agilex.yaml", "diffusion")
VIEWS = ["front", "right", "left"]
SEED = 2_000_003


class LeftArm(ExpertPolicy):
    """The expert with a left arm that is one keyframe late (`late`) or never moves."""

    def __init__(self, late):
        super().__init__(CONFIG.convention, VIEWS)
        self._late, self._before = late, None

    def predict(self, observation, mode=None, seed=0):
        found = super().predict(observation, mode, seed)
        action = found.action.copy()
        here = np.asarray(observation.state)[7:]
        target = np.concatenate([action[0, 7:10] + here[:3], action[0, 10:]])
        told = self._before if self._late and self._before is not None else np.concatenate([here[:6], [1.0]])
        action[0, 7:] = [*(told[:3] - here[:3]), *told[3:]]
        self._before = target
        return dataclasses.replace(found, action=action, diffusion=action)


def run(name, policy, keyframes):
    task = tasks.load(name, rig="piper")
    suite = Suite(policy, CONFIG, ROBOT, task)
    suite.task.max_keyframes, before = keyframes, task.max_keyframes
    try:
        return suite.run(task.draw(SEED, 1, switched=False)[0]), suite.rig
    finally:
        suite.task.max_keyframes = before
        suite.rig.close()


@pytest.mark.long
@pytest.mark.parametrize("name", DUAL)
def test_the_expert_does_it_through_the_filter(name):
    result, rig = run(name, ExpertPolicy(CONFIG.convention, VIEWS), 20)
    assert result["success"], [row["phase"] for row in result["decisions"]]
    assert result["violations"] == 0, dict(rig.violations)
    assert not any(key.startswith("rejected") for key in result["counters"])


@pytest.mark.long
@pytest.mark.parametrize("name, late", [("hold_and_wipe", False), ("lift_ball_and_place", True),
                                        ("two_arm_pick_and_place", False)])
def test_it_fails_when_the_left_arm_is_late_or_stays(name, late):
    result, _ = run(name, LeftArm(late), 9)
    assert not result["success"]


@pytest.mark.long
def test_a_board_that_nobody_holds_goes_along_and_is_not_wiped():
    """The right hand wipes as if the board were held, because the expert is told that it is."""
    task = tasks.load("hold_and_wipe")
    suite = Suite(LeftArm(late=False), CONFIG, ROBOT, task)
    world = suite.rig.world
    world.holding = lambda tool: True
    suite.task.max_keyframes = 9
    try:
        result = suite.run(task.draw(SEED, 1, switched=False)[0])
    finally:
        suite.task.max_keyframes = type(task).max_keyframes
        suite.rig.close()
    assert "wipe" in {phase for row in result["decisions"] for phase in row["phase"].split("/")}
    assert not result["success"] and (world.left_to_rub > 0.0).any()


@pytest.mark.parametrize("name", DUAL)
def test_scenes_are_repeatable_not_done_at_first_and_every_sentence_names_things(name):
    suite = Suite(ExpertPolicy(CONFIG.convention, VIEWS), CONFIG, ROBOT, tasks.load(name))
    drawn = []
    for seed in (5, 5, 6):
        suite.rig.reset(np.random.default_rng(seed))
        drawn.append(suite.rig.data.qpos.copy())
        suite.rig.step(0.2)
        assert not any(suite.rig.world.success(text) for text in suite.task.instructions())
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    phrases = suite.task.phrases
    assert all(phrases.named(text) for text in suite.task.instructions())
    assert {thing for text in suite.task.instructions() for names in phrases.named(text).values() for thing in names
            } == set(phrases.things)
    pictures = [suite.rig.render(view) for view in VIEWS]
    assert all(picture.std() > 5.0 for picture in pictures)
    suite.rig.close()


@pytest.mark.parametrize("name", DUAL)
def test_nothing_lies_in_anything_else_at_first(name):
    suite = Suite(ExpertPolicy(CONFIG.convention, VIEWS), CONFIG, ROBOT, tasks.load(name))
    world = suite.rig.world
    for seed in (*range(20), 5_000_003):
        suite.rig.reset(np.random.default_rng(seed))
        before = {body: suite.rig.data.body(body).xpos.copy() for body in world.loose}
        suite.rig.step(0.1)
        for body, place in before.items():
            assert np.linalg.norm(suite.rig.data.body(body).xpos - place) < 0.004, (seed, body)
    suite.rig.close()
