"""Every encoding that cameras send, against pixels that the test itself mosaics, packs or encodes."""
from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image as Picture
from sensor_msgs.msg import CompressedImage, Image

from hybridvla_core.errors import ObservationError
from hybridvla_ros.messages.images import stored_as_rgb, to_rgb

HEIGHT, WIDTH = 6, 8
RANDOM = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
SMOOTH = np.stack([np.full((48, 64), value, np.uint8) for value in (220, 60, 20)], axis=2)
SMOOTH[:, 32:] = (30, 90, 200)


def image(encoding, rows, padding=0, bigendian=0):
    """Return an image. rows: (h, bytes) uint8; padding: number of garbage bytes after each row."""
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    width = {"yuv": 2, "uyv": 2, "yuy": 2}.get(encoding[:3], 1)
    width = {"mono16": 2, "rgb16": 6, "bgr16": 6, "rgba16": 8}.get(encoding, width)
    return Image(height=rows.shape[0], width=(rows.shape[1] - padding) // width, encoding=encoding, step=rows.shape[1],
                 is_bigendian=bigendian, data=rows.tobytes())


@pytest.mark.parametrize("encoding, order", [("rgb16", (0, 1, 2)), ("bgr16", (2, 1, 0))])
@pytest.mark.parametrize("bigendian", [0, 1])
@pytest.mark.parametrize("padding", [0, 10])
def test_sixteen_bits_are_read_in_the_byte_order_of_the_message(encoding, order, bigendian, padding):
    deep = (RANDOM[:, :, list(order)].astype(np.uint16) << 8) | 0x5A
    rows = np.ascontiguousarray(deep, ">u2" if bigendian else "<u2").view(np.uint8).reshape(HEIGHT, -1)
    np.testing.assert_array_equal(to_rgb(image(encoding, rows, padding, bigendian), "front"), RANDOM)


def test_deep_grey_becomes_grey():
    rows = (RANDOM[:, :, 0].astype("<u2") << 8).view(np.uint8).reshape(HEIGHT, -1)
    np.testing.assert_array_equal(to_rgb(image("mono16", rows), "front"), np.repeat(RANDOM[:, :, :1], 3, axis=2))


def yuv(colour):
    """BT.601, limited range."""
    r, g, b = (float(value) for value in colour)
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    return [int(round(value)) for value in (y, u, v)]


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
@pytest.mark.parametrize("colour", [(220, 60, 20), (20, 60, 220), (10, 200, 30)])
def test_packed_yuv(encoding, colour):
    y, u, v = yuv(colour)
    pair = [u, y, v, y] if encoding in ("yuv422", "uyvy") else [y, u, y, v]
    rows = np.tile(np.array(pair, np.uint8), (HEIGHT, WIDTH // 2))
    got = to_rgb(image(encoding, rows, padding=6), "front")
    assert got.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(got.astype(int), np.broadcast_to(colour, got.shape), atol=4)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("colour", [(220, 60, 20), (20, 60, 220)])
def test_bayer_patterns(pattern, colour):
    tile = np.array([colour["rgb".index(letter)] for letter in pattern], np.uint8).reshape(2, 2)
    got = to_rgb(image(f"bayer_{pattern}8", np.tile(tile, (HEIGHT, WIDTH))), "front")
    np.testing.assert_array_equal(got, np.broadcast_to(np.array(colour, np.uint8), got.shape))


def encoded(kind, pixels, text):
    """Encode RGB `pixels` with another library than the one that reads them."""
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return CompressedImage(format=text, data=buffer.getvalue())


@pytest.mark.parametrize("kind, text", [
    ("JPEG", "jpeg"), ("JPEG", "rgb8; jpeg compressed bgr8"), ("JPEG", "bgr8; jpeg compressed bgr8"), ("JPEG", "jpg"),
    ("JPEG", "rgb8; jpeg compressed "), ("PNG", "png"), ("PNG", "bgr8; png compressed bgr8"), ("PNG", "")])
def test_compressed_images_keep_red_and_blue(kind, text):
    got = to_rgb(encoded(kind, SMOOTH, text), "front")
    assert np.abs(got.astype(int) - SMOOTH).mean() < (2.0 if kind == "JPEG" else 1e-9)


def test_a_publisher_that_encoded_rgb_as_if_it_were_bgr_says_so_and_is_understood():
    got = to_rgb(encoded("PNG", SMOOTH[:, :, ::-1], "rgb8; png compressed rgb8"), "front")
    np.testing.assert_array_equal(got, SMOOTH)
    assert stored_as_rgb("rgb8; jpeg compressed rgb8") and not stored_as_rgb("rgb8; jpeg compressed bgr8")


def test_grey_and_deep_files_become_colour():
    grey = np.ascontiguousarray(SMOOTH[:, :, 0])
    for pixels, text in ((grey, "mono8; png compressed "), (grey.astype(np.uint16) << 8, "mono16; png compressed ")):
        message = CompressedImage(format=text, data=cv2.imencode(".png", pixels)[1].tobytes())
        np.testing.assert_array_equal(to_rgb(message, "front"), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("message, words", [
    (Image(height=2, width=2, encoding="16UC1", step=4, data=b"12345678"), "depth image"),
    (Image(height=2, width=2, encoding="32FC1", step=8, data=b"1234567812345678"), "depth image"),
    (Image(height=2, width=2, encoding="8UC3", step=6, data=b"123456123456"), "RGB or BGR"),
    (Image(height=2, width=3, encoding="yuv422", step=6, data=b"123456123456"), "even width"),
    (Image(height=2, width=2, encoding="rgb16", step=6, data=b"123456123456"), "row step of 6"),
    (Image(height=2, width=2, encoding="nv12", step=2, data=b"123456"), "'nv12' cannot be used"),
    (CompressedImage(format="16UC1; compressedDepth", data=b"x" * 20), "depth image"),
    (CompressedImage(format="jpeg", data=b""), "0 bytes"),
    (CompressedImage(format="jpeg", data=encoded("JPEG", SMOOTH, "").data[:40]), "cannot be")])
def test_what_is_no_colour_image_is_named(message, words):
    with pytest.raises(ObservationError, match=words) as caught:
        to_rgb(message, "wrist")
    assert "camera wrist" in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_rubbish_never_raises_anything_but_a_named_error(seed):
    random = np.random.default_rng(seed)
    encodings = ("rgb8", "bgra8", "mono16", "yuv422", "bayer_gbrg8", "", "16UC1", "rgb8\x00")
    message = Image(height=int(random.integers(0, 9)), width=int(random.integers(0, 9)),
                    encoding=encodings[seed % len(encodings)], step=int(random.integers(0, 40)),
                    data=random.bytes(int(random.integers(0, 200))))
    for candidate in (message, CompressedImage(format="jpeg", data=random.bytes(int(random.integers(0, 99))))):
        try:
            assert to_rgb(candidate, "front").shape[2] == 3
        except ObservationError as error:
            assert "camera front" in str(error)
