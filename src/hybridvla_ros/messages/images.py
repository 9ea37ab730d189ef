"""Image messages to numpy and back, without cv_bridge. The encoding is the message's own, never assumed.

Names of encodings: sensor_msgs/image_encodings.h. `yuv422` is UYVY, `yuv422_yuy2` is YUYV. What the numbers of an
encoding mean decides: 16UC1 is a depth image in mm and 8UC3 says nothing of its colours, so both are refused.
"""
from __future__ import annotations

from typing import Tuple, Union

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from hybridvla_core.errors import ObservationError

#: encoding -> channels and OpenCV's conversion to RGB (None: already RGB). OpenCV names a Bayer pattern by the second
#: row's second and third pixels, so RGGB is its "BG".
ENCODINGS = {
    "rgb8": (3, None), "bgr8": (3, cv2.COLOR_BGR2RGB), "rgba8": (4, cv2.COLOR_RGBA2RGB), "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB), "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY), "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2), "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB), "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB), "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB)}
#: 16 bits a channel, of which the upper 8 are used.
DEEP = {"rgb16": "rgb8", "bgr16": "bgr8", "rgba16": "rgba8", "bgra16": "bgra8", "mono16": "mono8"}
#: What people send and why it is no colour image.
REFUSED = {"16UC1": "is a depth image; name the colour topic", "32FC1": "is a depth image; name the colour topic",
           "8UC3": "does not say whether it is RGB or BGR; have the driver name it",
           "8UC4": "does not say whether it is RGB or BGR; have the driver name it",
           "8UC1": "does not say what it shows; have the driver name it mono8 or a Bayer pattern"}


def to_rgb(message: Union[Image, CompressedImage], name: str) -> np.ndarray:
    """(height, width, 3) uint8 RGB of a raw or compressed image; raises ObservationError naming the camera.

    The array may share the message's memory and be read-only.
    """
    return _compressed(message, name) if hasattr(message, "format") else _raw(message, name)


def _raw(message: Image, name: str) -> np.ndarray:
    encoding = message.encoding
    deep = encoding in DEEP
    if DEEP.get(encoding, encoding) not in ENCODINGS:
        why = REFUSED.get(encoding, f"cannot be used; publish one of {', '.join((*ENCODINGS, *DEEP))}")
        raise ObservationError(f"camera {name}: encoding {encoding!r} {why}")
    channels, code = ENCODINGS[DEEP.get(encoding, encoding)]
    rows = _rows(message, name, channels * (2 if deep else 1))
    if deep:
        # The more significant byte comes first or second, as the message says.
        rows = rows.reshape(message.height, -1, 2)[:, :, 0 if message.is_bigendian else 1]
    pixels = rows.reshape(message.height, message.width, channels) if channels > 1 else rows
    if channels == 2 and message.width % 2:
        raise ObservationError(f"camera {name}: {encoding} needs an even width, found {message.width}")
    try:
        return np.ascontiguousarray(pixels if code is None else cv2.cvtColor(np.ascontiguousarray(pixels), code))
    except cv2.error as error:
        raise ObservationError(f"camera {name}: {message.width}x{message.height} in {encoding} cannot be converted; the "
                               "driver sends broken images") from error


def _rows(message: Image, name: str, bytes_per_pixel: int) -> np.ndarray:
    """(height, width * bytes_per_pixel) uint8: the rows without their padding."""
    row = message.width * bytes_per_pixel
    if not message.width or not message.height or message.step < row or len(message.data) < message.step * message.height:
        raise ObservationError(f"camera {name}: {message.width}x{message.height} {message.encoding} with a row step of "
                               f"{message.step} does not fit {len(message.data)} bytes; the driver sends broken images")
    data = np.frombuffer(message.data, dtype=np.uint8, count=message.step * message.height)
    return data.reshape(message.height, message.step)[:, :row]


def _compressed(message: CompressedImage, name: str) -> np.ndarray:
    if "compressedDepth" in message.format:
        raise ObservationError(f"camera {name}: {message.format!r} is a depth image; name the colour topic")
    pixels_are_rgb = stored_as_rgb(message.format)
    flag = cv2.IMREAD_COLOR if pixels_are_rgb else cv2.IMREAD_COLOR_RGB
    data = np.frombuffer(message.data, dtype=np.uint8)
    decoded = cv2.imdecode(data, flag | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if decoded is None:
        raise ObservationError(f"camera {name}: a compressed image ({message.format!r}, {data.size} bytes) cannot be "
                               "decoded; it is cut off, or no JPEG or PNG")
    return decoded


def stored_as_rgb(text: str) -> bool:
    """Whether a CompressedImage's format says that red and blue were exchanged before encoding.

    compressed_image_transport writes `rgb8; jpeg compressed bgr8`: the part before the semicolon is the raw image's
    encoding, the last word is what the encoder was given, and encoders take BGR. Only a last word of `rgb..` means
    that RGB was handed over as if it were BGR. `jpeg` and `png` alone are ordinary files.
    """
    stored: Tuple[str, str, str] = text.partition("compressed")
    return stored[2].strip().startswith("rgb")


def from_rgb(pixels: np.ndarray, stamp, frame: str) -> Image:
    """An `rgb8` message of (height, width, 3) uint8."""
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding="rgb8", is_bigendian=0,
                    step=pixels.shape[1] * 3, data=np.ascontiguousarray(pixels).tobytes())
    message.header.stamp, message.header.frame_id = stamp, frame
    return message


def to_jpeg(pixels: np.ndarray, stamp, frame: str, quality: int = 85) -> CompressedImage:
    """A JPEG message of (height, width, 3) uint8 RGB."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    message = CompressedImage(format="rgb8; jpeg compressed bgr8", data=encoded.tobytes())
    message.header.stamp, message.header.frame_id = stamp, frame
    return message
