"""The towers on two streams: where each runs, what waits for what, and the same numbers in any order that a GPU may choose."""
from __future__ import annotations

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from hybridvla_core.model.presets import dino, siglip
from hybridvla_core.model.vision import SecondStream, VisionBackbone


class Streams(TorchDispatchMode):
    """Stand-ins for streams: notes what ran on which stream, and what waited for what."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.now, self.made, self.notes = "here", 0, []
        notes = self.notes

        class Stream:
            def __init__(self, name):
                self.name = name

            def wait_stream(self, other):
                notes.append((self.name, "waits", other.name))

        def make():
            self.made += 1
            return Stream("beside")

        @contextlib.contextmanager
        def on(stream):
            before, self.now = self.now, stream.name
            yield
            self.now = before

        monkeypatch.setattr(torch.cuda, "Stream", make)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(self.now))
        monkeypatch.setattr(torch.cuda, "stream", on)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.notes.append((self.now, "runs", (func, args, kwargs or {}, result)))
        return result

    def again(self, order):
        """Repeats the operations on the same addresses, with the streams between fork and join in the given order."""
        begin, end = (i for i, note in enumerate(self.notes) if note[1] == "waits")
        middle = self.notes[begin + 1:end]
        sorted_out = [note for name in order for note in middle if note[0] == name]
        for _, _, (func, args, kwargs, result) in self.notes[:begin] + sorted_out + self.notes[end + 1:]:
            for old, new in zip(tree_flatten(result)[0], tree_flatten(func(*args, **kwargs))[0]):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.mark.parametrize("order", [("here", "beside"), ("beside", "here")])
@torch.inference_mode()
def test_towers_on_two_streams_give_the_same_in_any_order_between_fork_and_join(monkeypatch, order):
    torch.manual_seed(0)
    backbone = VisionBackbone((dino(32, 2, 2, 64, 32, 16), siglip(32, 2, 2, 64, 32, 16))).eval()
    pixels = {kind: torch.randn(2, 3, 32, 32) for kind in backbone.kinds}
    expected = backbone(pixels)
    backbone.beside = SecondStream()
    streams = Streams(monkeypatch)
    with streams:
        found = backbone(pixels)
    assert torch.equal(found, expected)
    waits = [(index, *note) for index, note in enumerate(streams.notes) if note[1] == "waits"]
    assert [wait[1:] for wait in waits] == [("beside", "waits", "here"), ("here", "waits", "beside")]
    for index, (stream, what, _) in enumerate(streams.notes):
        assert what == "waits" or stream == "here" or waits[0][0] < index < waits[1][0], "nothing beside outside fork and join"
    counts = [sum(n[0] == name and n[1] == "runs" for n in streams.notes[waits[0][0]:waits[1][0]]) for name in ("here", "beside")]
    assert min(counts) > 20, "a whole tower on each"
    # other pictures at the same addresses, as when a graph is replayed
    for views in pixels.values():
        views.copy_(torch.randn(2, 3, 32, 32))
    streams.again(order)
    backbone.beside = None
    assert torch.allclose(found, backbone(pixels), atol=1e-6)
    assert streams.made == 1
