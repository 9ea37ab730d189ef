"""A tick is not older than inputs delivered before it: a dead-man message from the future would hold the arm."""
from __future__ import annotations

import dataclasses
import threading
import time
from types import SimpleNamespace

import rospy
from safety_rig import ROBOTS

from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.status import Reason
from hybridvla_ros.runtime.pacing import Pace
from hybridvla_ros.safety_node import SafetyNode


class BusyLock:
    """A lock that somebody else always gets first: the dead-man's message arrives while the tick waits."""

    def __init__(self, word):
        self._lock, self._word = threading.Lock(), word

    def __enter__(self):
        time.sleep(0.002)
        self._word()
        return self._lock.__enter__()

    def __exit__(self, *error):
        return self._lock.__exit__(*error)


def test_a_word_that_arrives_while_a_tick_waits_for_the_lock_counts(monkeypatch):
    monkeypatch.setattr(rospy.Time, "now", staticmethod(lambda: SimpleNamespace(to_sec=time.time)))
    config = dataclasses.replace(load_robot(ROBOTS / "sim_fr3.yaml"), deadman_required=True)
    node = SafetyNode.__new__(SafetyNode)
    node.filter, node._pace = SafetyFilter(config), Pace(config.tick_hz)
    node._pace.begin()
    node._lock = BusyLock(lambda: node.filter.on_deadman(True, time.monotonic()))
    for _ in range(5):
        output, _stamp = node.tick()
        assert not output.status.reasons & Reason.DEADMAN
