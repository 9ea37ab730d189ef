"""Configuration of `realsense_camera_node`: which devices, which stream, what is locked. No ROS, no SDK."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, Optional, Tuple

from hybridvla_core.errors import ConfigurationError


@dataclass(frozen=True)
class DeviceConfig:
    """One camera. Fixed exposure, gain and white balance make the same scene look the same tomorrow.

    Attributes:
        name: Namespace of its topics.
        serial: Serial number as printed on the camera and as `realsense_camera_node --list` shows it.
        width_px: Width of the colour stream, px.
        height_px: Height of the colour stream, px.
        fps: Rate of the colour stream, Hz.
        exposure_100us: Exposure in 100 us (the unit of UVC colour sensors); None leaves it to the camera.
        gain: Gain of the sensor; None leaves it to the camera.
        white_balance_k: White balance in kelvin; None leaves it to the camera.
        allow_usb2: Whether to stream over USB 2 all the same.
        jpeg_quality: Quality of the `compressed` topic, which is encoded only while somebody listens.
    """

    name: str
    serial: str
    width_px: int = 640
    height_px: int = 480
    fps: int = 30
    exposure_100us: Optional[float] = None
    gain: Optional[float] = None
    white_balance_k: Optional[float] = None
    allow_usb2: bool = False
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        if not self.name or self.name.strip("/") != self.name or " " in self.name:
            raise ConfigurationError(f"devices: name is {self.name!r}; use a ROS name without slashes at its ends")
        for key, low, high in (("width_px", 64, 4096), ("height_px", 64, 4096), ("fps", 1, 300), ("jpeg_quality", 1, 100)):
            if not low <= getattr(self, key) <= high:
                raise ConfigurationError(f"devices: {self.name}: {key} is {getattr(self, key)}; use {low} to {high}")
        for key in ("exposure_100us", "gain", "white_balance_k"):
            value = getattr(self, key)
            if value is not None and not 0.0 <= value < 1e6:
                raise ConfigurationError(f"devices: {self.name}: {key} is {value}; use a positive number or leave it out")

    @property
    def label(self) -> str:
        return f"camera {self.name} (serial {self.serial})"


@dataclass(frozen=True)
class RealsenseConfig:
    """The cameras of a computer.

    Attributes:
        devices: One or more.
        frame_timeout_s: Silence after which a stream is restarted, s; a second silence in a row resets the camera.
        reset_interval_s: Time in which there is at most one reset, s.
        reset_timeout_s: How long a reset camera may take to come back before it counts as unplugged, s.
        start_timeout_s: How long cameras may take to be found at start, s.
        max_lag_s: A stamp older than this at arrival, or in the future, is not believed; the arrival is used (clock.py), s.
    """

    devices: Tuple[DeviceConfig, ...]
    frame_timeout_s: float = 1.0
    reset_interval_s: float = 15.0
    reset_timeout_s: float = 12.0
    start_timeout_s: float = 10.0
    max_lag_s: float = 0.3

    def __post_init__(self) -> None:
        for key, high in (("frame_timeout_s", 30.0), ("reset_interval_s", 600.0), ("reset_timeout_s", 120.0),
                          ("start_timeout_s", 120.0), ("max_lag_s", 2.0)):
            if not 0.05 <= getattr(self, key) <= high:
                raise ConfigurationError(f"{key} is {getattr(self, key)}; use a value from 0.05 to {high:g}")
        if not self.devices:
            raise ConfigurationError("devices is empty; name at least one camera")
        for what in ("name", "serial"):
            values = [getattr(device, what) for device in self.devices if getattr(device, what)]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ConfigurationError(f"devices: the {what} {twice[0]} is given twice; every camera has its own")

    def with_serials(self, text: str) -> RealsenseConfig:
        """Inserts serial numbers as a launch file gives them.

        Args:
            text: `name=serial,name=serial`.

        Returns:
            The same configuration with these serial numbers.

        Raises:
            ConfigurationError: A name is unknown, or a device still has no serial number.
        """
        given: Dict[str, str] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, serial = part.partition("=")
            if not equals or not serial.strip():
                raise ConfigurationError(f"serials: {part!r} is not name=serial")
            given[name.strip()] = serial.strip()
        unknown = sorted(set(given) - {device.name for device in self.devices})
        if unknown:
            raise ConfigurationError(f"serials: there is no device {unknown[0]!r}; the configuration has "
                                     f"{', '.join(device.name for device in self.devices)}")
        config = replace(self, devices=tuple(replace(device, serial=given.get(device.name, device.serial).strip())
                                             for device in self.devices))
        for device in config.devices:
            if not device.serial:
                raise ConfigurationError(f"camera {device.name} has no serial number; `rosrun hybridvla "
                                         "realsense_camera_node --list` shows those connected")
        return config
