"""What people get wrong: cameras, checkpoints, configurations. Each time a sentence names it, and the arm holds."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import rosgraph
import rospy
from sensor_msgs.msg import Image

from hybridvla_core.paths import ROOT
from hybridvla_ros.messages.images import from_rgb
from hybridvla_ros.runtime.private_graph import free_port

ROBOT, POLICY = "_robot_config:=config/robots/sim_fr3.yaml", "_policy_config:=config/policies/tiny.yaml"


class Camera:
    """A front camera under the test's control, in place of the rig's."""

    topic = "/test_camera/image_raw"

    def __init__(self):
        self._publisher = rospy.Publisher(self.topic, Image, queue_size=1)

    def send(self, seconds, size=256, encoding="rgb8"):
        """Send frames at 20 Hz for `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = from_rgb(np.zeros((size, size, 3), np.uint8), rospy.Time.now(), "front")
            message.encoding = encoding
            self._publisher.publish(message)
            time.sleep(0.05)


@pytest.fixture
def camera(rig):
    """Start the fake policy on a camera that sends nothing yet, and activate the filter; yield the camera."""
    rig.kill_policy()
    rig.policy = rig.graph.start(
        [sys.executable, str(ROOT / "test/support/fake_policy_node.py"), ROBOT, POLICY,
         f"/camera_front/color/image_raw:={Camera.topic}"], "policy.log")
    rig.heartbeat = None
    rig.until(lambda: rig.heartbeat is not None, "a heartbeat", 40)
    rospy.wait_for_service("/hybridvla/policy/set_instruction", 20)
    rig.until(lambda: rig.activate(True).success, "activation")
    rig.proposals.clear()
    yield Camera()
    rig.kill_policy()


def test_a_camera_that_is_absent_broken_wrong_or_dying_is_named_and_the_arm_holds(rig, camera):
    rig.instruct("left", False)
    rig.until(lambda: "camera front: no frame yet" in rig.heartbeat.message, "the camera's name")
    before = rig.position()                 # not earlier: the last status might be from before the new scene
    for what, words in (({"encoding": "16UC1"}, "camera front: encoding '16UC1'"), ({"size": 64}, "64x64")):
        deadline = time.monotonic() + 20
        while words not in rig.heartbeat.message:
            assert time.monotonic() < deadline, rig.heartbeat.message
            camera.send(0.3, **what)
        assert "front" in rig.heartbeat.message
    assert rig.state("HOLDING") and not rig.proposals
    assert np.allclose(rig.position(), before, atol=1e-6)
    camera.send(1.5)
    rig.until(lambda: rig.proposals, "a proposal once the camera works")
    rig.until(lambda: "camera front: no frame for" in rig.heartbeat.message, "the dead camera's name")
    rig.proposals.clear()
    deadline = time.monotonic() + 30
    while not rig.proposals:  # plugged in again
        assert time.monotonic() < deadline, rig.heartbeat.message
        camera.send(0.3)
    assert rig.policy.poll() is None


def run_node(name, *arguments, master=None):
    """Run a node that must refuse; return its output. Its name is new, because parameters outlive their node."""
    environment = dict(os.environ, **({"ROS_MASTER_URI": master} if master else {}))
    done = subprocess.run([sys.executable, str(ROOT / "nodes" / name), f"__name:=refused_{time.monotonic_ns()}", *arguments],
                          capture_output=True, text=True, timeout=60, check=False, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said, said
    return said


@pytest.mark.parametrize("name, damage, words", [
    ("altered", lambda folder: (folder / "dataset_statistics.json").open("a").write("\n"), "dataset_statistics.json"),
    ("incomplete", lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json")])
def test_an_altered_or_incomplete_checkpoint_is_refused(bench, tmp_path, name, damage, words):
    folder = tmp_path / name
    shutil.copytree(str(ROOT / "checkpoints" / "tiny"), str(folder))
    damage(folder)
    assert words in run_node("policy_node", ROBOT, POLICY, f"_checkpoint:={folder}")


def test_a_policy_for_other_cameras_is_refused(bench, tmp_path):
    config = tmp_path / "policy.yaml"
    config.write_text((ROOT / "config/policies/tiny.yaml").read_text().replace("view: front", "view: head"))
    said = run_node("policy_node", ROBOT, f"_policy_config:={config}")
    assert "head" in said and "front" in said


@pytest.mark.parametrize("arguments, words", [
    ((ROBOT, POLICY, "_mode:=fast"), "fast"), ((ROBOT,), "policy_config"),
    (("_robot_config:=config/robots/none.yaml", POLICY), "none.yaml")])
def test_a_wrong_parameter_is_named(bench, arguments, words):
    assert words in run_node("policy_node", *arguments)


@pytest.fixture
def empty_master(bench):
    """Yield another master, without a filter, because a second filter refuses before it reads its parameters."""
    port = free_port()
    process = bench.graph.start(["rosmaster", "--core", "-p", str(port)], "other_master.log")
    deadline = time.monotonic() + 30
    while not rosgraph.is_master_online(f"http://127.0.0.1:{port}"):
        assert time.monotonic() < deadline, "the other master did not start"
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    bench.graph.end(process)


@pytest.mark.parametrize("scale", ["1.5", "fast"])
def test_a_speed_scale_out_of_range_is_refused(empty_master, scale):
    assert "speed_scale" in run_node("safety_filter_node", ROBOT, f"_speed_scale:={scale}", master=empty_master)


def a_rig(folder, **changes):
    """Write a camera configuration for one front camera; return the file."""
    import yaml

    path = folder / "rig.yaml"
    path.write_text(yaml.safe_dump({"cameras": [dict({"view": "front", "image_topic": Camera.topic}, **changes)]}))
    return path


def test_a_camera_configuration_with_a_mistyped_key_is_refused(bench, tmp_path):
    assert "unknown key" in run_node("policy_node", ROBOT, POLICY, f"_cameras:={a_rig(tmp_path, topic='/f')}")


def test_another_camera_than_the_configured_one_is_named_and_nothing_is_predicted(rig, tmp_path):
    path = a_rig(tmp_path, serial="AY1", serial_parameter="/test_camera/camera/serial_number")
    rospy.set_param("/test_camera/camera/serial_number", "AY2")
    rig.kill_policy()
    rig.policy = rig.graph.start([sys.executable, str(ROOT / "test/support/fake_policy_node.py"), ROBOT, POLICY,
                                  f"_cameras:={path}"], "policy.log")
    try:
        rig.heartbeat = None
        rig.until(lambda: rig.heartbeat is not None, "a heartbeat", 40)
        rospy.wait_for_service("/hybridvla/policy/set_instruction", 20)
        rig.proposals.clear()
        rig.instruct("left", False)
        camera = Camera()
        deadline = time.monotonic() + 20
        while "serial number AY2" not in rig.heartbeat.message:
            assert time.monotonic() < deadline, rig.heartbeat.message
            camera.send(0.3)
        assert "expected is AY1" in rig.heartbeat.message and not rig.proposals
        rospy.set_param("/test_camera/camera/serial_number", "AY1")
        while not rig.proposals:
            assert time.monotonic() < deadline + 20, rig.heartbeat.message
            camera.send(0.3)
    finally:
        rig.kill_policy()
        rospy.delete_param("/test_camera")
