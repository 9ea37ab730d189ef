"""RealSense cameras without hardware: the SDK's own software devices, plugged and unplugged, with faults on request."""
from __future__ import annotations

import threading
import time

import numpy as np
import pyrealsense2 as rs


class SoftCamera:
    """A software device with one colour stream. `plug(context)` puts it on a bus; `unplug()` takes it off."""

    def __init__(self, serial, name="Intel RealSense D435", usb="3.2", options=True, mode=(640, 480, 30)):
        self.serial, self.sent, self.mode = serial, 0, mode
        self.device = rs.software_device()
        for info, value in ((rs.camera_info.serial_number, serial), (rs.camera_info.name, name),
                            (rs.camera_info.usb_type_descriptor, usb), (rs.camera_info.firmware_version, "05.15.01.00")):
            self.device.register_info(info, value)
        self.sensor = self.device.add_sensor("RGB Camera")
        width, height, fps = mode
        intrinsics = rs.intrinsics()
        intrinsics.width, intrinsics.height, intrinsics.model = width, height, rs.distortion.brown_conrady
        intrinsics.fx, intrinsics.fy, intrinsics.ppx, intrinsics.ppy = 600.0, 601.0, 320.5, 240.5
        intrinsics.coeffs = [0.1, -0.2, 0.001, 0.002, 0.05]
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid, stream.fmt, stream.bpp = rs.stream.color, 0, 0, rs.format.rgb8, 3
        stream.width, stream.height, stream.fps, stream.intrinsics = width, height, fps, intrinsics
        self.profile = self.sensor.add_video_stream(stream)
        if options:
            for option, low, high, default in (("exposure", 1, 10000, 166), ("gain", 0, 128, 64),
                                               ("white_balance", 2800, 6500, 4600), ("enable_auto_exposure", 0, 1, 1),
                                               ("enable_auto_white_balance", 0, 1, 1), ("auto_exposure_priority", 0, 1, 1),
                                               ("global_time_enabled", 0, 1, 0)):
                bounds = rs.option_range()
                bounds.min, bounds.max, bounds.step, bounds.default = low, high, 1, default
                self.sensor.add_option(getattr(rs.option, option), bounds, True)
                self.sensor.set_option(getattr(rs.option, option), default)

    def plug(self, context):
        self.device.add_to(context)
        return self

    def unplug(self):
        """Unplug: the SDK takes a software device off the bus once nobody holds it any more."""
        self.device = self.sensor = self.profile = None

    def send(self, value=0, number=None, domain="global_time", stamp_ms=None):
        """Send one frame of a uniform colour (value, 10, 200), if somebody streams."""
        self.sent = self.sent + 1 if number is None else number
        frame = rs.software_video_frame()
        pixels = np.empty((self.mode[1], self.mode[0], 3), np.uint8)
        pixels[:] = (value % 256, 10, 200)
        frame.pixels, frame.stride, frame.bpp, frame.frame_number = pixels, self.mode[0] * 3, 3, self.sent
        frame.timestamp = time.time() * 1e3 if stamp_ms is None else stamp_ms
        frame.domain, frame.profile = getattr(rs.timestamp_domain, domain), self.profile.as_video_stream_profile()
        self.sensor.on_video_frame(frame)

    def option(self, name):
        return self.sensor.get_option(getattr(rs.option, name))


class Streaming:
    """A context manager that sends frames of a camera in the background at about 30 Hz."""

    def __init__(self, camera):
        self._camera, self._end = camera, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._end.wait(0.033):
            self._camera.send(self._camera.sent)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exception):
        self._end.set()
        self._thread.join(10)
