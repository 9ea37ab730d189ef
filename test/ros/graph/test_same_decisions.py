"""The shipped checkpoint makes the same decisions over ROS and in process."""
from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import rospy
from sensor_msgs.msg import Image, JointState

from hybridvla_cli.evaluate import load_policy
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.proposing.proposer import Proposer
from hybridvla_ros.messages.images import to_rgb
from hybridvla_ros.observation.arm_feed import ArmFeed

SCENE, INSTRUCTION = 3_000_007, "put the red block on the green pad"
#: Pictures of one scene over ROS and in process differ by the residual motion of an arm at rest.
FIRST_TOLERANCE_M = 0.01


class Witness:
    """A record of every image and joint state of the graph, as the policy node could have received them."""

    def __init__(self, camera, robot):
        self.images, self.joints = {}, []
        self._subscribers = [
            rospy.Subscriber(camera.image_topic, Image, self._on_image, buff_size=2 ** 24),
            rospy.Subscriber(robot.arms[0].topics["joint_states"], JointState, self.joints.append)]

    def _on_image(self, message):
        self.images[message.header.stamp.to_nsec()] = message

    def close(self):
        for subscriber in self._subscribers:
            subscriber.unregister()


@pytest.fixture(scope="module")
def configs():
    return load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "ensemble")


@pytest.fixture(scope="module")
def policy():
    return load_policy(str(ROOT / "checkpoints/tiny"), "ensemble")


def over_ros(rig, configs):
    """Run one successful episode; return its proposals, and the witness of everything that could be received."""
    from hybridvla.srv import ResetScene

    rig.kill_policy()
    assert rospy.ServiceProxy("/sim_rig/reset_scene", ResetScene)(SCENE).success
    witness = Witness(configs[0].cameras[0], configs[1])
    rig.policy = rig.graph.start([sys.executable, str(ROOT / "nodes/policy_node"), "_robot_config:=config/robots/sim_fr3.yaml",
                                  "_policy_config:=config/policies/tiny.yaml"], "real_policy.log")
    try:
        rig.heartbeat = None
        rig.until(lambda: rig.heartbeat is not None and not rig.heartbeat.warming_up, "a policy that is ready", 60)
        rig.proposals.clear()
        rig.begin()
        assert rig.instruct(INSTRUCTION, False).success
        rig.until(lambda: rig.report(INSTRUCTION).task_done, "success", 90)
        made = [message for message in rig.proposals if message.kind == type(message).ACTION]
    finally:
        rig.kill_policy()
        witness.close()
    return made, witness


def decide_again(policy, configs, witness, message, fed):
    """Make the decision of `message` in process, from the image and joint states behind it. Return None when the witness, a
    subscriber beside the node, was not sent that image (the rig's publisher drops what its queue cannot hold)."""
    config, robot = configs
    stamp = message.header.stamp.to_nsec()
    proposer, arms = fed
    while witness.joints and witness.joints[0].header.stamp.to_nsec() < stamp + 100_000_000:
        joints = witness.joints.pop(0)
        arms.on_joints(joints, arms.topics[robot.arms[0].topics["joint_states"]], joints.header.stamp.to_sec())
    if stamp not in witness.images:
        return None
    view = config.cameras[0].view
    return proposer.step({view: to_rgb(witness.images[stamp], view)}, stamp)


@pytest.mark.long
def test_every_decision_of_an_episode_over_ros_is_made_in_process_too(rig, configs, policy):
    before = rig.report("").limit_violations
    made, witness = over_ros(rig, configs)
    assert len(made) >= 4 and rig.report("").limit_violations == before
    now = [0.0]
    proposer = Proposer(policy, configs[0], clock=lambda: now[0], monotonic=lambda: now[0])
    fed = proposer, ArmFeed(configs[1], proposer.on_arm_state)
    proposer.set_instruction(INSTRUCTION)
    compared = 0
    for message in made:
        now[0] = message.header.stamp.to_sec() + 0.05
        here, there = decide_again(policy, configs, witness, message, fed), message.targets[0]
        if here is None:
            continue
        compared += 1
        point, turn = there.target.pose.position, there.target.pose.orientation
        assert np.allclose(here.targets[0].target.position, [point.x, point.y, point.z], atol=1e-5)
        assert abs(np.dot(here.targets[0].target.quaternion, [turn.x, turn.y, turn.z, turn.w])) > 1.0 - 1e-6
        assert here.targets[0].gripper == pytest.approx(there.gripper, abs=1e-5)
        assert here.prediction.fused == message.fused
        # The node stops decoding when the gate cannot open any more; what it did decode is the same.
        known = np.isfinite(message.token_confidence)
        assert known.all() == message.ar_complete and known.any()
        assert np.allclose(here.prediction.token_confidence[known], np.array(message.token_confidence)[known], atol=1e-4)
    assert compared > 0.5 * len(made), f"the witness saw the images of {compared} of {len(made)} decisions"
    begins_alike(policy, configs, made[0])


def begins_alike(policy, configs, first):
    """Assert that `hybridvla evaluate`'s own loop gives the same first keyframe for the same scene and noise."""
    from hybridvla_sim.suite import Suite
    from hybridvla_sim.tasks import load

    class SameNoise:
        asked = False

        def __getattr__(self, name):
            return getattr(policy, name)

        def predict(self, observation, **options):
            self.asked = True
            return policy.predict(replace(observation, stamp_ns=first.header.stamp.to_nsec()), **options)

    noise = SameNoise()
    suite = Suite(noise, *configs, load("blocks"))
    suite.rig.reset(np.random.default_rng(SCENE))
    result = suite.runner.run(INSTRUCTION, lambda rig, text: noise.asked)     # the first decision is enough
    suite.rig.close()
    point = first.targets[0].target.pose.position
    assert np.linalg.norm(result.decisions[0].target - [point.x, point.y, point.z]) < FIRST_TOLERANCE_M
