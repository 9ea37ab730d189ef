"""Everything asked of pyrealsense2: devices by serial number, the colour sensor, its options. Imported only when used.

Checked against pyrealsense2 2.54.2.5684, the last version that supports the L515. Every refusal is one sentence.
"""
from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Dict, List, Optional, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.realsense.config import DeviceConfig

if TYPE_CHECKING:
    import pyrealsense2

INSTALL = "pip install --no-deps -r requirements/noetic/cameras.txt"


class CameraError(HybridVLAError):
    """A camera cannot be used as configured."""


@dataclass(frozen=True)
class DeviceInfo:
    """What a connected camera says about itself; empty where it says nothing.

    Attributes:
        serial: Serial number.
        name: Name of the model.
        usb: Version of the USB connection.
        firmware: Version of the firmware.
        handle: The SDK's handle of the device.
    """

    serial: str
    name: str
    usb: str
    firmware: str
    handle: pyrealsense2.device

    @property
    def text(self) -> str:
        usb = f", USB {self.usb}" if self.usb else ""
        return f"{self.serial} ({self.name or 'unknown model'}{usb}{', firmware ' + self.firmware if self.firmware else ''})"


def load_sdk() -> ModuleType:
    """Returns the module pyrealsense2. Raises CameraError saying how to get it."""
    try:
        import pyrealsense2
    except ImportError as error:
        raise CameraError(f"pyrealsense2 cannot be imported ({error}); install it with `{INSTALL}` and libusb-1.0-0") from error
    return pyrealsense2


def connected(rs: ModuleType, context: pyrealsense2.context) -> List[DeviceInfo]:
    """Returns all cameras on the bus, except one that vanishes while it is queried."""
    found = []
    try:
        handles = list(context.query_devices())
    except RuntimeError:
        return []
    for handle in handles:
        try:
            values = {key: handle.get_info(getattr(rs.camera_info, info)) if handle.supports(getattr(rs.camera_info, info))
                      else "" for key, info in (("serial", "serial_number"), ("name", "name"),
                                                ("usb", "usb_type_descriptor"), ("firmware", "firmware_version"))}
        except RuntimeError:
            continue
        # The SDK may put a line of its own before the name.
        values["name"] = values["name"].strip().splitlines()[-1] if values["name"].strip() else ""
        found.append(DeviceInfo(handle=handle, **values))
    return found


def find(rs: ModuleType, context: pyrealsense2.context, config: DeviceConfig) -> Optional[DeviceInfo]:
    """Finds the camera with the configured serial number.

    Args:
        rs: The SDK.
        context: The SDK's list of devices.
        config: Configuration of the wanted camera.

    Returns:
        The camera; None while it is not connected.

    Raises:
        CameraError: Two cameras have that number, or the camera is on USB 2.
    """
    matching = [device for device in connected(rs, context) if device.serial == config.serial]
    if not matching:
        return None
    if len(matching) > 1:
        raise CameraError(f"{config.label}: {len(matching)} connected cameras have this serial number; unplug the wrong one")
    if matching[0].usb.startswith("2") and not config.allow_usb2:
        raise CameraError(f"{config.label}: connected by USB {matching[0].usb}, which loses frames; use a USB 3 port and "
                          "cable, or set allow_usb2")
    return matching[0]


def sdk_version() -> str:
    """Returns the version of the installed pyrealsense2; empty if it is not an installed package."""
    from importlib import metadata

    try:
        return metadata.version("pyrealsense2")
    except metadata.PackageNotFoundError:
        return ""


def not_found(rs: ModuleType, context: pyrealsense2.context, config: DeviceConfig) -> str:
    """Returns the sentence about a camera that is not connected: which cameras are, and the usual reason."""
    others = [device.text for device in connected(rs, context)]
    seen = f"connected are {'; '.join(others)}" if others else "no RealSense camera is connected"
    version = sdk_version()
    l515 = "" if not version or _release(version) < (2, 55) else (
        f"; pyrealsense2 {version} does not know the L515, 2.54.2 is the last that does")
    return f"{config.label} is not connected: {seen}{l515}. Check cable, port and serial number"


def colour_sensor(rs: ModuleType, device: DeviceInfo, config: DeviceConfig
                  ) -> Tuple[pyrealsense2.sensor, pyrealsense2.video_stream_profile]:
    """Returns (sensor, profile) of the configured colour stream in rgb8. Raises CameraError listing what is available."""
    modes = set()
    for sensor in device.handle.query_sensors():
        for profile in sensor.get_stream_profiles():
            if profile.stream_type() != rs.stream.color or profile.format() != rs.format.rgb8:
                continue
            video = profile.as_video_stream_profile()
            mode = (video.width(), video.height(), video.fps())
            if mode == (config.width_px, config.height_px, config.fps):
                return sensor, video
            modes.add(mode)
    offered = ", ".join("{}x{}@{}".format(*mode) for mode in sorted(modes)) or "no colour stream"
    raise CameraError(f"{config.label}: no colour stream of {config.width_px}x{config.height_px}@{config.fps}; it offers "
                      f"{offered}" + ("" if modes or not device.usb.startswith("2") else " over USB 2"))


