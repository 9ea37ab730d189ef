"""Shipped checkpoints: whole, small, trained for the tasks of their rig, and pointing where a task's expert points."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hybridvla_cli.evaluate import load_policy
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.evaluation.trained import check_trained
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.fit import check_fit
from hybridvla_sim import tasks
from hybridvla_sim.rigs import RIGS
from hybridvla_sim.suite import Suite
from hybridvla_sim.task import EpisodeSpec

LARGEST = 40 << 20      # bytes
NEAR_M = 0.1            # the first keyframes are 0.2 m away and more
#: Name of the checkpoint -> its rig, and its tasks.
SHIPPED = {"tiny": ("fr3", ["blocks"]), "suite": ("fr3", tasks.chosen(["all"], "fr3")),
           "dual": ("agilex", tasks.chosen(["all"], "piper"))}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_checkpoint_is_whole_and_small_and_knows_its_tasks(name):
    folder = ROOT / "checkpoints" / name
    read_checkpoint(folder)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST
    for task in SHIPPED[name][1]:
        check_trained(folder, task, tasks.load(task).phrases.goals)


@pytest.mark.parametrize("name, task", [("tiny", "blocks"), ("suite", "close_fridge"), ("suite", "wine_at_rack"),
                                        ("dual", "lift_ball_and_place"), ("dual", "tray")])
def test_the_first_keyframe_of_a_scene_is_near_the_experts(name, task):
    rig = RIGS[SHIPPED[name][0]]
    policy = load_policy(str(ROOT / "checkpoints" / name), "ensemble")
    config, robot = load_configs(rig.policy_for(policy.cameras), rig.robot, "ensemble")
    check_fit(policy, config, robot)
    found = tasks.load(task)
    suite = Suite(policy, config, robot, found)
    suite.task = SimpleNamespace(max_keyframes=1, max_time=found.max_time)
    try:
        first = suite.run(EpisodeSpec(seed=2_000_001, instruction=found.instructions()[0]))["decisions"][0]
    finally:
        suite.rig.close()
    assert np.linalg.norm(first["errors"], axis=1).max() < NEAR_M
