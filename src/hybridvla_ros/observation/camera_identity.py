"""Is the right camera behind each topic? Serial numbers as the drivers state them, against the configuration's.

Drivers name topics after a launch argument, so two exchanged serial numbers exchange two views and nothing else shows
it. realsense2_camera and realsense_camera_node give the number in a parameter and as the hardware_id of their
diagnostics, astra_camera and OrbbecSDK_ROS1 in a parameter.
"""
from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Callable, Dict, Sequence

from hybridvla_core.policy.cameras import CameraSource

if TYPE_CHECKING:
    from diagnostic_msgs.msg import DiagnosticArray

#: How often a parameter is read again while its number does not fit, and while it does, s.
RETRY_S, RECHECK_S = 1.0, 10.0


class CameraIdentity:
    """`problem()` is a sentence while a camera with a configured serial number is another one or not known.

    get_parameter: name -> value or None (rospy.get_param behind the node). The master is asked from `poll`, never from
    `problem`, which the inference loop calls.
    """

    def __init__(self, cameras: Sequence[CameraSource], get_parameter: Callable[[str], object],
                 monotonic: Callable[[], float] = time.monotonic) -> None:
        self._cameras = [camera for camera in cameras if camera.serial]
        self._get, self._monotonic = get_parameter, monotonic
        self._said: Dict[str, str] = {}
        self._asked: Dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def wants_diagnostics(self) -> bool:
        return any(camera.serial_diagnostics for camera in self._cameras)

    def poll(self) -> None:
        """Read the parameters that are due."""
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

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        """A diagnostic_msgs/DiagnosticArray."""
        for status in message.status:
            for camera in self._cameras:
                if camera.serial_diagnostics and status.hardware_id and status.name.lstrip("/").startswith(
                        camera.serial_diagnostics.lstrip("/")):
                    self._hear(camera, status.hardware_id)

    def problem(self) -> str:
        """The first camera that does not fit, or an empty string."""
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


def same_serial(first: str, second: str) -> bool:
    """Equal but for what parameters do to numbers: leading zeros lost, or an underscore put in front to keep them."""
    return _plain(first) == _plain(second)


def _plain(serial: str) -> str:
    return serial.strip().lstrip("_").lstrip("0").lower()
