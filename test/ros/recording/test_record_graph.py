"""record.launch on the simulated rig: a hand at the SpaceMouse, labels, and the resulting bags."""
from __future__ import annotations

import json
import signal
import sys
import threading
import time

import numpy as np
import pytest
import rosbag
import rospy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from hybridvla.msg import ActionProposal, EpisodeEvent
from hybridvla_core.paths import ROOT
from hybridvla_ros.messages.images import to_rgb

INSTRUCTION = "put the red block on the green pad"


class SpaceMouse:
    """A publisher like spacenav_node: 30 Hz, also at rest."""

    def __init__(self):
        self.linear, self.buttons, self.speaking = (0.0, 0.0, 0.0), [0, 0], True
        self._twist = rospy.Publisher("/spacenav/twist", Twist, queue_size=1)
        self._joy = rospy.Publisher("/spacenav/joy", Joy, queue_size=1)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._end.wait(0.033):
            if self.speaking:
                twist = Twist()
                twist.linear.x, twist.linear.y, twist.linear.z = self.linear
                self._twist.publish(twist)
                self._joy.publish(Joy(buttons=list(self.buttons)))

    def close(self):
        self._end.set()
        self._thread.join(10)
        for publisher in (self._twist, self._joy):
            publisher.unregister()


class Studio:
    """The recording graph as its operator sees it."""

    def __init__(self, rig, folder):
        self.rig, self.folder, self.events, self.deadman, self.finished = rig, folder, [], None, None
        self.mouse = SpaceMouse()
        self.written = 0
        self._subscriptions = [
            rospy.Subscriber("/hybridvla/episode/event", EpisodeEvent, self.events.append),
            rospy.Subscriber("/diagnostics", DiagnosticArray, self.on_diagnostics),
            rospy.Subscriber("/hybridvla/safety/deadman", Bool, lambda message: setattr(self, "deadman", message.data))]

    def close(self):
        self.mouse.close()
        for ear in self._subscriptions:
            ear.unregister()

    def hears(self):
        """Whether every topic has its publisher; earlier events would be missed."""
        return all(ear.get_num_connections() for ear in self._subscriptions)

    def on_diagnostics(self, message):
        for status in message.status:
            if status.name == "recorder_node: recording":
                self.written = next((int(v.value) for v in status.values if v.key == "messages"), 0)

    def some_messages(self):
        """Wait until the running recording has more than its latched messages. The count of an earlier one is discarded."""
        self.written = 0
        self.rig.until(lambda: self.written > 30, "messages in the recording", 40)

    def call(self, name, expect=True):
        service = f"/hybridvla/{name}"
        rospy.wait_for_service(service, 40)
        answer = rospy.ServiceProxy(service, Trigger)()
        assert answer.success is expect, answer.message
        return answer.message

    def bags(self):
        return sorted(path.name for path in self.folder.glob("*.bag"))

    def sidecars(self):
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]

    def labels(self):
        """Return the episodes' events from the file of labels."""
        path = self.folder / "episodes.jsonl"
        return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []

    def rests(self):
        """Wait until the commanded pose rests, and return its position."""
        held = None
        deadline = time.monotonic() + 20
        while held is None or not np.allclose(self.rig.position(), held, atol=1e-6):
            assert time.monotonic() < deadline, "the arm does not come to rest"
            held = np.array(self.rig.position())
            time.sleep(0.3)
        return held


