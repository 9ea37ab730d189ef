"""A RealSense camera's life: found, refused, locked, streamed, stalled, reset, unplugged and back. No hardware, no ROS."""
from __future__ import annotations

import gc
import sys
import time

import pytest

pytest.importorskip("pyrealsense2")
import pyrealsense2 as rs
from realsense_bench import SoftCamera, Streaming

from hybridvla_core.configuration import from_mapping
from hybridvla_core.errors import ConfigurationError
from hybridvla_ros.realsense import sdk
from hybridvla_ros.realsense.camera import CameraState, RealsenseCamera
from hybridvla_ros.realsense.config import DeviceConfig, RealsenseConfig

pytestmark = pytest.mark.robot_computer

FRONT = {"name": "camera_front", "serial": "111"}
TIMES = {"frame_timeout_s": 0.3, "reset_interval_s": 0.3, "reset_timeout_s": 0.5, "start_timeout_s": 0.05}


def rig(**changes):
    return from_mapping(RealsenseConfig, dict(TIMES, devices=[dict(FRONT, **changes)]), "rig")


class Desk:
    """One configured camera and what it delivered."""

    def __init__(self, context, **changes):
        self.frames = []
        config = rig(**changes)
        self.camera = RealsenseCamera(rs, context, config.devices[0], config,
                                      lambda device, frame: self.frames.append(frame))

    def until(self, condition, what, timeout=30.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.camera.state} {self.camera.message}"
            self.camera.step()


@pytest.fixture
def context():
    return rs.context()


@pytest.fixture
def soft(context):
    camera, other = (SoftCamera(serial, name=f"Intel RealSense {model}").plug(context)
                     for serial, model in (("111", "D435"), ("222", "L515")))
    yield camera
    other.unplug()


def test_frames_arrive_with_their_pixels_stamps_and_numbers(context, soft):
    desk = Desk(context)
    desk.camera.start()
    before = time.time_ns()
    soft.send(77, stamp_ms=before * 1e-6)
    desk.until(lambda: desk.frames, "a frame")
    frame = desk.frames[0]
    assert frame.pixels.shape == (480, 640, 3) and (frame.pixels == (77, 10, 200)).all()
    assert abs(frame.stamp_ns - before) < 1000 and frame.number == 1
    assert desk.camera.intrinsics.fy == 601.0 and desk.camera.status()[0]
    soft.send(5)
    desk.until(lambda: len(desk.frames) == 2, "a second frame")
    assert (frame.pixels == (77, 10, 200)).all(), "a frame handed over is not written again"
    desk.camera.close()


def test_lost_frames_are_counted_by_the_cameras_own_numbers(context, soft):
    desk = Desk(context)
    desk.camera.start()
    for number in (1, 2, 5, 6):
        soft.send(number=number)
        count = len(desk.frames)
        desk.until(lambda count=count: len(desk.frames) > count, "a frame")
    assert desk.camera.counters["dropped"] == 2 and desk.camera.counters["frames"] == 4
    desk.camera.close()


# Refusals ----------------------------------------------------------------------------------------------------------

def test_a_missing_serial_names_what_is_connected(context, soft):
    with pytest.raises(sdk.CameraError, match=r"serial 333.*not connected"):
        Desk(context, serial="333").camera.start()
    said = sdk.not_found(rs, context, rig().devices[0])
    assert "111 (Intel RealSense D435, USB 3.2" in said and "222 (Intel RealSense L515" in said


def test_no_camera_at_all(context):
    with pytest.raises(sdk.CameraError, match="no RealSense camera is connected"):
        Desk(context).camera.start()


def test_a_newer_sdk_says_that_it_does_not_know_the_l515(context, monkeypatch):
    monkeypatch.setattr(sdk, "sdk_version", lambda: "2.55.1.6486")
    assert "does not know the L515" in sdk.not_found(rs, context, rig().devices[0])
    monkeypatch.setattr(sdk, "sdk_version", lambda: "2.54.2.5684")
    assert "L515" not in sdk.not_found(rs, context, rig().devices[0])


def test_usb_2_is_refused_unless_allowed(context):
    slow = SoftCamera("111", usb="2.1").plug(context)
    with pytest.raises(sdk.CameraError, match=r"USB 2\.1.*USB 3"):
        Desk(context).camera.start()
    allowed = Desk(context, allow_usb2=True)
    allowed.camera.start()
    assert allowed.camera.state is CameraState.STREAMING and slow.serial == "111"
    allowed.camera.close()