def configure(rs: ModuleType, device: DeviceInfo, sensor: pyrealsense2.sensor, config: DeviceConfig) -> None:
    """Sets time base, exposure, gain and white balance. Raises CameraError for what the camera does not accept."""
    for each in device.handle.query_sensors():
        # Off by default on the L515, whose stamps then drift away (realsense-ros 1902, librealsense 12970).
        if each.supports(rs.option.global_time_enabled):
            each.set_option(rs.option.global_time_enabled, 1.0)
    if sensor.supports(rs.option.auto_exposure_priority):
        # Otherwise the camera lowers its rate in the dark.
        sensor.set_option(rs.option.auto_exposure_priority, 0.0)
    fixed = config.exposure_100us is not None or config.gain is not None
    _choose(rs, sensor, config, "enable_auto_exposure", not fixed)
    _set(rs, sensor, config, "exposure", "exposure_100us", config.exposure_100us)
    _set(rs, sensor, config, "gain", "gain", config.gain)
    _choose(rs, sensor, config, "enable_auto_white_balance", config.white_balance_k is None)
    _set(rs, sensor, config, "white_balance", "white_balance_k", config.white_balance_k)


def lock(rs: ModuleType, sensor: pyrealsense2.sensor, frame: pyrealsense2.frame) -> Dict[str, float]:
    """Freezes the values that automatic exposure and white balance have chosen.

    The frame's metadata says what was used; the option alone may still hold the last fixed value.

    Args:
        rs: The SDK.
        sensor: The colour sensor.
        frame: Its last frame.

    Returns:
        The values by configuration key, in that key's unit.
    """
    values: Dict[str, float] = {}
    for automatic, option, metadata, key in (
            ("enable_auto_exposure", "exposure", "actual_exposure", "exposure_100us"),
            ("enable_auto_exposure", "gain", "gain_level", "gain"),
            ("enable_auto_white_balance", "white_balance", "white_balance", "white_balance_k")):
        option_id, metadata_id = getattr(rs.option, option), getattr(rs.frame_metadata_value, metadata)
        if not sensor.supports(option_id):
            continue
        value = float(sensor.get_option(option_id))
        if frame.supports_frame_metadata(metadata_id):
            # A colour sensor's metadata holds the same control as the option, in its unit (librealsense ds5-color.cpp).
            allowed = sensor.get_option_range(option_id)
            value = min(max(float(frame.get_frame_metadata(metadata_id)), allowed.min), allowed.max)
        if sensor.supports(getattr(rs.option, automatic)):
            sensor.set_option(getattr(rs.option, automatic), 0.0)
        sensor.set_option(option_id, value)
        values[key] = value
    return values


def restore(rs: ModuleType, sensor: pyrealsense2.sensor, values: Dict[str, float]) -> None:
    """Restores what `lock` returned, after a camera was reset or plugged in again."""
    for key, option, automatic in (("exposure_100us", "exposure", "enable_auto_exposure"),
                                   ("gain", "gain", "enable_auto_exposure"),
                                   ("white_balance_k", "white_balance", "enable_auto_white_balance")):
        if key in values:
            if sensor.supports(getattr(rs.option, automatic)):
                sensor.set_option(getattr(rs.option, automatic), 0.0)
            sensor.set_option(getattr(rs.option, option), values[key])


def _choose(rs: ModuleType, sensor: pyrealsense2.sensor, config: DeviceConfig, option: str, on: bool) -> None:
    option_id = getattr(rs.option, option)
    if sensor.supports(option_id):
        try:
            sensor.set_option(option_id, float(on))
        except RuntimeError as error:
            raise CameraError(f"{config.label}: {option} cannot be set ({error})") from error


def _set(rs: ModuleType, sensor: pyrealsense2.sensor, config: DeviceConfig, option: str, key: str,
         value: Optional[float]) -> None:
    if value is None:
        return
    option_id = getattr(rs.option, option)
    if not sensor.supports(option_id):
        raise CameraError(f"{config.label}: it has no setting for {key}; leave the key out")
    allowed = sensor.get_option_range(option_id)
    if not allowed.min <= value <= allowed.max:
        raise CameraError(f"{config.label}: {key} is {value:g}; this camera takes {allowed.min:g} to {allowed.max:g}")
    try:
        sensor.set_option(option_id, float(value))
        now = float(sensor.get_option(option_id))
    except RuntimeError as error:
        raise CameraError(f"{config.label}: {key} cannot be set ({error})") from error
    if abs(now - value) > max(allowed.step, 1e-6):
        raise CameraError(f"{config.label}: {key} was set to {value:g}, but the camera keeps {now:g}")


def _release(version: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
