"""A recording of a real FR3: the fingers have their own topic, which replay and the player read as live nodes do."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import rosbag
import rospy
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String

from hybridvla.msg import ArmSafety, SafetyStatus
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Pose
from hybridvla_core.evaluation.replay.settings import ReplayConfig
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.messages.conversions import pose_message
from hybridvla_ros.replay import bags
from hybridvla_ros.replay.scan import Scanner
from hybridvla_ros.replay.topics import TopicMap, resolve

BEGIN, FINGERS = 1_700_000_000.0, "/franka_gripper/joint_states"
START = [0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785]


def record(path, fingers=FINGERS, openings=(1.0, 0.25), sent=False):
    """Record two seconds; after one, the gripper closes to a quarter. sent: a filter commands the arm meanwhile."""
    with rosbag.Bag(str(path), "w") as bag:
        bag.write("/hybridvla/policy/instruction", String("put the red block on the green pad"), rospy.Time(BEGIN))
        for number in range(400):
            when = rospy.Time.from_sec(BEGIN + number * 0.005)
            arm = JointState(name=[f"fr3_joint{i}" for i in range(1, 8)], position=START, velocity=[0.0] * 7)
            arm.header.stamp = when
            bag.write("/franka_state_controller/joint_states", arm, when)
            if number % 20 == 0:
                hand = JointState(name=["fr3_finger_joint1", "fr3_finger_joint2"], position=[0.04 * openings[number >= 200]] * 2)
                hand.header.stamp = when
                bag.write(fingers, hand, when)
                if sent:
                    bag.write("/hybridvla/safety/status", commanded(when), when)
                for camera in ("front", "wrist"):
                    image = CompressedImage(format="jpeg", data=b"\xff\xd8")
                    image.header.stamp = when
                    bag.write(f"/camera_{camera}/color/image_raw/compressed", image, when)
    return path


def commanded(when):
    target = pose_message(Pose(np.array([0.4, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0])), "fr3_link0", when.to_sec())
    status = SafetyStatus(state=SafetyStatus.ACTIVE, epoch=5, sequence=3, arms=[ArmSafety(name="arm", target=target)])
    status.header.stamp = when
    return status


def scan(path):
    policy = load_file(PolicyConfig, ROOT / "config/policies/fr3.yaml")
    robot = load_file(RobotConfig, ROOT / "config/robots/fr3.yaml")
    settings = load_file(ReplayConfig, ROOT / "config/replay/thresholds.yaml")
    with bags.BagShelf(path.parent) as shelf:
        opened = shelf.open(path)
        topics = resolve(policy, robot, TopicMap(), opened.topics, path.name)
        return topics, Scanner(policy, robot, settings).scan(path.name, [opened], topics)


def test_the_gripper_is_read_from_its_own_topic(tmp_path):
    topics, found = scan(record(tmp_path / "fr3.bag"))
    assert list(topics.grippers) == [FINGERS] and FINGERS not in topics.joints
    track = found.recording.tracks[0]
    openings = track.openings[np.isfinite(track.openings)]
    assert len(openings) > 390 and openings[0] == 1.0 and abs(openings[-1] - 0.25) < 1e-6


def test_a_gripper_that_is_closed_from_the_beginning_is_closed_in_what_was_sent_too(tmp_path):
    _, found = scan(record(tmp_path / "fr3.bag", openings=(0.25, 1.0), sent=True))
    assert np.isnan(found.recording.tracks[0].openings[0]), "the arm's first message came before the gripper's"
    convention = load_file(PolicyConfig, ROOT / "config/policies/fr3.yaml").convention
    for base in ("commanded", "measured"):
        (track,) = found.motion(replace(convention, delta_base=base)).tracks
        assert (track in found.commands) == (base == "commanded")
        assert [track.closed(BEGIN + when) for when in (0.0, 0.5, 1.5)] == [True, True, False], base


def test_a_recording_without_it_says_that_the_gripper_is_unknown(tmp_path):
    topics, found = scan(record(tmp_path / "fr3.bag", fingers="/other/joint_states"))
    assert not topics.grippers
    assert any("gripper of arm arm is unknown" in note and FINGERS in note for note in found.notes)
    assert "the gripper of arm arm is never read: it counts as open wherever it is compared" in found.notes
