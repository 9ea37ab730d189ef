"""The shipped checkpoint makes the same decisions over ROS and in process."""
from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import rospy

ROOT = Path(__file__).resolve().parents[2]
SCENE, INSTRUCTION = 3_000_001, "put the red block on the green pad"
#: Noise is the same on both sides; what is left is physics in real time against physics in lockstep.
TOLERANCE_M = 0.01


class SameNoise:
    """A policy whose n-th prediction draws its noise from the n-th stamp of another run."""

    def __init__(self, policy, stamps):
        self._policy, self._stamps = policy, iter(stamps)

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def predict(self, observation, **options):
        stamp = next(self._stamps, observation.stamp_ns)
        return self._policy.predict(replace(observation, stamp_ns=stamp), **options)


def in_process(stamps):
    from hybridvla_core.cli.evaluate import load_policy
    from hybridvla_core.evaluation.suite import Suite, load_configs
    from hybridvla_sim.tasks import parse_instruction, sample_scene

    config, robot = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "ensemble")
    suite = Suite(SameNoise(load_policy(str(ROOT / "checkpoints/tiny"), "ensemble"), stamps), config, robot)
    suite.rig.reset(sample_scene(np.random.default_rng(SCENE)))
    result = suite.runner.run(INSTRUCTION, lambda rig, text: rig.success(*parse_instruction(text)))
    suite.rig.close()
    assert result.success
    return [(decision.target, round(decision.opening)) for decision in result.decisions]


def over_ros(rig):
    from hybridvla.srv import ResetScene

    rig.kill_policy()
    assert rospy.ServiceProxy("/sim_rig/reset_scene", ResetScene)(SCENE).success
    rig.policy = rig.graph.start([sys.executable, str(ROOT / "nodes/policy_node"), "_robot_config:=config/robots/sim_fr3.yaml",
                                  "_policy_config:=config/policies/tiny.yaml"], "real_policy.log")
    try:
        rig.heartbeat = None
        rig.until(lambda: rig.heartbeat is not None, "a heartbeat", 60)
        rig.proposals.clear()
        rig.begin()
        assert rig.instruct(INSTRUCTION, False).success
        rig.until(lambda: rig.report(INSTRUCTION).task_done, "success", 40)
        made = [message for message in rig.proposals if message.kind == type(message).ACTION]
    finally:
        rig.kill_policy()
    points = [message.targets[0].target.pose.position for message in made]
    return ([(np.array([p.x, p.y, p.z]), round(message.targets[0].gripper)) for p, message in zip(points, made)],
            [message.header.stamp.to_nsec() for message in made])


def test_an_episode_over_ros_and_one_in_process_decide_alike(rig):
    before = rig.report("").limit_violations
    there, stamps = over_ros(rig)
    here = in_process(stamps)
    # The run over ROS is stopped from outside: it may have begun one more keyframe, or one less.
    count = min(len(here), len(there))
    assert count >= 4 and abs(len(here) - len(there)) <= 1
    assert [opening for _, opening in here[:count]] == [opening for _, opening in there[:count]]
    for (first, _), (second, _) in zip(here, there):
        assert np.linalg.norm(first - second) < TOLERANCE_M
    assert rig.report("").limit_violations == before
