"""How the filter's node handles messages, without a graph: who sent them, and which cannot be read."""
from __future__ import annotations

import dataclasses
import threading

import pytest
from safety_rig import Rig
from std_msgs.msg import Bool

from hybridvla_core.safety.status import Reason, State
from hybridvla_ros import safety_node
from hybridvla_ros.messages import conversions
from hybridvla_ros.safety_node import SafetyNode


def node_of(rig):
    """Return a node around the rig's filter, without topics."""
    node = SafetyNode.__new__(SafetyNode)
    node.filter, node._lock, node.config = rig.filter, threading.Lock(), rig.config
    return node


def sent(message, sender):
    """Return the message as rospy hands it over."""
    message._connection_header = {"callerid": sender}
    return message


@pytest.fixture
def clock(monkeypatch):
    """Return a function `clock(rig)` that makes the rig's clock the node's monotonic clock."""
    monkeypatch.setattr(safety_node.rospy, "logwarn_throttle", lambda *_: None)      # throttling needs a ROS clock

    def of(rig):
        monkeypatch.setattr(safety_node.time, "monotonic", lambda: rig.now)
    return of


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


def unknown_kind(message):
    message.kind = 9


def unknown_base(message):
    message.targets[0].delta_base = 9


@pytest.mark.parametrize("spoil", [unknown_kind, unknown_base])
def test_a_proposal_that_cannot_be_read_is_one_that_makes_no_sense(clock, spoil):
    rig = Rig(change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
    clock(rig)
    node = node_of(rig)
    rig.propose([0.45, 0.0, 0.4])
    rig.tick(40)
    assert rig.filter.state == State.ACTIVE
    message = conversions.proposal_message(rig.proposal([0.45, 0.1, 0.4]))
    spoil(message)
    node._on_proposal(sent(message, ""))
    status = rig.tick(2).status
    assert rig.filter.counters["rejected/proposal_invalid"] == 1
    assert status.state == State.HOLDING and status.reasons & Reason.PROPOSAL_INVALID
    assert "cannot be read" in status.message and "9" in status.message


def test_what_cannot_be_read_from_a_second_publisher_is_a_second_publishers(clock):
    rig = Rig(change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
    clock(rig)
    node = node_of(rig)
    rig.propose([0.45, 0.0, 0.4])
    rig.tick(20)
    message = conversions.proposal_message(rig.proposal([0.45, 0.1, 0.4]))
    unknown_kind(message)
    node._on_proposal(sent(message, "/other"))
    status = rig.tick(2).status
    assert status.reasons & Reason.SECOND_PUBLISHER and not status.reasons & Reason.PROPOSAL_INVALID


@pytest.mark.parametrize("given, dry", [(False, False), (True, True), ("no", True), ("", True), (0, True), ("None", True),
                                        (None, True)])
def test_anything_but_a_clear_false_is_a_dry_run(monkeypatch, given, dry):
    seen = []

    class Node:
        def __init__(self, _config, dry_run, _scheduler):
            seen.append(dry_run)
            self.filter = Rig("sim_fr3").filter

        def spin(self):
            """Do nothing."""
    monkeypatch.setattr(safety_node, "SafetyNode", Node)
    told = {"~robot_config": "config/robots/sim_fr3.yaml", **({} if given is None else {"~dry_run": given})}
    monkeypatch.setattr(safety_node.rospy, "get_param", lambda name, default=None: told.get(name, default))
    safety_node.main()
    assert seen == [dry]
