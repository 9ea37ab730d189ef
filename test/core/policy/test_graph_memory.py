"""Too little memory for graphs: said once, then the stages run directly with the same result; refused when graphs are `on`."""
from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from recorded_ops import RecordedBackend
from small_policy import observation, write

from hybridvla_core.errors import DeviceError
from hybridvla_core.policy.inference.graphs import GraphStages
from hybridvla_core.policy.predictor import Policy


class Full(RecordedBackend):
    """A backend with memory for `room` graphs. wrapped: the capture's own error hides the out-of-memory error."""

    def __init__(self, room, wrapped=False):
        self.room, self.wrapped = room, wrapped

    def capture(self, call):
        if self.captures == self.room:
            refused = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            if self.wrapped:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from refused
            raise refused
        return super().capture(call)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.mark.parametrize("room, wrapped", [(0, False), (2, True), (3, False)])
def test_too_little_memory_for_graphs_is_said_once_and_changes_nothing(folder, caplog, room, wrapped):
    policy = Policy.from_checkpoint(folder)
    expected = policy.predict(observation())
    policy.path.stages = GraphStages(Full(room, wrapped))
    with caplog.at_level(logging.WARNING):
        found = [policy.predict(observation()) for _ in range(2)]
    assert policy.path.stages.without_graphs and len(caplog.records) == 1
    assert "too little memory for CUDA graphs" in caplog.text
    for one in found:
        assert np.allclose(one.action, expected.action, atol=1e-5)
        assert np.array_equal(one.autoregressive, expected.autoregressive) and one.fused == expected.fused


def test_where_graphs_are_on_it_is_refused_in_one_sentence(folder):
    policy = Policy.from_checkpoint(folder)
    policy.path.stages = GraphStages(Full(1), required=True)
    with pytest.raises(DeviceError, match="too little memory for CUDA graphs, and graphs is on; set graphs to auto or off"):
        policy.predict(observation())


def test_another_failure_of_a_capture_stays_one(folder):
    class Broken(RecordedBackend):
        def capture(self, call):
            raise RuntimeError("operation not permitted when stream is capturing")

    policy = Policy.from_checkpoint(folder)
    policy.path.stages = GraphStages(Broken())
    with pytest.raises(RuntimeError, match="not permitted"):
        policy.predict(observation())