def test_two_cameras_with_one_serial_are_refused(context, soft):
    twin = SoftCamera("111").plug(context)
    with pytest.raises(sdk.CameraError, match="2 connected cameras have this serial number"):
        Desk(context).camera.start()
    assert twin.serial == soft.serial


def test_a_stream_the_camera_does_not_have_is_refused_with_those_it_has(context, soft):
    with pytest.raises(sdk.CameraError, match=r"no colour stream of 1280x720@30; it offers 640x480@30"):
        Desk(context, width_px=1280, height_px=720).camera.start()


def test_a_camera_somebody_else_uses_is_named(context, soft, monkeypatch):
    def busy(*_arguments):
        raise RuntimeError("failed to set power state")
    monkeypatch.setattr(sdk, "colour_sensor", busy)
    with pytest.raises(sdk.CameraError, match="cannot be opened .*power state.*another program"):
        Desk(context).camera.start()


def test_without_the_sdk_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(sdk.CameraError, match=r"noetic/cameras\.txt"):
        sdk.load_sdk()


@pytest.mark.parametrize("changes, words", [
    ({"devices": []}, "devices is empty"), ({"devices": [FRONT, dict(FRONT, serial="2")]}, "name camera_front is given twice"),
    ({"devices": [FRONT, dict(FRONT, name="b")]}, "serial 111 is given twice"), ({"frame_timeout_s": 0.0}, "frame_timeout_s"),
    ({"devices": [dict(FRONT, fps=0)]}, "fps is 0"), ({"devices": [dict(FRONT, exposure_100us=-1.0)]}, "exposure_100us"),
    ({"devices": [dict(FRONT, name="/a/")]}, "without slashes"), ({"devices": [dict(FRONT, exposur=1)]}, "unknown key")])
