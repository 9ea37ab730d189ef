"""Conversion of raw pixels, as cameras send them, to RGB bytes. The encoding comes from the message and is never assumed.

Names of encodings: sensor_msgs/image_encodings.h. `yuv422` is UYVY, `yuv422_yuy2` is YUYV. The meaning of an encoding's
numbers decides: 16UC1 is a depth image in mm and 8UC3 does not say what its colours are, so both are refused.
"""
from __future__ import annotations

from typing import Union

import cv2
import numpy as np

from hybridvla_core.errors import ObservationError

Bytes = Union[bytes, bytearray, memoryview, np.ndarray]

#: encoding -> channels and OpenCV's conversion to RGB (None: already RGB). OpenCV names a Bayer pattern after the second
#: row's second and third pixels, so it calls RGGB "BG".
ENCODINGS = {
    "rgb8": (3, None), "bgr8": (3, cv2.COLOR_BGR2RGB), "rgba8": (4, cv2.COLOR_RGBA2RGB), "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB), "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY), "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2), "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB), "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB), "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB)}
#: Encodings with 16 bits a channel, of which the upper 8 are used.
DEEP = {"rgb16": "rgb8", "bgr16": "bgr8", "rgba16": "rgba8", "bgra16": "bgra8", "mono16": "mono8",
        **{f"bayer_{pattern}16": f"bayer_{pattern}8" for pattern in ("rggb", "bggr", "gbrg", "grbg")}}
DEPTH = "is a depth image; name the colour topic"
#: Encodings that people send, and why they are no colour images.
REFUSED = {"16UC1": DEPTH, "32FC1": DEPTH, "16SC1": DEPTH, "64FC1": DEPTH,
           "8UC3": "does not say whether it is RGB or BGR; have the driver name it",
           "8UC4": "does not say whether it is RGB or BGR; have the driver name it",
           "8UC1": "does not say what it shows; have the driver name it mono8 or a Bayer pattern"}


def raw_to_rgb(data: Bytes, height: int, width: int, step: int, encoding: str, name: str, bigendian: bool = False) -> np.ndarray:
    """Returns raw pixels as (height, width, 3) uint8 RGB; the array may share memory with `data` and be read-only.

    Args:
        data: rows of pixels.
        height: height in pixels.
        width: width in pixels.
        step: bytes from one row to the next.
        encoding: encoding of a pixel.
        name: name of the camera, for messages.
        bigendian: whether the more significant byte of 16 bits comes first.

    Raises:
        ObservationError: naming the camera, for an encoding that is not a colour one and for rows that do not fit.
    """
    deep = encoding in DEEP
    if DEEP.get(encoding, encoding) not in ENCODINGS:
        why = REFUSED.get(encoding, f"cannot be used; publish one of {', '.join((*ENCODINGS, *DEEP))}")
        raise ObservationError(f"camera {name}: encoding {encoding!r} {why}")
    channels, code = ENCODINGS[DEEP.get(encoding, encoding)]
    row = width * channels * (2 if deep else 1)
    if not width or not height or step < row or len(data) < step * height:
        raise ObservationError(f"camera {name}: {width}x{height} {encoding} with a row step of {step} does not fit {len(data)} "
                               "bytes; the driver sends broken images")
    rows = np.frombuffer(data, dtype=np.uint8, count=step * height).reshape(height, step)[:, :row]
    if deep:
        rows = rows.reshape(height, -1, 2)[:, :, 0 if bigendian else 1]
    pixels = rows.reshape(height, width, channels) if channels > 1 else rows
    if channels == 2 and width % 2:
        raise ObservationError(f"camera {name}: {encoding} needs an even width, found {width}")
    return converted(pixels, code, f"camera {name}: {width}x{height} in {encoding}")


def converted(pixels: np.ndarray, code: Union[int, None], what: str) -> np.ndarray:
    """Converts pixels with OpenCV; raises ObservationError with `what` if OpenCV refuses them."""
    try:
        return np.ascontiguousarray(pixels if code is None else cv2.cvtColor(np.ascontiguousarray(pixels), code))
    except cv2.error as error:
        raise ObservationError(f"{what} cannot be converted; the driver sends broken images") from error
