"""Decoding of pictures to RGB bytes: one reader for files, compressed messages and data sets.

A picture is taken as it is stored: EXIF orientations are not applied, as in the released code and ROS. Of 16 bits a channel,
the lower 8 are lost. One channel of 16 bits may be a depth image and is read only if its source says that it is grey.
"""
from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Tuple, Union

import cv2
import numpy as np
from PIL import Image

from hybridvla_core.errors import ObservationError
from hybridvla_core.files import refuse_pointer
from hybridvla_core.transforms.encodings import DEEP, DEPTH, ENCODINGS, REFUSED, Bytes, converted

#: The first bytes of a JPEG, which has one or three channels of 8 bits.
_JPEG = b"\xff\xd8\xff"
#: Reduced decoding: fraction -> OpenCV's reading flag.
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


def stored_as_rgb(text: str) -> bool:
    """Returns whether a CompressedImage's format says that red and blue were exchanged before encoding.

    compressed_image_transport writes `rgb8; jpeg compressed bgr8`: the part before the semicolon is the raw image's
    encoding, the last word is what the encoder was given, and encoders expect BGR. Only a last word of `rgb..` means that
    RGB was passed as if it were BGR. `jpeg` and `png` alone are ordinary files.

    Args:
        text: The format.

        Returns:
            True if they were exchanged.
    """
    return _parts(text)[1].startswith("rgb")


def _parts(text: str) -> Tuple[str, str]:
    """Returns the raw image's encoding, if the format names one, and what the encoder was given."""
    before, semicolon, after = text.partition(";")
    return (before.strip() if semicolon else ""), after.partition("compressed")[2].strip()


