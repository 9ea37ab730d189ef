"""record.launch for the AgileX leader arms: the driver moves, the recorder only listens."""
from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import rosbag
import rospy
import yaml
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, JointState
from std_srvs.srv import Trigger

from hybridvla.srv import SetInstruction
from hybridvla_core.paths import ROOT
from hybridvla_ros.messages.images import to_jpeg


class Driver:
    """The topics of the AgileX driver in mode 0 and of three cameras."""

    def __init__(self):
        self.publishers = [rospy.Publisher(f"/{who}/joint_{side}", JointState, queue_size=5)
                           for who in ("master", "puppet") for side in ("left", "right")]
        self.poses = [rospy.Publisher(f"/puppet/end_pose_{side}", PoseStamped, queue_size=5) for side in ("left", "right")]
        self.images = [rospy.Publisher(f"/camera_{name}/color/image_raw/compressed", CompressedImage, queue_size=2)
                       for name in "flr"]
        self.infos = [rospy.Publisher(f"/camera_{name}/color/camera_info", CameraInfo, queue_size=2) for name in "flr"]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        pixels, count = np.zeros((48, 64, 3), np.uint8), 0
        while not self._end.wait(0.02):
            count, now = count + 1, rospy.Time.now()
            joints = JointState(name=[f"joint{i}" for i in range(7)], position=[0.01 * count] * 7)
            joints.header.stamp = now
            pose = PoseStamped()
            pose.header.stamp = now
            for publisher in self.publishers:
                publisher.publish(joints)
            for publisher in self.poses:
                publisher.publish(pose)
            if count % 2 == 0:
                for image, info in zip(self.images, self.infos):
                    image.publish(to_jpeg(pixels, now, "f"))
                    info.publish(CameraInfo(width=64, height=48))

    def close(self):
        self._end.set()
        self._thread.join(10)
        for publisher in (*self.publishers, *self.poses, *self.images, *self.infos):
            publisher.unregister()


@pytest.fixture
def leader_arms(bench, tmp_path):
    bench.kill_policy()               # its service of the same name would be taken for the launch file's
    config = yaml.safe_load((ROOT / "config/recording/agilex.yaml").read_text())
    config.update(folder=str(tmp_path / "bags"), start_free_gb=0.01, stop_free_gb=0.01, max_drop_share=1.0,
                  start_timeout_s=20.0)
    for topic in config["topics"]:
        topic.pop("max_gap_s", None)  # a loaded test machine may stall for longer
    path = tmp_path / "recording.yaml"
    path.write_text(yaml.safe_dump(config))
    launch = bench.graph.launch("record.launch", f"config:={path}", "teleop:=puppet", "robot_config:=config/robots/agilex.yaml",
                                "cameras:=config/cameras/agilex_orbbec.yaml", f"labels:={tmp_path / 'episodes.jsonl'}")
    driver = Driver()
    try:
        rospy.wait_for_service("/hybridvla/record/start", 60)
        rospy.wait_for_service("/hybridvla/policy/set_instruction", 60)
        yield tmp_path / "bags"
    finally:
        driver.close()
        bench.graph.end(launch)


def test_leader_and_follower_joints_three_views_and_the_instruction_are_in_the_bag(bench, leader_arms):
    said = rospy.ServiceProxy("/hybridvla/policy/set_instruction", SetInstruction)
    assert not said("  ", False).success and said("lift the ball with both arms", False).success
    start = rospy.ServiceProxy("/hybridvla/record/start", Trigger)
    answer = start()
    assert answer.success, answer.message
    seen = []
    listener = rospy.Subscriber("/camera_l/color/image_raw/compressed", CompressedImage, seen.append)
    bench.until(lambda: len(seen) > 20, "frames", 40)
    listener.unregister()
    answer = rospy.ServiceProxy("/hybridvla/record/success", Trigger)()
    assert answer.success and "is complete" in answer.message, answer.message
    sidecar = json.loads(next(leader_arms.glob("*.json")).read_text())
    assert sidecar["complete"] and sidecar["instructions"] == ["lift the ball with both arms"]
    with rosbag.Bag(str(leader_arms / sidecar["bag"])) as bag:
        counts = {topic: info.message_count for topic, info in bag.get_type_and_topic_info().topics.items()}
        snapshot = json.loads(next(bag.read_messages("/hybridvla/recording/snapshot")).message.data)
    for topic in ("/master/joint_left", "/master/joint_right", "/puppet/joint_left", "/puppet/joint_right",
                  *(f"/camera_{name}/color/image_raw/compressed" for name in "flr")):
        assert counts[topic] > 5, counts
    assert counts["/hybridvla/policy/instruction"] >= 1 and snapshot["teleoperation"] == "puppet"
    assert {"agilex.yaml", "agilex_orbbec.yaml"} <= set(snapshot["files"])
