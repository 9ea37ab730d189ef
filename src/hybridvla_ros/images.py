"""Image messages to numpy and back, without cv_bridge. The encoding is the message's own, never assumed."""
from __future__ import annotations

from typing import Union

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from hybridvla_core.errors import ObservationError

#: encoding -> channels and the order that gives RGB.
ENCODINGS = {"rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)), "bgra8": (4, (2, 1, 0)),
             "mono8": (1, (0, 0, 0))}


def to_rgb(message: Union[Image, CompressedImage], name: str) -> np.ndarray:
    """(height, width, 3) uint8 RGB of a raw or compressed image; raises ObservationError naming the camera."""
    return _compressed(message, name) if hasattr(message, "format") else _raw(message, name)


def _raw(message: Image, name: str) -> np.ndarray:
    if message.encoding not in ENCODINGS:
        raise ObservationError(f"camera {name}: encoding {message.encoding!r} cannot be used; publish one of "
                               f"{', '.join(ENCODINGS)}")
    channels, order = ENCODINGS[message.encoding]
    row = message.width * channels
    if not message.width or not message.height or message.step < row or len(message.data) < message.step * message.height:
        raise ObservationError(f"camera {name}: {message.width}x{message.height} with a row step of {message.step} does "
                               f"not fit {len(message.data)} bytes; the driver sends broken images")
    data = np.frombuffer(message.data, dtype=np.uint8, count=message.step * message.height)
    pixels = data.reshape(message.height, message.step)[:, :row].reshape(message.height, message.width, channels)
    return np.ascontiguousarray(pixels[:, :, list(order)])


def _compressed(message: CompressedImage, name: str) -> np.ndarray:
    import cv2

    decoded = cv2.imdecode(np.frombuffer(message.data, dtype=np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ObservationError(f"camera {name}: a compressed image ({message.format!r}) cannot be decoded")
    return np.ascontiguousarray(decoded[:, :, ::-1])


def from_rgb(pixels: np.ndarray, stamp, frame: str) -> Image:
    """An `rgb8` message of (height, width, 3) uint8."""
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding="rgb8", is_bigendian=0,
                    step=pixels.shape[1] * 3, data=np.ascontiguousarray(pixels).tobytes())
    message.header.stamp, message.header.frame_id = stamp, frame
    return message


def to_jpeg(pixels: np.ndarray, stamp, frame: str, quality: int = 85) -> CompressedImage:
    """A JPEG message of (height, width, 3) uint8 RGB."""
    import cv2

    encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    message = CompressedImage(format="jpeg", data=encoded.tobytes())
    message.header.stamp, message.header.frame_id = stamp, frame
    return message
