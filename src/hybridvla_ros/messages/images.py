"""Converts image messages to numpy and back, without cv_bridge: every encoding and format that transforms/encodings.py and
transforms/pictures.py know."""
from __future__ import annotations

from typing import Union

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from hybridvla_core.transforms.encodings import DEEP, ENCODINGS, raw_to_rgb
from hybridvla_core.transforms.pictures import decode, stored_as_rgb

__all__ = ["DEEP", "ENCODINGS", "from_rgb", "stored_as_rgb", "to_jpeg", "to_rgb"]


def to_rgb(message: Union[Image, CompressedImage], name: str) -> np.ndarray:
    """Decodes a raw or compressed image.

    Args:
        message: Image from the camera.
        name: Name of the camera, for error messages.

    Returns:
        (height, width, 3) uint8 RGB. It may share the message's memory and be read-only.

    Raises:
        ObservationError: The image cannot be decoded; the message names the camera.
    """
    if hasattr(message, "format"):
        return decode(message.data, f"camera {name}", message.format)
    return raw_to_rgb(message.data, message.height, message.width, message.step, message.encoding, name,
                      bool(message.is_bigendian))


def from_rgb(pixels: np.ndarray, stamp, frame: str) -> Image:
    """Makes an `rgb8` message of (height, width, 3) uint8."""
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding="rgb8", is_bigendian=0,
                    step=pixels.shape[1] * 3, data=np.ascontiguousarray(pixels).tobytes())
    message.header.stamp, message.header.frame_id = stamp, frame
    return message


def to_jpeg(pixels: np.ndarray, stamp, frame: str, quality: int = 85) -> CompressedImage:
    """Makes a JPEG message of (height, width, 3) uint8 RGB."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    message = CompressedImage(format="rgb8; jpeg compressed bgr8", data=encoded.tobytes())
    message.header.stamp, message.header.frame_id = stamp, frame
    return message
