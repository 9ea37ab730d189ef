"""Two arms whose recorded joints share a topic: they stay two arms, whatever the drivers call the joints."""
from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import JointState

from hybridvla_core.configuration import load_file
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.messages.arm_reader import fingers_of
from hybridvla_ros.replay.joints import RecordedArms
from hybridvla_ros.replay.topics import TopicMap, resolve

TOPIC = "/joint_states"


@pytest.fixture(scope="module")
def robot():
    return load_file(RobotConfig, ROOT / "config/robots/agilex.yaml")


@pytest.fixture
def arms(robot):
    """Return the reader of messages with both arms in one topic and joints called `right_joint0`, ...; it keeps the states."""
    policy = load_file(PolicyConfig, ROOT / "config/policies/agilex.yaml")
    def theirs(arm, names):
        return tuple(f"{arm.name}_{name}" for name in names)
    given = TopicMap(joint_states={arm.name: TOPIC for arm in robot.arms},
                     joint_names={arm.name: theirs(arm, arm.joint_names) for arm in robot.arms},
                     finger_names={arm.name: theirs(arm, fingers_of(arm)[0]) for arm in robot.arms})
    found = {TOPIC: "sensor_msgs/JointState", **{camera.image_topic: "sensor_msgs/Image" for camera in policy.cameras}}
    states = {}
    made = RecordedArms(robot, resolve(policy, robot, given, found, "x.bag"),
                        lambda state, stamp: states.setdefault(state.name, []).append(state))
    made.states = states
    return made


def message(robot, names, shift=0.0):
    """Return one message with the joints of the named arms near their start, the left one's first joint moved by `shift` rad."""
    found = JointState()
    found.header.stamp.secs = 1
    for arm in robot.arms:
        if arm.name in names:
            fingers, closed, opened = fingers_of(arm)
            joints = np.array(arm.start_joints_rad)
            joints[0] += 0.3 + shift if arm.name == "left" else 0.1
            share = 0.25 if arm.name == "left" else 0.75
            found.name += [f"{arm.name}_{name}" for name in (*arm.joint_names, *fingers)]
            found.position += [*joints, *[closed + share * (opened - closed)] * len(fingers)]
    return found


@pytest.mark.parametrize("together", [True, False])
def test_each_arm_gets_its_own_joints_and_gripper_in_one_message_or_in_two(robot, arms, together):
    names = [arm.name for arm in robot.arms]
    for publisher, some in ([("/merger", names)] if together else [(f"/driver_{name}", [name]) for name in names]):
        taken = arms.take(TOPIC, message(robot, some), 1.0, publisher)
        assert set(some) <= set(taken)
    for arm in robot.arms:
        state, = arms.states[arm.name]
        left = arm.name == "left"
        assert state.joint_positions[0] == pytest.approx(arm.start_joints_rad[0] + (0.3 if left else 0.1))
        assert state.gripper == pytest.approx(0.25 if left else 0.75)
    assert not any(arms.problems(0.0).values())


def test_a_second_publisher_of_one_arm_does_not_touch_the_other(robot, arms):
    for tick in range(20):
        arms.take(TOPIC, message(robot, ["left", "right"]), 1.0 + 0.01 * tick, "/merger")
        arms.take(TOPIC, message(robot, ["left"], shift=1.0), 1.002 + 0.01 * tick, "/other")
    there = [state.joint_positions[0] for state in arms.states["left"]]
    np.testing.assert_allclose(there, robot.arm("left").start_joints_rad[0] + 0.3)
    assert len(there) == 20
    problems = arms.problems(1.0)
    assert any("/merger and by /other" in text for text in problems["left"].values()) and not problems["right"]
