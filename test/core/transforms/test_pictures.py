"""One reader of pixels: files, compressed messages and their reduced decoding agree; it names what is not a colour picture."""
from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from hybridvla_core.errors import HybridVLAError, ObservationError
from hybridvla_core.transforms.encodings import raw_to_rgb
from hybridvla_core.transforms.pictures import decode, decode_reduced, read_file

#: Smooth, and different in every quarter and channel, so that a rotation or a swap of colours becomes visible.
COLOURS = cv2.resize(np.random.default_rng(3).integers(30, 226, (3, 4, 3), dtype=np.uint8), (320, 240),
                     interpolation=cv2.INTER_LINEAR)
GREY = np.ascontiguousarray(COLOURS[:, :, 1])
PATTERNS = ("rggb", "bggr", "gbrg", "grbg")


def stored(pixels, kind="PNG", orientation=1, **options):
    """Encode `pixels` with Pillow, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def by_opencv(pixels, extension=".png"):
    return cv2.imencode(extension, pixels)[1].tobytes()


def mosaic(pattern):
    """Return the pixels of COLOURS that a sensor with that pattern sees."""
    seen = np.zeros(COLOURS.shape[:2], np.uint8)
    for place, letter in enumerate(pattern):
        row, column = divmod(place, 2)
        seen[row::2, column::2] = COLOURS[row::2, column::2, "rgb".index(letter)]
    return seen


def apart(first, second):
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_files_messages_and_reduced_decoding_agree_whatever_the_orientation(tmp_path, kind, orientation):
    data = stored(COLOURS, kind, orientation, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True}))
    path = tmp_path / "picture"
    path.write_bytes(data)
    full = decode(data, "camera front", "jpeg")
    np.testing.assert_array_equal(read_file(path, "--image"), full)
    assert full.shape == COLOURS.shape and apart(full, COLOURS) < (2.0 if kind == "JPEG" else 1e-9)
    reduced, shape = decode_reduced(data, 100, "camera front", "jpeg")
    assert shape == COLOURS.shape and reduced.shape == ((120, 160, 3) if kind == "JPEG" else COLOURS.shape)
    assert apart(cv2.resize(reduced, (320, 240), interpolation=cv2.INTER_LINEAR), COLOURS) < 3.0


@pytest.mark.parametrize("form, pixels", [
    ("rgb8; jpeg compressed bgr8", COLOURS), ("bgr8; jpeg compressed bgr8", COLOURS), ("jpeg", COLOURS),
    ("rgb8; jpeg compressed rgb8", COLOURS[:, :, ::-1]), ("bgra8; jpeg compressed bgr8", COLOURS),
    ("8UC3; jpeg compressed bgr8", COLOURS), ("mono8; jpeg compressed ", np.repeat(GREY[:, :, None], 3, axis=2))])
def test_reduced_decoding_takes_the_colours_that_the_format_says(form, pixels):
    data = stored(np.ascontiguousarray(pixels), "JPEG", quality=95, subsampling=0)
    full, reduced = decode(data, "camera front", form), decode_reduced(data, 100, "camera front", form)[0]
    expected = COLOURS if "mono" not in form else pixels
    assert apart(full, expected) < 2.0 and reduced.shape[0] == 120
    assert apart(cv2.resize(reduced, (320, 240), interpolation=cv2.INTER_LINEAR), expected) < 3.0


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_mosaic_is_the_same_raw_and_compressed(pattern, bits):
    seen = mosaic(pattern)
    deep = (seen.astype("<u2") << 8) if bits == 16 else seen
    raw = raw_to_rgb(deep.tobytes(), 240, 320, 320 * bits // 8, f"bayer_{pattern}{bits}", "front")
    assert apart(raw[4:-4, 4:-4], COLOURS[4:-4, 4:-4]) < 4.0
    form = f"bayer_{pattern}{bits}; png compressed "
    for image in (decode(by_opencv(deep), "camera front", form), decode_reduced(by_opencv(deep), 60, "camera front", form)[0]):
        np.testing.assert_array_equal(image, raw)
    if bits == 8:
        form, data = form.replace("png", "jpeg"), by_opencv(seen, ".jpg")
        for image in (decode(data, "camera front", form), decode_reduced(data, 60, "camera front", form)[0]):
            assert image.shape == raw.shape and apart(image, raw) < 12.0
    ready = stored(COLOURS, "JPEG", quality=95, subsampling=0)
    assert apart(decode(ready, "camera front", f"bayer_{pattern}8; jpeg compressed bgr8"), COLOURS) < 2.0


@pytest.mark.parametrize("pixels, expected", [
    (GREY.astype(np.uint16) * 257, np.repeat(GREY[:, :, None], 3, axis=2)),
    (COLOURS[:, :, ::-1].astype(np.uint16) * 257, COLOURS), (GREY, np.repeat(GREY[:, :, None], 3, axis=2)),
    (np.dstack([COLOURS[:, :, ::-1], GREY]), COLOURS)], ids=["grey16", "rgb16", "grey8", "alpha"])
def test_files_of_other_depths_become_bytes(tmp_path, pixels, expected):
    path = tmp_path / "picture.png"
    path.write_bytes(by_opencv(pixels))
    np.testing.assert_array_equal(read_file(path, "--image"), expected)


def test_a_palette_and_one_bit_are_colours(tmp_path):
    for mode in ("P", "1", "LA", "L"):
        path = tmp_path / f"{mode}.png"
        picture = Image.fromarray(COLOURS).convert(mode)
        picture.save(path)
        np.testing.assert_array_equal(read_file(path, "--image"), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("form", ["16UC1; png compressed ", "16UC1; jpeg compressed ", "32FC1; compressedDepth png", "png", "",
                                  "16UC1; compressedDepth", "16UC1; png compressed mono16"])
@pytest.mark.parametrize("reduced", [False, True])
def test_depth_on_a_colour_topic_is_refused(form, reduced):
    depth = np.linspace(400, 2000, 64 * 64).reshape(64, 64).astype(np.uint16)
    data = by_opencv(np.minimum(depth, 255).astype(np.uint8), ".jpg") if "jpeg" in form else by_opencv(depth)
    with pytest.raises(ObservationError, match="camera front: .*depth image"):
        decode_reduced(data, 16, "camera front", form) if reduced else decode(data, "camera front", form)


@pytest.mark.parametrize("form", ["mono16; png compressed ", "mono16; png compressed mono16"])
def test_deep_grey_that_says_so_is_read(form):
    np.testing.assert_array_equal(decode(by_opencv(GREY.astype(np.uint16) << 8), "camera front", form),
                                  np.repeat(GREY[:, :, None], 3, axis=2))


@pytest.mark.parametrize("form, words", [("8UC3; jpeg compressed ", "RGB or BGR"), ("8UC1; png compressed ", "mono8")])
def test_colours_that_nobody_names_are_refused(form, words):
    with pytest.raises(ObservationError, match=words):
        decode(stored(COLOURS, "JPEG"), "camera front", form)


def large(tmp_path):
    path = tmp_path / "large.png"
    Image.new("1", (20000, 6000)).save(path)
    return path


def written(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("make, words", [
    (lambda t: written(t, "a.png", b"no picture"), "cannot be read"), (lambda t: t / "nowhere.png", "No such file"),
    (lambda t: written(t, "a.png", by_opencv(COLOURS)[:2000]), "cannot be"), (large, "million pixels"),
    (lambda t: written(t, "a.jpg", stored(COLOURS, "JPEG")[:3000]), "cannot be"),
    (lambda t: written(t, "a.tiff", by_opencv(GREY.astype(np.float32) / 255, ".tiff")), "float32"),
    (lambda t: written(t, "a.gif", stored(GREY, "GIF")), "GIF"), (lambda t: t, "directory"),
    (lambda t: written(t, "a.png", b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull")])
def test_files_that_are_no_pictures_are_named(tmp_path, make, words):
    path = make(tmp_path)
    with pytest.raises(HybridVLAError, match=words) as caught:
        read_file(path, f"--image {path}")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_pictures_raise_nothing_but_a_named_error(tmp_path, seed):
    random = np.random.default_rng(seed)
    whole = (stored(COLOURS, "JPEG"), by_opencv(COLOURS), by_opencv(GREY.astype(np.uint16)), stored(COLOURS, "WEBP"))[seed % 4]
    data = bytearray(whole)
    for place in random.integers(0, len(data), 12):
        data[place] = random.integers(0, 256)
    path = written(tmp_path, "a", bytes(data[:random.integers(1, len(data) + 1)] if seed % 3 else data))
    for call in (lambda: read_file(path, "--image"), lambda: decode(path.read_bytes(), "camera front", "png"),
                 lambda: decode_reduced(path.read_bytes(), 30, "camera front", "rgb8; jpeg compressed bgr8")[0]):
        try:
            assert call().shape[2] == 3
        except ObservationError as error:
            assert "front" in str(error) or "--image" in str(error)
