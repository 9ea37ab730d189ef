"""Frames on the wire: what passes unchanged, and what is refused in one sentence and never unpickled."""
from __future__ import annotations

import contextlib
import pickle
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.errors import ConfigurationError, HybridVLAError, WireError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.remote.dialect import PoseDialect
from hybridvla_core.policy.remote.settings import RemoteSource, read_key
from hybridvla_core.policy.remote.wire import DTYPES, MAX_FRAME, pack, unpack

pytestmark = pytest.mark.robot_computer


def array(dtype="<f4", shape=(2,), data=b"\0" * 8):
    return msgpack.packb({"a": {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}})


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_come_back_as_they_were(dtype):
    sent = np.arange(6).reshape(2, 3).astype(dtype)
    found = unpack(pack({"a": sent, "text": "ü", "number": np.float64(1.5), "none": None, "list": [1, {"b": True}]}))
    assert found["a"].dtype == sent.dtype and np.array_equal(found["a"], sent)
    assert (found["text"], found["number"], found["none"], found["list"]) == ("ü", 1.5, None, [1, {"b": True}])


@pytest.mark.parametrize("frame, said", [
    (array("|O", (1,)), "element type"), (array("<U4", (1,)), "element type"), (array("V8", (1,)), "element type"),
    (array(shape=(3,)), "needs 12"), (array(shape=(2 ** 40, 2 ** 40)), "needs"), (array(shape=(-2, -1)), "shape"),
    (array(shape=(1,) * 6), "shape"), (array(shape="ab"), "shape"), (array(data="text"), "bytes"),
    (pickle.dumps({"a": 1}), "msgpack"), (msgpack.packb([1]), "a list"), (b"", "msgpack"), (b"\xc1", "msgpack"),
    (msgpack.packb({"a": msgpack.ExtType(4, b"x")}), "msgpack"), (msgpack.packb({1: 2}), "msgpack"),
    (msgpack.packb({b"a": 2}), "map of names"),
    (msgpack.packb({"n": {b"__npgeneric__": True, b"data": [1]}}), "a list"), (msgpack.packb(list(range(5000))), "msgpack"),
    (b"\x81\xa1a" + b"\x91" * 3000, "msgpack"),
])
def test_anything_else_is_refused_in_a_sentence(frame, said):
    with pytest.raises(WireError, match=said):
        unpack(frame)


@pytest.mark.parametrize("inner", [[[]] * 4000, [{}] * 4000, {str(number): [] for number in range(4000)}, list(range(4000))])
def test_a_frame_within_its_bytes_cannot_fill_the_memory(inner):
    frame = msgpack.packb({"a": [inner] * 60})
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="more than 4096 entries in its lists and maps; send numbers as arrays"):
            unpack(frame)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


def test_a_frame_of_many_entries_is_read():
    assert unpack(msgpack.packb({"a": list(range(2000)), "b": [{"c": []}] * 300}))["b"][299] == {"c": []}


def test_a_frame_too_long_is_not_read():
    with pytest.raises(WireError, match="at most"):
        unpack(bytes(MAX_FRAME + 1))


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["text"]), object(), 2 ** 70])
def test_what_has_no_place_on_the_wire_is_not_sent(value):
    with pytest.raises(WireError, match="cannot be sent"):
        pack({"a": value})


@given(st.binary(max_size=200))
def test_no_frame_raises_anything_but_its_refusal(frame):
    with contextlib.suppress(HybridVLAError):
        unpack(frame)


LIBERO = ROOT / "config/remote/libero.yaml"


def test_liberos_numbers_keep_their_meaning_there_and_back():
    dialect = load_file(PoseDialect, LIBERO)
    images = {view: np.zeros((4, 4, 3), dtype=np.uint8) for view in dialect.cameras}
    seen = Observation(images, "go", np.array([0.4, 0.1, 0.3, 0.2, -0.3, 0.4, 0.25]), 5)

    class Served:
        cameras, convention = dialect.cameras, dialect.meaning

    sent = dialect.request(seen, None, 0)
    assert set(sent) == {"observation/image", "observation/wrist_image", "observation/state", "prompt"}
    assert sent["observation/state"].shape == (8,) and np.isclose(sent["observation/state"][6], 0.01)
    read = dialect.read_request(unpack(pack(sent)), Served).observation
    assert np.allclose(read.state, seen.state, atol=1e-6) and read.instruction == "go"
    action = np.array([[0.02, -0.01, 0.0, 0.1, -0.2, 0.05, 1.0], [0.0, 0.05, 0.01, 0.0, 0.3, 0.0, 0.0]])
    reply = dialect.reply(Prediction(action=action, mode=Mode.ENSEMBLE, fused=True), Served, 5)
    assert np.allclose(reply["actions"][:, :3], action[:, :3] / 0.05) and list(reply["actions"][:, 6]) == [-1.0, 1.0]
    assert np.allclose(dialect.read_reply(unpack(pack(reply)), dialect.meaning, 5).action, action)


def test_droid_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="dialect droid is not spoken: DROID's scripts send joint positions"):
        load_file(PoseDialect, ROOT / "config/remote/droid.yaml")


@pytest.mark.parametrize("url", ["http://localhost:1", "ws://localhost", "ws://:1", "ws://h:99999"])
def test_an_address_that_is_none(url):
    with pytest.raises(ConfigurationError, match="remote: url"):
        RemoteSource(url)


def test_another_computer_needs_encryption_or_a_word():
    with pytest.raises(ConfigurationError, match="without encryption"):
        RemoteSource("ws://gpu:8000")
    assert RemoteSource("ws://gpu:8000", insecure_lan=True).url and RemoteSource("wss://gpu:8000").encrypted


def test_a_key_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "key"
    path.write_text("k" * 20 + "\n")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_key(path)
    path.chmod(0o600)
    assert read_key(path) == "k" * 20
    path.write_text("short")
    with pytest.raises(ConfigurationError, match="16 characters"):
        read_key(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_key(tmp_path / "none")
