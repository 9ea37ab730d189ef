"""The cameras of a rig: which topic is which view of the model, and how to check that it comes from the right camera."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from hybridvla_core.configuration import in_range
from hybridvla_core.errors import ConfigurationError, ObservationError

MAX_CAMERAS = 3
#: Longest age of an image and largest spread of one observation that can be configured, s.
MAX_AGE_S, MAX_SPREAD_S = 10.0, 1.0


@dataclass(frozen=True)
class CameraSource:
    """The source of one view of the model.

    Attributes:
        view: Name of the view in the checkpoint.
        image_topic: Topic of the images.
        camera_info_topic: Topic of the camera info; may be left out.
        width_px: Width that the images must have, so that another stream of the camera is not mistaken for that of the training
            data; None accepts any.
        height_px: Height that the images must have, for the same reason.
        serial: The camera's serial number, checked against what its driver says, so that two cameras cannot be swapped; None
            checks nothing.
        serial_parameter: ROS parameter in which the driver keeps the serial number.
        serial_diagnostics: Name of the driver's diagnostics, or the beginning of that name, with or without a namespace, whose
            hardware_id is the serial number.
    """

    view: str
    image_topic: str
    camera_info_topic: Optional[str] = None
    width_px: Optional[int] = None
    height_px: Optional[int] = None
    serial: Optional[str] = None
    serial_parameter: Optional[str] = None
    serial_diagnostics: Optional[str] = None

    def __post_init__(self) -> None:
        if not self.view:
            raise ConfigurationError("a camera has an empty view name; use the name the checkpoint gives it")
        if not self.image_topic:
            raise ConfigurationError(f"camera {self.view}: image_topic is empty; name the topic of its images")
        if self.serial is not None and not self.serial.strip():
            raise ConfigurationError(f"camera {self.view}: serial is empty; write the number on the camera, or leave "
                                     "the key out to check nothing")
        if self.serial and not (self.serial_parameter or self.serial_diagnostics):
            raise ConfigurationError(f"camera {self.view}: a serial number needs serial_parameter or "
                                     "serial_diagnostics, where its driver says which camera it has opened")

    @property
    def compressed(self) -> bool:
        """Whether the topic carries sensor_msgs/CompressedImage."""
        return self.image_topic.endswith("/compressed")

    def check_size(self, height: int, width: int) -> None:
        """Raises ObservationError for an image that does not have the configured size."""
        if (self.width_px or width, self.height_px or height) != (width, height):
            raise ObservationError(f"camera {self.view} sends images of {width}x{height} pixels, configured are "
                                   f"{self.width_px}x{self.height_px}; choose the stream of the training data")


@dataclass(frozen=True)
class CameraRig:
    """The cameras of one rig (`config/cameras/*.yaml`), in place of those that a policy's configuration names.

    Attributes:
        cameras: 1 to 3 different views.
        max_age_s: Largest age of an observation's oldest image, s; None keeps the policy's.
        max_spread_s: Largest time between its newest and oldest image, s; None keeps the policy's.
    """

    cameras: Tuple[CameraSource, ...]
    max_age_s: Optional[float] = None
    max_spread_s: Optional[float] = None

    def __post_init__(self) -> None:
        check_cameras(self.cameras)
        for key, high in (("max_age_s", MAX_AGE_S), ("max_spread_s", MAX_SPREAD_S)):
            value = getattr(self, key)
            if value is not None:
                in_range(key, value, 1e-3, high)


def check_cameras(cameras: Tuple[CameraSource, ...]) -> None:
    """Raises ConfigurationError unless the views, topics and serial numbers differ, and there are 1 to 3 of them."""
    views = [camera.view for camera in cameras]
    if not 1 <= len(views) <= MAX_CAMERAS or len(set(views)) != len(views):
        raise ConfigurationError(f"cameras must be 1 to {MAX_CAMERAS} different views, found {views}")
    for what in ("image_topic", "serial"):
        values = [getattr(camera, what) for camera in cameras if getattr(camera, what)]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ConfigurationError(f"cameras: two views have the {what} {twice[0]}; every view needs a camera of its own")
