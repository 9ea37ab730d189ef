"""Footage encoded by another process: it gives the same data set as pictures, and is refused if it does not fit its episode."""
import hashlib

import numpy as np
import pytest

from hybridvla_core.data.lerobot.footage import encode
from hybridvla_core.data.lerobot.layout import Description
from hybridvla_core.data.lerobot.writer import DatasetWriter
from hybridvla_core.errors import DataError

NAMES = tuple(f"c{i}" for i in range(7))
DESCRIPTION = Description("toy", 10.0, {"front": (48, 64), "wrist": (32, 32)}, NAMES, NAMES)


def pictures(frames, seed):
    rng = np.random.default_rng(seed)
    return {view: list(rng.integers(0, 256, (frames, *size, 3), dtype=np.uint8)) for view, size in DESCRIPTION.views.items()}


def write(folder, lengths, encoded):
    with DatasetWriter(folder, DESCRIPTION) as out:
        for number, length in enumerate(lengths):
            images = pictures(length, number)
            with out.episode(f"episode {number}", footage=encode(images, 10.0) if encoded else None) as episode:
                for frame in range(length):
                    shown = {} if encoded else {view: found[frame] for view, found in images.items()}
                    episode.add(shown, np.full(7, frame), np.ones(7), "go")
        out.finish()
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_footage_and_pictures_give_the_same_bytes(tmp_path):
    lengths = (3, 40, 70)     # of the longer ones only some pictures enter the statistics
    assert write(tmp_path / "a" / "toy", lengths, False) == write(tmp_path / "b" / "toy", lengths, True)


@pytest.mark.parametrize("frames, views, given, words", [
    (2, ("front", "wrist"), 3, "the footage has no 3 frames of view front"), (3, ("front",), 3, "no 3 frames of view wrist"),
    (3, ("front", "wrist"), -3, "frame 0: the episode's pictures are encoded already")])
def test_footage_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path, frames, views, given, words):
    footage = encode({view: found for view, found in pictures(frames, 0).items() if view in views}, 10.0)
    with DatasetWriter(tmp_path / "toy", DESCRIPTION) as out:
        with pytest.raises(DataError, match=words), out.episode("one", footage=footage) as episode:
            for frame in range(abs(given)):
                shown = {view: found[frame] for view, found in pictures(frames, 0).items()} if given < 0 else {}
                episode.add(shown, np.zeros(7), np.ones(7), "go")
        assert out.episodes == 0 and not list(out._folder.rglob("*.mp4"))


def test_views_of_unequal_length_are_refused():
    found = pictures(3, 0)
    with pytest.raises(DataError, match=r"have different numbers of pictures \(front 3, wrist 2\)"):
        encode({**found, "wrist": found["wrist"][:2]}, 10.0)
