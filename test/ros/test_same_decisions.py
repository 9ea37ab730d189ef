"""The shipped checkpoint makes the same decisions over ROS and in process."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rospy

ROOT = Path(__file__).resolve().parents[2]
SCENE, INSTRUCTION = 3_000_001, "put the red block on the green pad"
#: The stamps of the two runs differ, and the noise with them: one action's spread over noise, and room for physics.
TOLERANCE_M = 0.035


def decisions(targets):
    """(position, opening) of each keyframe; one that only repeats the last, a corrected try, is the same decision."""
    kept = []
    for position, opening in targets:
        here = np.asarray(position), round(opening)
        if not kept or kept[-1][1] != here[1] or np.linalg.norm(kept[-1][0] - here[0]) > TOLERANCE_M:
            kept.append(here)
    return kept


def in_process():
    from hybridvla_core.cli.evaluate import load_policy
    from hybridvla_core.evaluation.suite import Suite, load_configs
    from hybridvla_sim.tasks import parse_instruction, sample_scene

    config, robot = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "ensemble")
    suite = Suite(load_policy(str(ROOT / "checkpoints/tiny"), "ensemble"), config, robot)
    suite.rig.reset(sample_scene(np.random.default_rng(SCENE)))
    result = suite.runner.run(INSTRUCTION, lambda rig, text: rig.success(*parse_instruction(text)))
    suite.rig.close()
    assert result.success
    return decisions((decision.target, decision.opening) for decision in result.decisions)


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
    return decisions(((p.x, p.y, p.z), message.targets[0].gripper) for p, message in zip(points, made))


def test_an_episode_over_ros_and_one_in_process_decide_alike(rig):
    before = rig.report("").limit_violations
    there, here = over_ros(rig), in_process()
    # The run over ROS is stopped from outside: it may have begun one more keyframe, or one less.
    count = min(len(here), len(there))
    assert count >= 5 and abs(len(here) - len(there)) <= 1
    assert [opening for _, opening in here[:count]] == [opening for _, opening in there[:count]]
    for (first, _), (second, _) in zip(here, there):
        assert np.linalg.norm(first - second) < TOLERANCE_M
    assert rig.report("").limit_violations == before
