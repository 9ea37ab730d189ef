"""Bags for the replay tests, written as a robot would have recorded them: an episode of the simulated rig in process,
or a synthetic motion that costs nothing to make."""
from __future__ import annotations

import functools

import cv2
import numpy as np
import rosbag
import rospy
from sensor_msgs.msg import CameraInfo, CompressedImage, JointState
from std_msgs.msg import String

from hybridvla_core.paths import ROOT

SCENE, BEGIN = 3_000_005, 1_700_000_000.0
INSTRUCTION = "put the yellow block on the yellow pad"
FRONT, JOINTS, TOLD = "/camera_front/color/image_raw", "/joint_states", "/hybridvla/policy/instruction"
JOINTS_S, IMAGES_S = 0.02, 0.1


class RecordingRig:
    """A rig that keeps the messages that its topics would have carried."""

    def __init__(self, rig):
        self._rig, self.joints, self.images = rig, [], []
        self._next_joints = self._next_image = 0.0

    def __getattr__(self, name):
        return getattr(self._rig, name)

    def step(self, seconds):
        self._rig.step(seconds)
        now = self._rig.time
        if now >= self._next_joints - 1e-9:
            self._next_joints = now + JOINTS_S
            state = self._rig.arm_state()
            self.joints.append((BEGIN + now, np.concatenate([state.joint_positions, self._rig.finger_positions])))
        if now >= self._next_image - 1e-9:
            self._next_image = now + IMAGES_S
            pixels = self._rig.render("front")
            self.images.append((BEGIN + now, cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]))


@functools.lru_cache(maxsize=1)
def episode():
    """Let the shipped checkpoint do one task and return the recording rig. The episode is driven once for all tests."""
    from hybridvla_cli.evaluate import load_policy
    from hybridvla_core.evaluation.suite import load_configs
    from hybridvla_sim.suite import Suite
    from hybridvla_sim.tasks import load

    config, robot = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "ensemble")
    suite = Suite(load_policy(str(ROOT / "checkpoints/tiny"), "ensemble"), config, robot, load("blocks"))
    suite.rig.reset(np.random.default_rng(SCENE))
    recording = RecordingRig(suite.rig)
    suite.runner.rig = recording
    result = suite.runner.run(INSTRUCTION, lambda rig, text: rig.world.success(text))
    suite.rig.close()
    assert result.success
    return recording


class Motion:
    """A motion in which the arm swings its base and closes its gripper; the camera sees noise. length: duration, s."""

    def __init__(self, length=10.0):
        start = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
        rng = np.random.default_rng(1)
        pictures = [cv2.imencode(".jpg", rng.integers(0, 255, (256, 256, 3), dtype=np.uint8))[1] for _ in range(4)]
        self.joints, self.images = [], []
        for now in np.arange(0.0, length, JOINTS_S):
            swing = np.interp(now % 4.0, [0.0, 1.5, 2.0, 3.5], [0.0, 0.4, 0.4, 0.0])
            opening = np.interp(now % 4.0, [1.6, 1.9, 3.6, 3.9], [1.0, 0.5, 0.5, 1.0])
            joints = start + np.array([swing, 0, 0, 0, 0, 0, 0])
            self.joints.append((BEGIN + now, np.concatenate([joints, np.full(2, 0.04 * opening)])))
        for index, now in enumerate(np.arange(0.005, length, IMAGES_S)):
            self.images.append((BEGIN + now, pictures[index % 4]))


def write(path, recording, front=FRONT + "/compressed", change=None, instructions=((0.0, INSTRUCTION),), info=True):
    """Write a bag and return its path. change: (topic, time s, message, stamp s) -> (message, stamp), or None to leave it out."""
    from hybridvla_sim.fr3.rig import FINGER_NAMES, JOINT_NAMES

    events = [(when, JOINTS, JointState(name=[*JOINT_NAMES, *FINGER_NAMES], position=list(values)))
              for when, values in recording.joints]
    events += [(when, front, CompressedImage(format="jpeg", data=data.tobytes())) for when, data in recording.images]
    events += [(recording.images[0][0] + after, TOLD, String(text)) for after, text in instructions]
    if info:
        k = [577.37, 0.0, 128.0, 0.0, 577.37, 128.0, 0.0, 0.0, 1.0]
        events.append((recording.images[0][0], "/camera_front/color/camera_info", CameraInfo(width=256, height=256, K=k)))
    with rosbag.Bag(str(path), "w", compression="lz4") as bag:
        for when, topic, message in sorted(events, key=lambda event: event[0]):
            stamp = when
            if change is not None:
                changed = change(topic, when - BEGIN, message, stamp)
                if changed is None:
                    continue
                message, stamp = changed
            if hasattr(message, "header"):
                message.header.stamp = rospy.Time.from_sec(stamp)
            bag.write(topic, message, rospy.Time.from_sec(when + 0.004))
    return path


def options(*bags, **changes):
    """Return the options of `hybridvla replay` as the tests call it, with `changes`."""
    from hybridvla_ros.replay.job import Options

    values = dict(bags=tuple(map(str, bags)), checkpoint=str(ROOT / "checkpoints/tiny"), compare=None,
                  policy_config=ROOT / "config/policies/tiny.yaml", robot_config=ROOT / "config/robots/sim_fr3.yaml",
                  thresholds=ROOT / "config/replay/thresholds.yaml", topics=None, mode=None, instruction="",
                  other_instructions=("put the red block on the green pad", "put the green block on the blue pad"),
                  rate=4.0, proposals_from=None, everything=False, batch=16, senses=False, scratch=None)
    return Options(**{**values, **changes})


def older(kind, fields):
    """Return a raw message of one byte, of an earlier version of one of our message types."""
    earlier = type("Earlier", (), {"_md5sum": "0" * 32, "_full_text": fields})
    return (kind._type, b"\x01", "0" * 32, earlier)


def fail_to_scan(monkeypatch, name, error):
    """Make the scan of one bag end in an unforeseen error."""
    from hybridvla_ros.replay.scan import Scanner

    scan = Scanner.scan

    def fail(self, found, files, topics):
        if found == name:
            raise error
        return scan(self, found, files, topics)
    monkeypatch.setattr(Scanner, "scan", fail)
