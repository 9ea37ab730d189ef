"""Demonstration shards: what is not whole, or not what it should be, is refused with the file's name."""
from __future__ import annotations

import numpy as np
import pytest

from hybridvla_core.data.shards import ShardSet
from hybridvla_core.errors import HybridVLAError


def arrays(samples=4):
    return {"images": np.zeros((samples, 16, 16, 3), np.uint8), "seg": np.zeros((samples, 16, 16), np.uint8),
            "block_pos": np.zeros((samples, 4, 3), np.float32), "block_yaw": np.zeros((samples, 4), np.float32),
            "pad_pos": np.zeros((samples, 4, 2), np.float32), "state": np.zeros((samples, 7), np.float32),
            "target": np.zeros((samples, 16, 7), np.float32), "phase": np.zeros((samples, 16), np.int8)}


def saved(path, **changes):
    np.savez(path, **{**arrays(), **changes})
    return path


def test_whole_shards_are_read(tmp_path):
    shards = ShardSet([saved(tmp_path / "a.npz"), saved(tmp_path / "b.npz")])
    assert len(shards) == 8 and shards.column("state").shape == (8, 7)


@pytest.mark.parametrize("changes, words", [
    ({"images": np.zeros((4, 16, 16, 3), np.float32)}, "'images' is float32"), ({"phase": np.zeros((2, 16), int)}, "phase 2"),
    ({"images": np.zeros((4, 16, 16, 3), np.uint16)}, "'images' is uint16"), ({"seg": np.zeros((4, 16, 16))}, "'seg' is float64"),
    ({"state": np.full((4, 7), np.nan)}, "'state' holds values that are not finite"),
    ({"target": np.array([["x"] * 16] * 4)[:, :, None]}, "'target' is <U1"), ({"pad_pos": np.zeros((4, 4, 3))}, "shape")])
def test_arrays_that_are_something_else_are_named(tmp_path, changes, words):
    with pytest.raises(HybridVLAError, match=f"a.npz.*{words}"):
        ShardSet([saved(tmp_path / "a.npz", **changes)])


@pytest.mark.parametrize("content", [
    lambda whole: b"", lambda whole: whole[:3000], lambda whole: whole[:200] + b"\xff" * 9 + whole[209:],
    lambda whole: b"PK\x03\x04", lambda whole: b"\x93NUMPY\x01\x00", lambda whole: b"version https://git-lfs.github.com/spec/v1\n"])
def test_files_that_are_not_whole_are_named(tmp_path, content):
    path = saved(tmp_path / "a.npz")
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(HybridVLAError, match="a.npz"):
        ShardSet([path])
    np.save(str(tmp_path / "b"), np.zeros(3))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(HybridVLAError, match=r"b\.npz"):
        ShardSet.from_folder(tmp_path) if path.unlink() is None else None