@pytest.fixture(scope="module")
def studio(bench, tmp_path_factory):
    bench.rest()
    bench.kill_policy()
    folder = tmp_path_factory.mktemp("recordings")
    config = yaml.safe_load((ROOT / "config/recording/sim_fr3.yaml").read_text())
    # A loaded test machine may stall for seconds; tests without ROS show that losses break a bag.
    config.update(folder=str(folder), start_free_gb=0.01, stop_free_gb=0.01, max_drop_share=1.0, start_timeout_s=20.0)
    for topic in config["topics"]:
        topic.pop("max_gap_s", None)
        topic["required"] = topic["name"] in ("/joint_states", "/hybridvla/policy/instruction")
    path = tmp_path_factory.mktemp("config") / "recording.yaml"
    path.write_text(yaml.safe_dump(config))
    calibration = path.with_name("calibration.yaml")
    calibration.write_text("front: {position_m: [1.0, 0.0, 0.5]}\n")
    launch = bench.graph.launch(
        "record.launch", f"config:={path}", "spacenav:=false", f"spacemouse_device:={path}",      # any existing file
        "robot_config:=config/robots/sim_fr3.yaml", f"calibration:={calibration}",
        f"instruction:={INSTRUCTION}", f"labels:={folder / 'episodes.jsonl'}")
    made = Studio(bench, folder)
    # Also after a failed set-up: a spacemouse_node left running would be a second policy in every later test.
    try:
        for service in ("record/start", "episode/start"):
            rospy.wait_for_service(f"/hybridvla/{service}", 60)
        bench.until(lambda: made.deadman is not None and made.hears(), "the deadman and the episodes' topic", 40)
        yield made
    finally:
        made.close()
        bench.graph.end(launch)


def test_a_demonstration_by_hand_becomes_a_complete_bag_with_its_label(studio):
    rig, mouse, before = studio.rig, studio.mouse, studio.bags()
    assert rig.activate(True).success
    rig.until(lambda: rig.state("HOLDING") or rig.state("ACTIVE"), "activation")
    start = studio.rests()
    studio.call("episode/start")
    rig.until(lambda: list(studio.folder.glob("*.active")), "a recording", 40)
    mouse.linear, mouse.buttons = (0.0, 1.0, 0.0), [0, 0]
    time.sleep(0.5)
    assert np.allclose(rig.position(), start, atol=1e-4), "nothing moves without the deadman"
    mouse.buttons = [1, 0]
    rig.until(lambda: rig.position()[1] > start[1] + 0.05, "motion to the left", 40)
    assert abs(rig.position()[0] - start[0]) < 0.02 and studio.deadman
    mouse.buttons = [0, 0]
    rig.until(lambda: not studio.deadman and rig.state("HOLDING"), "the hold")
    studio.rests()
    studio.call("episode/success")
    rig.until(lambda: len(studio.bags()) == len(studio.sidecars()) == len(before) + 1, "the bag", 40)
    sidecar, = (found for found in studio.sidecars() if found["bag"] not in before)
    assert sidecar["complete"] and sidecar["label"] == "success" and sidecar["instructions"] == [INSTRUCTION], sidecar
    assert rig.report("").limit_violations == 0
    check_bag(studio.folder / sidecar["bag"])


def check_bag(path):
    """Assert that one file contains everything that training needs."""
    with rosbag.Bag(str(path)) as bag:
        messages = {}
        for topic, message, _ in bag.read_messages():
            messages.setdefault(topic, []).append(message)
    for view in ("front", "wrist"):
        assert to_rgb(messages[f"/camera_{view}/color/image_raw/compressed"][0], view).shape[2] == 3
        assert messages[f"/camera_{view}/color/camera_info"]
    assert len(messages["/joint_states"]) > 20 and messages["/hybridvla/safety/arm/target"]
    assert messages["/hybridvla/policy/instruction"][0].data == INSTRUCTION
    actions = [message for message in messages["/hybridvla/policy/proposal"] if message.kind == ActionProposal.ACTION]
    assert actions and all(message.instruction == INSTRUCTION and message.targets for message in actions)
    kinds = [message.kind for message in messages["/hybridvla/policy/proposal"]]
    assert ActionProposal.HOLD in kinds, "the release is in the bag"
    assert messages["/hybridvla/episode/event"][0].event == EpisodeEvent.START
    snapshot = json.loads(messages["/hybridvla/recording/snapshot"][0].data)
    assert snapshot["teleoperation"] == "spacemouse"
    assert {"recording.yaml", "sim_fr3.yaml", "spacemouse.yaml", "calibration.yaml"} <= set(snapshot["files"])
    assert "position_m" in snapshot["files"]["calibration.yaml"]["text"]