def decode(data: Bytes, name: str, form: str = "", deep_is_grey: bool = False) -> np.ndarray:
    """Returns an encoded picture as (height, width, 3) uint8 RGB.

    Args:
        data: JPEG, PNG or another format that OpenCV reads.
        name: name of the source, for messages: `camera front`.
        form: format of a CompressedImage.
        deep_is_grey: whether one channel of 16 bits is a grey picture if `form` does not say so.

    Raises:
        ObservationError: naming the source, if the data cannot be decoded or is no colour picture.
    """
    source, target = _checked(form, name)
    pixels = np.frombuffer(data, dtype=np.uint8)
    mosaic = source if DEEP.get(source, source).startswith("bayer") and not target else ""
    flag = cv2.IMREAD_UNCHANGED
    if not mosaic and bytes(pixels[:3]) == _JPEG:
        flag = cv2.IMREAD_COLOR if stored_as_rgb(form) else cv2.IMREAD_COLOR_RGB
    decoded = _decoded(pixels, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        about = f"{form!r}, " if form else ""
        raise ObservationError(f"{name}: a picture ({about}{pixels.size} bytes) cannot be decoded; it is cut off, or no JPEG or "
                               "PNG")
    if flag != cv2.IMREAD_UNCHANGED:
        return decoded
    if decoded.dtype == np.uint16:
        if decoded.ndim == 2 and not (deep_is_grey or source in DEEP or target in DEEP):
            raise ObservationError(f"{name}: one channel of 16 bits ({form!r}) {DEPTH}, or have the driver name it mono16")
        decoded = (decoded >> 8).astype(np.uint8)
    if decoded.dtype != np.uint8:
        raise ObservationError(f"{name}: its values are {decoded.dtype}, which says nothing of their range; give a picture of 8 "
                               "or 16 bits a channel")
    return _to_rgb(decoded, mosaic, stored_as_rgb(form), name)


def _to_rgb(decoded: np.ndarray, mosaic: str, is_rgb: bool, name: str) -> np.ndarray:
    """Converts bytes as OpenCV decodes them (grey, BGR or BGRA) to RGB."""
    what = f"{name}: {decoded.shape[1]}x{decoded.shape[0]} of a picture"
    if decoded.ndim == 2 or decoded.shape[2] == 1:
        grey = decoded if decoded.ndim == 2 else decoded[:, :, 0]
        return converted(grey, ENCODINGS[DEEP.get(mosaic, mosaic)][1] if mosaic else cv2.COLOR_GRAY2RGB, what)
    if decoded.shape[2] not in (3, 4):
        raise ObservationError(f"{name}: {decoded.shape[2]} channels are no colour picture")
    return np.ascontiguousarray(decoded[:, :, :3]) if is_rgb else converted(decoded[:, :, :3], cv2.COLOR_BGR2RGB, what)


def _checked(form: str, name: str) -> Tuple[str, str]:
    """Returns the parts of a format; refuses depth images and formats that do not say what their colours are."""
    source, target = _parts(form)
    if "compressedDepth" in form:
        raise ObservationError(f"{name}: {form!r} {DEPTH}")
    if source in REFUSED and (not target or REFUSED[source] == DEPTH):
        raise ObservationError(f"{name}: {form!r}: encoding {source!r} {REFUSED[source]}")
    return source, target


def _decoded(pixels: np.ndarray, flag: int) -> Union[np.ndarray, None]:
    try:
        return cv2.imdecode(pixels, flag) if pixels.size else None
    except cv2.error:       # a size beyond what OpenCV allows
        return None


def decode_reduced(data: Bytes, least: int, name: str, form: str = "") -> Tuple[np.ndarray, Tuple[int, int, int]]:
    """Decodes a JPEG at 1/2, 1/4 or 1/8 of its size as long as no side falls below `least`.

    This is faster and does not give the same pixels as `decode`: an option, never a default. Other formats are decoded in full.

    Args:
        data: The encoded file.
        least: Smallest side, pixels.
        name: Name of the source, for error messages.
        form: Format of the message.

    Returns:
        RGB (h, w, 3) uint8 and the shape of the whole image.

    Raises:
        ObservationError: As for `decode`.
    """
    source, target = _checked(form, name)
    pixels = np.frombuffer(data, dtype=np.uint8)
    if bytes(pixels[:3]) == _JPEG and (target or not source.startswith("bayer")):
        height, width = _jpeg_size(pixels.tobytes())
        factor = next((f for f in (8, 4, 2) if min(height, width) >= least * f), 1)
        found = _decoded(pixels, _REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION) if factor > 1 else None
        if found is not None:
            return (found if stored_as_rgb(form) else cv2.cvtColor(found, cv2.COLOR_BGR2RGB)), (height, width, 3)
    image = decode(data, name, form)
    return image, (image.shape[0], image.shape[1], 3)


def _jpeg_size(data: bytes) -> Tuple[int, int]:
    """Returns (height, width) from the header alone; zeros if it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.size[1], picture.size[0]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0


def read_file(path: Union[str, Path], name: str) -> np.ndarray:
    """Returns a picture file as (height, width, 3) uint8 RGB.

    Args:
        path: the file.
        name: name of the file in messages: `--image front.png`.

    Raises:
        ObservationError: naming the file, if it is missing, no picture, too large, or holds numbers without a range.
    """
    refuse_pointer(path)
    try:
        data = Path(path).read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                kind = picture.format
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ObservationError(f"{name}: has more than {(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels, which no camera "
                               "sends; give a smaller picture") from error
    except OSError as error:        # UnidentifiedImageError is one
        why = error.strerror or "no picture in a known format"
        raise ObservationError(f"{name}: cannot be read as an image ({why}); check the file") from error
    except (ValueError, SyntaxError, MemoryError) as error:      # what Pillow raises for a damaged or oversized header
        raise ObservationError(f"{name}: cannot be read as an image ({error}); save it again") from error
    if kind == "GIF":
        raise ObservationError(f"{name}: a GIF has 256 colours and may move; save it as PNG or JPEG")
    return decode(data, name, deep_is_grey=True)
