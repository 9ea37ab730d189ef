"""What the filter's node makes of messages, without a graph: who sent them, and those that cannot be read."""
from __future__ import annotations

import dataclasses
import threading
import time

import pytest
from safety_rig import Rig
from std_msgs.msg import Bool

from hybridvla_core.safety.status import Reason
from hybridvla_ros import safety_node
from hybridvla_ros.safety_node import SafetyNode


def node_of(rig):
    """A node around the rig's filter, without topics."""
    node = SafetyNode.__new__(SafetyNode)
    node.filter, node._lock, node.config = rig.filter, threading.Lock(), rig.config
    return node


def sent(message, sender):
    """The message as rospy hands it over."""
    message._connection_header = {"callerid": sender}
    return message


@pytest.fixture
def clock(monkeypatch):
    """The node's monotonic clock is the rig's: `clock(rig)`."""
    def of(rig):
        monkeypatch.setattr(safety_node.time, "monotonic", lambda: rig.now)
    yield of
    monkeypatch.undo()
    assert time.monotonic() > 0.0


def test_the_senders_of_the_deadman_are_told_apart(clock):
    rig = Rig(change=lambda config: dataclasses.replace(config, deadman_required=True))
    clock(rig)
    node = node_of(rig)
    rig.tick(3)
    node._on_deadman(sent(Bool(False), "/pedal"))
    node._on_deadman(sent(Bool(True), "/stray"))
    assert rig.filter.deadman_missing(rig.now)
    status = rig.tick(15).status
    assert status.reasons & Reason.DEADMAN and "/pedal" in status.message and "/stray" in status.message
