"""realsense_camera_node over a real master: topics, camera_info, diagnostics, a pulled cable, and refusals."""
from __future__ import annotations

import subprocess
import sys
import time
from collections import deque

import numpy as np
import pytest
import rospy
import yaml

pytest.importorskip("pyrealsense2")
import pyrealsense2 as rs
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from realsense_bench import SoftCamera, Streaming
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from hybridvla_core.paths import ROOT
from hybridvla_ros.messages.images import to_rgb
from hybridvla_ros.realsense import node as node_module
from hybridvla_ros.realsense.camera import CameraState
from hybridvla_ros.realsense.config import DeviceConfig, RealsenseConfig
from hybridvla_ros.realsense.node import RealsenseNode

NAMES = {"camera_a": "111", "camera_b": "222"}


class Watch:
    """The newest message of each topic that the node publishes, because raw images are large."""

    def __init__(self):
        self.images, self.infos, self.jpegs, self.status = {}, {}, {}, {}
        self.ears = []
        for name in NAMES:
            for kind, topic, into in ((Image, "image_raw", self.images), (CameraInfo, "camera_info", self.infos),
                                      (CompressedImage, "image_raw/compressed", self.jpegs)):
                self.ears.append(rospy.Subscriber(
                    f"/{name}/color/{topic}", kind, lambda m, i=into, n=name: i.setdefault(n, deque(maxlen=30)).append(m),
                    queue_size=1, buff_size=2 ** 24))
        self.ears.append(rospy.Subscriber("/diagnostics", DiagnosticArray, self.on_diagnostics))

    def close(self):
        for ear in self.ears:
            ear.unregister()

    def on_diagnostics(self, message):
        for status in message.status:
            if status.name.startswith("realsense_camera_node"):
                self.status[status.name.rsplit(" ", 1)[-1]] = status

    def until(self, condition, what, timeout=40.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come within {timeout} s; {self.status}"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def cameras(bench, tmp_path_factory):
    config = tmp_path_factory.mktemp("cameras") / "node.yaml"
    config.write_text(yaml.safe_dump({
        "devices": [{"name": name, "serial": ""} for name in NAMES], "frame_timeout_s": 0.5, "reset_timeout_s": 1.0,
        "reset_interval_s": 60.0}))
    node = bench.graph.start([sys.executable, str(ROOT / "test/support/soft_camera_node.py"), f"_config:={config}",
                              "_serials:=camera_a=111,camera_b=222"], "realsense.log")
    watch = Watch()
    try:
        watch.until(lambda: set(watch.images) == set(watch.status) == set(NAMES), "images and diagnostics of both cameras")
        yield watch
    finally:
        watch.close()
        bench.graph.end(node)


def test_images_and_camera_info_share_stamp_and_frame_and_fit_the_wall_clock(cameras):
    cameras.until(lambda: all(len(cameras.images[name]) > 5 and len(cameras.infos.get(name, ())) > 5
                              and cameras.jpegs.get(name) for name in NAMES), "some frames")
    for name, serial in NAMES.items():
        image = cameras.images[name][-1]
        assert (image.encoding, image.width, image.height, image.step) == ("rgb8", 640, 480, 1920)
        assert image.header.frame_id == f"{name}_color_optical_frame"
        assert (to_rgb(image, name) == (int(serial) % 256, 10, 200)).all()
        assert abs((rospy.Time.now() - image.header.stamp).to_sec()) < 5.0
        cameras.until(lambda n=name: {m.header.stamp for m in list(cameras.images[n])}
                      & {m.header.stamp for m in list(cameras.infos[n])}, "an image with its camera_info")
        info = cameras.infos[name][-1]
        assert info.K[0] == pytest.approx(600.0) and info.K[4] == pytest.approx(601.0)
        assert info.K[2] == pytest.approx(320.5) and info.distortion_model == "plumb_bob" and len(info.D) == 5
        assert info.D[0] == pytest.approx(0.1) and info.P[0] == info.K[0]
        jpeg = to_rgb(cameras.jpegs[name][-1], name)
        assert np.abs(jpeg.astype(int) - to_rgb(image, name)).mean() < 6


def test_diagnostics_carry_the_serial_number(cameras):
    cameras.until(lambda: set(cameras.status) == set(NAMES), "diagnostics")
    cameras.until(lambda: all(status.level == DiagnosticStatus.OK for status in cameras.status.values()), "OK")
    for name, serial in NAMES.items():
        assert cameras.status[name].hardware_id == serial
        assert "frames" in {value.key for value in cameras.status[name].values}


@pytest.mark.long
def test_a_pulled_cable_is_named_and_frames_come_back_with_it_while_the_other_camera_goes_on(cameras):
    cable = rospy.ServiceProxy("/cable", SetBool)
    assert cable(False).success
    cameras.until(lambda: cameras.status["camera_a"].level == DiagnosticStatus.ERROR
                  and "serial 111) is not connected" in cameras.status["camera_a"].message, "the loss")
    cameras.images["camera_b"].clear()
    cameras.until(lambda: len(cameras.images["camera_b"]) > 3, "the other camera's frames")
    assert not rospy.ServiceProxy("/camera_a/realsense_camera/reset", Trigger)().success
    assert cable(True).success
    cameras.images["camera_a"].clear()
    cameras.until(lambda: len(cameras.images["camera_a"]) > 3, "frames again")
    cameras.until(lambda: cameras.status["camera_a"].level == DiagnosticStatus.OK, "OK again")


def test_exposure_is_locked_by_service(cameras):
    answer = rospy.ServiceProxy("/camera_b/realsense_camera/lock_exposure", Trigger)()
    assert answer.success and "exposure_100us: 166" in answer.message and "white_balance_k: 4600" in answer.message


def test_a_lock_without_a_frame_names_the_silence_and_leaves_what_was_fixed_before(bench, monkeypatch):
    monkeypatch.setattr(node_module, "LOCK_TIMEOUT_S", 0.5)
    context = rs.context()
    soft = SoftCamera("444").plug(context)
    node = RealsenseNode(rs, context, RealsenseConfig(devices=(DeviceConfig("camera_y", "444"),)))
    camera = node.cameras[0]
    camera.locked = {"gain": 64.0}
    answer = rospy.ServiceProxy("/camera_y/realsense_camera/lock_exposure", Trigger)()
    assert not answer.success and "no frame for 0.5 s" in answer.message and "444" in answer.message
    with Streaming(soft):
        bench.until(lambda: camera.counters["frames"] > 2, "frames")
    assert camera.locks == 0 and camera.locked == {"gain": 64.0}
    node._close()


def test_a_node_that_ends_leaves_the_cameras_closed(bench):
    """rospy calls the hook while is_shutdown() is false: a camera thread that kept running would open the camera again."""
    context = rs.context()
    soft = SoftCamera("333").plug(context)
    node = RealsenseNode(rs, context, RealsenseConfig(devices=(DeviceConfig("camera_z", "333"),)))
    with Streaming(soft):
        bench.until(lambda: node.cameras[0].counters["frames"] > 2, "frames")
        node._close()
        assert not any(thread.is_alive() for thread in node._threads)
        time.sleep(1.0)
    camera = node.cameras[0]
    assert camera.state is CameraState.SEARCHING and camera.message == "closed" and camera.counters["reconnects"] == 0


def run_node(*arguments):
    done = subprocess.run([sys.executable, str(ROOT / "nodes/realsense_camera_node"),
                           f"__name:=refused_{time.monotonic_ns()}", *arguments],
                          capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in said, said
    return said


@pytest.mark.long
def test_the_node_refuses_what_it_cannot_do_in_one_sentence(bench, tmp_path):
    assert "has no serial number" in run_node("_config:=config/cameras/node_fr3.yaml")
    config = tmp_path / "node.yaml"
    config.write_text(yaml.safe_dump({"devices": [{"name": "a", "serial": "5"}], "start_timeout_s": 0.1}))
    assert "serial 5) is not connected" in run_node(f"_config:={config}")
    assert "~config" in run_node()
    rospy.set_param("/use_sim_time", True)
    try:
        assert "use_sim_time" in run_node(f"_config:={config}")
    finally:
        rospy.set_param("/use_sim_time", False)
    listing = subprocess.run([sys.executable, str(ROOT / "nodes/realsense_camera_node"), "--list"], capture_output=True,
                             text=True, timeout=60, check=False)
    assert listing.returncode == 1 and "no RealSense camera is connected" in listing.stdout
