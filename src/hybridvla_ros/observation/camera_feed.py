"""The cameras of the policy node: subscriptions, sync, identity, and what diagnostics say about them."""
from __future__ import annotations

import time
from typing import Callable, Dict, Optional, Sequence, Tuple, Union

import numpy as np
import rospy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image

from hybridvla_core.errors import ObservationError
from hybridvla_core.moved import old_names
from hybridvla_core.policy.cameras import CameraSource
from hybridvla_core.policy.interface import ReadyImage
from hybridvla_ros.messages.images import to_rgb
from hybridvla_ros.messages.sources import OneSource, source_of
from hybridvla_ros.observation.camera_health import AHEAD_S
from hybridvla_ros.observation.camera_identity import CameraIdentity
from hybridvla_ros.observation.camera_sync import CameraSync, ImageSet
from hybridvla_ros.runtime.node_support import Diagnostics
from hybridvla_ros.runtime.workers import Rate

#: rospy reads at most this much of a socket at once; with the default a queue of one holds old images (ros_comm 536).
BUFFER_BYTES = 2 ** 24
LOOK_S = 0.2
#: A camera that was silent for longer than this may be another one: its driver was restarted, s.
RESTARTED_S = 1.0

#: An image message, and what the policy gets from it: (h, w, 3) uint8 RGB, or an image that it has prepared.
ImageMessage = Union[Image, CompressedImage]
Pixels = Union[np.ndarray, ReadyImage]
Convert = Callable[[ImageMessage, str], Pixels]


class CameraImage:
    """One image message. `early`: whether the thread that receives the message converts it at once; errors are
    reported when it is used."""

    def __init__(self, message: ImageMessage, view: str, convert: Convert = to_rgb, early: bool = False) -> None:
        self._message, self._convert = message, convert
        self._made: Optional[Pixels] = None
        self._error: Optional[ObservationError] = None
        if early:
            try:
                self._made = convert(message, view)
            except ObservationError as error:
                self._error = error

    def image(self, view: str) -> Pixels:
        """Returns (h, w, 3) uint8 RGB, or what `convert` made of the message; raises ObservationError naming the camera."""
        if self._error is not None:
            raise self._error
        return self._convert(self._message, view) if self._made is None else self._made


class CameraFeed:
    """Subscribes on construction. `latest` gives the frames that belong together, or says which camera is missing.

    convert: (message, view) -> what the policy needs of it; early: convert as frames arrive, not when they are used.
    """

    def __init__(self, cameras: Sequence[CameraSource], max_spread: float, max_age: float,
                 convert: Convert = to_rgb, early: bool = False) -> None:
        self._convert, self._early = convert, early
        self.sync: CameraSync[CameraImage] = CameraSync([camera.view for camera in cameras], max_spread, max_age)
        self._identity = CameraIdentity(cameras, lambda name: rospy.get_param(name, None))
        self._before: Dict[str, Tuple[int, int]] = {}
        self._sources = {camera.view: OneSource(f"images of {camera.image_topic} (view {camera.view})") for camera in cameras}
        for camera in cameras:
            rospy.Subscriber(camera.image_topic, CompressedImage if camera.compressed else Image, self._on_image,
                             callback_args=camera.view, queue_size=1, buff_size=BUFFER_BYTES, tcp_nodelay=True)
        if self._identity.wants_diagnostics:
            rospy.Subscriber("/diagnostics", DiagnosticArray, self._identity.on_diagnostics, queue_size=20)
        self._diagnostics = Diagnostics("cameras", self.report)
        self._looks = Rate(LOOK_S, self._watch, "reading the cameras' serial numbers")

    def _on_image(self, message: ImageMessage, view: str) -> None:
        source, now = source_of(message), time.monotonic()
        anew = self._sources[view].begins_anew(source, now, RESTARTED_S)
        if not self._sources[view].takes(source, now):
            return          # frames of two cameras in turn would look like one healthy camera
        if anew:
            self._identity.forget(view)
        received = rospy.Time.now().to_nsec()
        frame = CameraImage(message, view, self._convert, self._early)
        self.sync.add(view, message.header.stamp.to_nsec(), frame, message.header.seq, received)

    def _watch(self) -> None:
        try:
            self._identity.poll()
        except (OSError, rospy.ROSException) as error:
            rospy.logwarn_throttle(10.0, "the serial numbers of the cameras cannot be read: %s", error)

    def latest(self) -> Tuple[Optional[ImageSet[CameraImage]], str]:
        """Returns the newest usable set, or None and a sentence naming the camera and what is wrong."""
        found, problem = self.sync.latest(rospy.Time.now().to_sec())
        # Report silence first: a driver that is gone does not state its serial number either.
        now = time.monotonic()
        fought = next(filter(None, (source.problem(now) for source in self._sources.values())), "")
        problem = fought or problem or self._identity.problem()
        return (None, problem) if problem else (found, "")

    def report(self) -> Tuple[int, str, Dict[str, object]]:
        """Returns diagnostics: ERROR while no set can be made, WARN when frames were lost since the last report."""
        found, problem = self.latest()
        values: Dict[str, object] = {"spread_s": round(found.spread, 4)} if found else {}
        warnings = []
        for view, health in self.sync.health.items():
            values.update({f"{view} {key}": value for key, value in health.values().items()})
            dropped, lost = self._before.get(view, (health.dropped, health.lost))
            if health.dropped > dropped or health.lost > lost:
                warnings.append(f"camera {view}: {health.dropped - dropped} frames dropped by the driver, "
                                f"{health.lost - lost} messages lost on the way")
            if health.lag_s < -AHEAD_S:
                warnings.append(f"camera {view}: its stamps are {-health.lag_s:.3f} s ahead of this computer's clock")
            self._before[view] = (health.dropped, health.lost)
        if problem:
            return DiagnosticStatus.ERROR, problem, values
        return (DiagnosticStatus.WARN, "; ".join(warnings), values) if warnings else (
            DiagnosticStatus.OK, "all views arrive", values)


__getattr__ = old_names(__name__)
