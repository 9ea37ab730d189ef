"""Exposure locked on request: from a frame that has arrived, at once or not at all. No hardware, no ROS."""
from __future__ import annotations

import time

import pytest

pytest.importorskip("pyrealsense2")
import pyrealsense2 as rs
from realsense_bench import SoftCamera

from hybridvla_ros.realsense.camera import CameraState, RealsenseCamera
from hybridvla_ros.realsense.config import DeviceConfig, RealsenseConfig

pytestmark = pytest.mark.robot_computer


def test_a_lock_that_did_not_happen_does_not_happen_later_and_leaves_the_one_before():
    context, frames = rs.context(), []
    soft = SoftCamera("111").plug(context)
    config = RealsenseConfig(devices=(DeviceConfig("camera_front", "111"),))
    camera = RealsenseCamera(rs, context, config.devices[0], config, lambda _device, frame: frames.append(frame))

    def until(condition):
        deadline = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < deadline, camera.message
            camera.step()

    camera.start()
    before = {"exposure_100us": 100.0}
    camera.locked = before
    camera.request("lock")
    camera.step()
    assert camera.locks == 0 and camera.pending == "lock", "no frame came to fix anything by"
    camera.close("silent")
    assert not camera.pending
    until(lambda: camera.state is CameraState.STREAMING)
    soft.send()
    until(lambda: frames)
    assert camera.locks == 0 and camera.locked == before
    camera.request("lock")
    soft.send()
    until(lambda: camera.locks)
    assert set(camera.locked) == {"exposure_100us", "gain", "white_balance_k"}
    camera.close()
