"""Is the right camera behind each topic? Compares the serial numbers that the drivers state with the configured ones.

Drivers name topics after a launch argument, so two exchanged serial numbers exchange two views, and nothing else shows
it. realsense2_camera gives the number in a parameter and as the hardware_id of its diagnostics, realsense_camera_node only in
its diagnostics, astra_camera and OrbbecSDK_ROS1 in a parameter.
"""
from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Callable, Dict, Sequence

from hybridvla_core.policy.cameras import CameraSource

if TYPE_CHECKING:
    from diagnostic_msgs.msg import DiagnosticArray

#: How often a parameter is read again while its number does not fit, and while it does, s.
RETRY_S, RECHECK_S = 1.0, 10.0


class CameraIdentity:
    """`problem()` returns a sentence while a camera with a configured serial number is another camera or not known.

    get_parameter: name -> value or None (rospy.get_param behind the node). Only `poll` asks the master, never
    `problem`, which the inference loop calls.
    """

    def __init__(self, cameras: Sequence[CameraSource], get_parameter: Callable[[str], object],
                 monotonic: Callable[[], float] = time.monotonic) -> None:
        self._cameras = [camera for camera in cameras if camera.serial]
        self._get, self._monotonic = get_parameter, monotonic
        self._said: Dict[str, str] = {}
        self._asked: Dict[str, float] = {}
        self._ranks: Dict[str, int] = {}        # rank of the best diagnostics entry heard, by view
        self._lock = threading.Lock()

    @property
    def wants_diagnostics(self) -> bool:
        return any(camera.serial_diagnostics for camera in self._cameras)

    def poll(self) -> None:
        """Reads the parameters that are due."""
        for camera in self._cameras:
            if not camera.serial_parameter:
                continue
            now = self._monotonic()
            wait = RECHECK_S if self._fits(camera) else RETRY_S
            if now - self._asked.get(camera.view, -wait) < wait:
                continue
            self._asked[camera.view] = now
            value = self._get(camera.serial_parameter)
            if value not in (None, ""):
                self._hear(camera, str(value))

    def forget(self, view: str) -> None:
        """Requires the number to be stated again: the driver may have been restarted with another camera."""
        with self._lock:
            self._said.pop(view, None)
        self._asked.pop(view, None)

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        """Takes a diagnostic_msgs/DiagnosticArray."""
        for status in message.status:
            for camera in self._cameras:
                rank = match(status.name, camera.serial_diagnostics or "", camera.image_topic) if status.hardware_id else 0
                if rank and rank >= self._ranks.get(camera.view, 0):
                    self._ranks[camera.view] = rank
                    self._hear(camera, status.hardware_id)

    def problem(self) -> str:
        """Names the first camera that does not fit, or returns an empty string."""
        with self._lock:
            said = dict(self._said)
        for camera in self._cameras:
            serial = said.get(camera.view)
            if serial is None:
                where = camera.serial_parameter or f"diagnostics {camera.serial_diagnostics}"
                return (f"camera {camera.view}: its driver does not say its serial number ({where}), expected is "
                        f"{camera.serial}; is the driver running?")
            if not same_serial(serial, camera.serial or ""):
                owner = next((other.view for other in self._cameras if same_serial(serial, other.serial or "")), None)
                whose = f", which belongs to camera {owner}: the two are exchanged" if owner else ""
                return (f"camera {camera.view}: its driver has opened the camera with serial number {serial}{whose}; "
                        f"expected is {camera.serial}. Correct the driver's launch file or the camera configuration")
        return ""

    def _hear(self, camera: CameraSource, serial: str) -> None:
        with self._lock:
            self._said[camera.view] = serial

    def _fits(self, camera: CameraSource) -> bool:
        with self._lock:
            return same_serial(self._said.get(camera.view, ""), camera.serial or "")


def match(name: str, wanted: str, image_topic: str) -> int:
    """Judges how well a diagnostics entry matches the wanted one.

    `wanted` is a whole name, a name without its namespace, or the beginning of one. A part after a colon must match whole:
    `node: camera` is not the beginning of `node: camera_front`; `camera/manager` is that of `camera/manager_color: rate`.

    Args:
        name: Name of the entry.
        wanted: Name as configured.
        image_topic: Topic of the camera; of two namespaces, the topic's own is meant.

    Returns:
        0 for another entry, up to 4 for the whole name.
    """
    name, wanted = name.strip("/ "), wanted.strip("/ ")
    if not wanted:
        return 0
    rest = "[:/ ].*" if ":" in wanted else "[:/ _].*"
    found = re.fullmatch(rf"(?:(?P<space>[^: ]+)/)?{re.escape(wanted)}(?P<rest>{rest})?", name)
    if found is None:
        return 0
    space = found.group("space")
    if space is None:
        return 4 if found.group("rest") is None else 3
    return 2 if image_topic.strip("/").startswith(f"{space}/") else 1


def same_serial(first: str, second: str) -> bool:
    """Compares but for what parameters do to numbers: leading zeros lost, or an underscore put in front to keep them."""
    return _plain(first) == _plain(second)


def _plain(serial: str) -> str:
    return serial.strip().lstrip("_").lstrip("0").lower()
