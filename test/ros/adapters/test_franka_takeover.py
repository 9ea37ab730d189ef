"""Leading an FR3 by hand, without a graph: when the arm becomes stiff, and when it stays soft."""
from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import rospy
from franka_bench import Arm

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_ros.adapters.franka import takeover
from hybridvla_ros.adapters.franka.takeover import Takeover
from hybridvla_ros.filter_handle import MEANWHILE, Deactivated
from hybridvla_ros.runtime.workers import FAULTS


class Free:
    """A filter that never interferes, unless `forbidden` says so."""

    forbidden = ""

    def deactivate(self):
        return Deactivated("", 1, False)

    def forbids(self, _since):
        return self.forbidden


@pytest.fixture
def hand(monkeypatch):
    """Yield an arm that a hand leads, in real time: `hand.takeover`, `hand.arm`, `hand.safety`."""
    monkeypatch.setattr(rospy.Time, "now", staticmethod(lambda: rospy.Time(1)))
    monkeypatch.setattr(takeover, "SETTLE_S", 0.3)
    arm, safety = Arm(load_robot(ROOT / "config" / "robots" / "fr3.yaml"), time.monotonic), Free()
    person = SimpleNamespace(arm=arm, safety=safety, takeover=Takeover(arm, safety, lambda what: arm.alone(what, lambda: "")))
    assert "soft" in person.takeover.take() and arm.driver.calls == ["soft"]
    until(lambda: arm.leading and arm.poses.sent)
    arm.driver.calls.clear()
    yield person
    person.takeover._led.clear()
    until(lambda: not arm.leading)


def until(condition):
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_arm_whose_states_come_becomes_stiff(hand):
    assert "holds where it is" in hand.takeover.give_back()
    assert hand.arm.driver.calls == ["stiff"] and not hand.arm.leading


def test_an_arm_whose_place_is_not_known_stays_soft_until_it_is(hand):
    hand.arm.speaks = False
    time.sleep(0.1)
    count = len(hand.arm.poses.sent)
    time.sleep(0.1)
    assert len(hand.arm.poses.sent) == count, "an old pose is not said again"
    with pytest.raises(HybridVLAError, match="nothing on .* stays soft"):
        hand.takeover.give_back()
    assert hand.arm.driver.calls == [] and hand.arm.leading
    hand.arm.speaks = True
    assert hand.takeover.give_back() and hand.arm.driver.calls == ["stiff"]


def test_an_arm_that_falls_silent_while_its_turn_is_waited_for_stays_soft(hand):
    hand.arm.hands_off.acquire()
    waiting = threading.Timer(0.2, lambda: (setattr(hand.arm, "speaks", False), hand.arm.hands_off.release()))
    waiting.start()
    with pytest.raises(HybridVLAError, match="stays soft"):
        hand.takeover.give_back()
    assert hand.arm.driver.calls == []


def test_an_arm_that_falls_silent_while_it_becomes_stiff_is_made_soft_again(hand):
    hand.arm.driver.do["stiff"] = lambda: setattr(hand.arm, "speaks", False)
    with pytest.raises(HybridVLAError, match="stays soft"):
        hand.takeover.give_back()
    assert hand.arm.driver.calls == ["stiff", "soft"] and hand.arm.leading


def test_an_arm_that_nothing_follows_any_more_stays_soft(hand):
    hand.arm.state.O_T_EE = None            # the following thread fails on it
    until(lambda: not hand.takeover._followed)
    for call in (hand.takeover.give_back, hand.takeover.take):
        with pytest.raises(HybridVLAError, match="does not follow the arm any more"):
            call()
    assert hand.arm.driver.calls == []
    until(lambda: FAULTS.problem)
    FAULTS.clear("following the hand that leads the arm")


def test_a_stop_while_the_arms_turn_is_waited_for_leaves_it_stiff():
    arm, safety = Arm(load_robot(ROOT / "config" / "robots" / "fr3.yaml"), time.monotonic), Free()
    person = Takeover(arm, safety, lambda what: arm.alone(what, lambda: ""))
    arm.hands_off.acquire()
    threading.Timer(0.2, lambda: (setattr(safety, "forbidden", MEANWHILE), arm.hands_off.release())).start()
    with pytest.raises(HybridVLAError, match="stopped meanwhile"):
        person.take()
    assert arm.driver.calls == [] and not arm.leading