def test_a_silent_device_ends_the_motion_with_the_button_still_held(studio):
    rig, mouse = studio.rig, studio.mouse
    rig.until(lambda: rig.activate(True).success, "activation")
    start = rig.position()[1]
    mouse.linear, mouse.buttons = (0.0, -1.0, 0.0), [1, 0]
    rig.until(lambda: rig.position()[1] < start - 0.02, "motion", 40)
    mouse.speaking = False
    rig.until(lambda: studio.deadman is False and rig.state("HOLDING"), "the hold")
    mouse.buttons, mouse.linear, mouse.speaking = [0, 0], (0.0, 0.0, 0.0), True


def test_start_stop_discard_and_their_refusals(studio):
    before, labels = studio.bags(), [sidecar["label"] for sidecar in studio.sidecars()]
    assert "nothing is being recorded" in studio.call("record/stop", expect=False)
    assert "recording" in studio.call("record/start")
    assert "is being recorded" in studio.call("record/start", expect=False)
    studio.call("record/discard")
    assert studio.bags() == before and not list(studio.folder.glob("*.active"))
    time.sleep(1.1)  # names of recordings count seconds
    studio.call("record/start")
    studio.some_messages()
    assert "no label" in studio.call("record/stop")
    studio.rig.until(lambda: not studio.written, "the end of the recording")
    studio.call("record/start")
    studio.some_messages()
    assert "failure" in studio.call("record/failure")
    assert [sidecar["label"] for sidecar in studio.sidecars()] == [*labels, None, "failure"]


def test_a_discarded_episode_leaves_its_label_and_no_bag(studio):
    before, labels, heard = studio.bags(), studio.labels(), len(studio.events)
    studio.call("episode/start")
    studio.rig.until(lambda: list(studio.folder.glob("*.active")), "a recording", 40)
    assert "is running" in studio.call("episode/start", expect=False)
    studio.call("episode/discard")
    studio.rig.until(lambda: not list(studio.folder.glob("*.active")), "the end", 40)
    assert studio.bags() == before
    assert studio.labels() == [*labels, "start", "discard"]
    studio.rig.until(lambda: len(studio.events) >= heard + 2, "the events")
    assert [message.event for message in studio.events[heard:]] == [EpisodeEvent.START, EpisodeEvent.DISCARD]


def test_a_second_publisher_on_a_command_topic_refuses_the_start_by_name(studio):
    intruder = rospy.Publisher("/hybridvla/policy/proposal", ActionProposal, queue_size=1)
    try:
        said = studio.call("record/start", expect=False)
        assert "/hybridvla/policy/proposal is published by" in said and "/ros_tests" in said
    finally:
        intruder.unregister()


@pytest.mark.long
def test_a_silent_topic_refuses_the_start_and_a_killed_recorder_leaves_a_marked_bag(studio, tmp_path):
    """The test starts a recorder of its own, which it can kill."""
    config = {"folder": str(tmp_path), "start_free_gb": 0.01, "stop_free_gb": 0.01, "start_timeout_s": 2.0,
              "topics": [{"name": "/joint_states"}]}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    start = [sys.executable, str(ROOT / "nodes/recorder_node"), "__name:=second_recorder", f"_config:={path}",
             "_follow_episodes:=false", *[f"/hybridvla/record/{name}:=/second/{name}"
                                          for name in ("start", "stop", "success", "failure", "discard")]]
    process = studio.rig.graph.start(start, "second.log")
    rospy.wait_for_service("/second/start", 40)
    assert rospy.ServiceProxy("/second/start", Trigger)().success
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert list(tmp_path.glob("*.active"))
    path.write_text(yaml.safe_dump(dict(config, topics=[{"name": "/joint_states"}, {"name": "/nowhere"}])))
    process = studio.rig.graph.start(start, "second.log")
    studio.rig.until(lambda: list(tmp_path.glob("*.broken.bag")), "the mark", 40)
    deadline, answer = time.monotonic() + 40, None
    while answer is None:
        try:
            answer = rospy.ServiceProxy("/second/start", Trigger)()
        except rospy.ServiceException:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert not answer.success and "nothing arrives on /nowhere" in answer.message
    studio.rig.graph.end(process)
    marked = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert not marked["complete"] and "reindex" in marked["problems"][0]
