"""Cameras of a simulated scene as image topics: raw, JPEG where somebody listens, and camera_info."""
from __future__ import annotations

import time
from typing import ContextManager, Set

import rospy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hybridvla_ros.messages.images import from_rgb, to_jpeg
from hybridvla_ros.runtime.node_support import publish_unless_ending
from hybridvla_ros.runtime.workers import start_worker
from hybridvla_sim.fr3.rig import CAMERAS, Rig


class SceneCameras:
    """Renders copies of a rig's state, so that the physics need not wait. `lock` guards the rig's state."""

    def __init__(self, rig: Rig, lock: ContextManager[bool], image_hz: float) -> None:
        self._rig, self._picture, self._lock, self._period = rig, Rig(rig.task), lock, 1.0 / image_hz
        self.dead: Set[str] = set()  # views that publish nothing, for tests
        self._images = {name: rospy.Publisher(f"/camera_{name}/color/image_raw", Image, queue_size=1) for name in CAMERAS}
        self._jpegs = {name: rospy.Publisher(f"/camera_{name}/color/image_raw/compressed", CompressedImage, queue_size=1)
                       for name in CAMERAS}
        self._infos = {name: rospy.Publisher(f"/camera_{name}/color/camera_info", CameraInfo, queue_size=1)
                       for name in CAMERAS}

    def start(self) -> None:
        """Renders in its own thread."""
        start_worker("the cameras", self.spin)

    def spin(self) -> None:
        """Renders until shutdown; OpenGL contexts belong to the thread that made them."""
        following = time.monotonic()
        while not rospy.is_shutdown():
            with self._lock:
                stamp = rospy.Time.now()
                self._picture.copy_state(self._rig)
            for name in CAMERAS:
                if name not in self.dead:
                    self._publish(name, stamp)
            following = max(following + self._period, time.monotonic())
            time.sleep(max(0.0, following - time.monotonic()))

    def _publish(self, name: str, stamp: rospy.Time) -> None:
        pixels, frame = self._picture.render(name), f"camera_{name}_optical_frame"
        publish_unless_ending(self._images[name], from_rgb(pixels, stamp, frame))
        if self._jpegs[name].get_num_connections():
            publish_unless_ending(self._jpegs[name], to_jpeg(pixels, stamp, frame))
        info = self._rig.camera_info(name)
        message = CameraInfo(width=info["width"], height=info["height"], distortion_model="plumb_bob", D=[0.0] * 5)
        message.K = [info["fx"], 0.0, info["cx"], 0.0, info["fy"], info["cy"], 0.0, 0.0, 1.0]
        message.R = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        message.P = [info["fx"], 0.0, info["cx"], 0.0, 0.0, info["fy"], info["cy"], 0.0, 0.0, 0.0, 1.0, 0.0]
        message.header.stamp, message.header.frame_id = stamp, frame
        publish_unless_ending(self._infos[name], message)