def test_a_configuration_that_cannot_be_meant_is_refused(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        from_mapping(RealsenseConfig, dict({"devices": [FRONT]}, **changes), "rig")


@pytest.mark.parametrize("text, words", [("camera_back=1", "no device 'camera_back'"), ("camera_front", "not name=serial"),
                                         ("", "has no serial number")])
def test_serials_of_a_launch_file(text, words):
    config = rig(serial="")
    with pytest.raises(ConfigurationError, match=words):
        config.with_serials(text)
    assert config.with_serials(" camera_front = 42 ").devices[0].serial == "42"


# Exposure and white balance ----------------------------------------------------------------------------------------

def test_fixed_values_reach_the_camera_and_automatic_ones_are_switched_on(context, soft):
    desk = Desk(context, exposure_100us=200.0, white_balance_k=4000.0)
    desk.camera.start()
    assert soft.option("exposure") == 200.0 and soft.option("enable_auto_exposure") == 0.0
    assert soft.option("white_balance") == 4000.0 and soft.option("enable_auto_white_balance") == 0.0
    assert soft.option("global_time_enabled") == 1.0 and soft.option("auto_exposure_priority") == 0.0
    desk.camera.close()
    desk = Desk(context)
    desk.camera.start()
    assert soft.option("enable_auto_exposure") == 1.0 and soft.option("enable_auto_white_balance") == 1.0
    desk.camera.close()


@pytest.mark.parametrize("changes, words", [({"exposure_100us": 20000.0}, "takes 1 to 10000"),
                                            ({"white_balance_k": 100.0}, "takes 2800 to 6500")])
def test_a_value_the_camera_does_not_take_is_refused_with_its_range(context, soft, changes, words):
    with pytest.raises(sdk.CameraError, match=words):
        Desk(context, **changes).camera.start()


def test_a_setting_the_camera_does_not_have_is_refused(context):
    plain = SoftCamera("111", options=False).plug(context)
    with pytest.raises(sdk.CameraError, match="no setting for gain"):
        Desk(context, gain=10.0).camera.start()
    desk = Desk(context)
    desk.camera.start()
    assert plain.serial == "111"
    desk.camera.close()


def test_locking_keeps_what_the_automatic_had_chosen_and_survives_a_replug(context, soft):
    desk = Desk(context)
    desk.camera.start()
    soft.sensor.set_metadata(rs.frame_metadata_value.actual_exposure, 321)
    soft.send()
    desk.camera.request("lock")
    desk.until(lambda: desk.camera.locked, "the lock")
    assert desk.camera.locked == {"exposure_100us": 321.0, "gain": 64.0, "white_balance_k": 4600.0}
    assert soft.option("exposure") == 321.0 and soft.option("enable_auto_exposure") == 0.0
    desk.camera.close()
    soft.sensor.set_option(rs.option.enable_auto_exposure, 1.0)
    desk.until(lambda: desk.camera.state is CameraState.STREAMING, "the stream")
    assert soft.option("enable_auto_exposure") == 0.0 and soft.option("exposure") == 321.0
    desk.camera.close()


# Faults ------------------------------------------------------------------------------------------------------------

@pytest.mark.long
def test_a_camera_unplugged_and_plugged_in_again_streams_again(context):
    soft = SoftCamera("111").plug(context)
    desk = Desk(context)
    desk.camera.start()
    with Streaming(soft):
        desk.until(lambda: len(desk.frames) > 2, "frames")
    soft.unplug()
    gc.collect()
    desk.until(lambda: desk.camera.state is CameraState.SEARCHING, "the loss")
    fresh, message, _ = desk.camera.status()
    assert not fresh and "camera_front (serial 111) is not connected" in message
    back, count = SoftCamera("111").plug(context), len(desk.frames)
    desk.until(lambda: desk.camera.state is CameraState.STREAMING, "the stream")
    with Streaming(back):
        desk.until(lambda: len(desk.frames) > count + 2, "frames again")
    assert desk.camera.counters["reconnects"] == 1 and desk.camera.status()[0]
    desk.camera.close()


@pytest.mark.long
def test_a_camera_that_comes_back_on_usb_2_is_named_and_not_streamed(context):
    soft = SoftCamera("111").plug(context)
    desk = Desk(context)
    desk.camera.start()
    soft.unplug()
    gc.collect()
    desk.until(lambda: desk.camera.state is CameraState.SEARCHING, "the loss")
    slow = SoftCamera("111", usb="2.1").plug(context)
    desk.until(lambda: "USB 2.1" in desk.camera.message, "the refusal")
    assert desk.camera.state is CameraState.SEARCHING and not desk.camera.status()[0] and slow.serial == "111"


@pytest.mark.long
def test_a_silent_stream_is_restarted_then_the_camera_is_reset_and_found_again(context, soft, monkeypatch):
    """The software device cannot reset itself, so the test records the reset and takes the camera off the bus for a moment."""
    resets, real = [], sdk.find

    class Device:
        def __init__(self, info):
            self.info = info

        def hardware_reset(self):
            resets.append(time.monotonic())

        def query_sensors(self):
            return self.info.handle.query_sensors()

    def find(*arguments):
        if resets and time.monotonic() - resets[-1] < 0.5:
            return None
        info = real(*arguments)
        return info and sdk.DeviceInfo(info.serial, info.name, info.usb, info.firmware, Device(info))
    monkeypatch.setattr(sdk, "find", find)
    desk = Desk(context)
    desk.camera.start()
    desk.until(lambda: resets, "a reset")
    assert desk.camera.counters["restarts"] == 1 and desk.camera.counters["resets"] == 1
    desk.until(lambda: desk.camera.state is CameraState.STREAMING, "the stream after the reset")
    soft.send()
    desk.until(lambda: desk.frames, "a frame after the reset")
    desk.camera.request("reset")
    desk.until(lambda: len(resets) == 2, "the reset asked for")
    desk.camera.close()


def test_a_camera_that_cannot_be_reset_says_so(context, soft):
    desk = Desk(context)
    desk.camera.start()
    desk.until(lambda: desk.camera.counters["resets"], "a reset")
    assert "cannot be reset" in desk.camera.message and "unplug it" in desk.camera.message
    desk.camera.close()


def test_a_camera_that_is_ended_is_not_opened_again(context, soft):
    desk = Desk(context)
    desk.camera.start()
    desk.camera.ended.set()
    desk.camera.close()
    desk.camera.step()
    desk.camera._search()  # where the thread may be when the end comes
    assert desk.camera.state is CameraState.SEARCHING and desk.camera.message == "closed"


def test_a_label_names_camera_and_serial():
    assert DeviceConfig("camera_l", "9").label == "camera camera_l (serial 9)"
