"""The dead-man switch with more than one publisher: a released one is never outvoted."""
from __future__ import annotations

import dataclasses

import pytest
from safety_rig import Rig

from hybridvla_core.safety.inputs.deadman import Deadman
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer


@pytest.fixture
def rig():
    rig = Rig(change=lambda config: dataclasses.replace(config, deadman_required=True))
    rig.filter.on_deadman(True, rig.now, "/pedal")
    rig.start()
    return rig


def press(rig, ticks, **words):
    """Tick while each publisher sends its value before every tick; the last one named sends last."""
    for _ in range(ticks):
        for name, pressed in words.items():
            rig.filter.on_deadman(pressed, rig.now, f"/{name}")
        rig.tick()
    return rig.output.status


@pytest.mark.parametrize("words", [{"pedal": False, "stray": True}, {"stray": True, "pedal": False}])
def test_a_released_button_is_not_outvoted_by_another_publisher(rig, words):
    rig.propose([0.45, 0.0, 0.4])
    press(rig, 100, pedal=True, stray=True)
    assert rig.filter.state == State.ACTIVE
    status = press(rig, 3, **words)
    assert status.state == State.HOLDING and status.reasons & Reason.DEADMAN
    assert "'/stray' it is held" in status.message and "'/pedal' released" in status.message
    assert rig.filter.deadman_missing(rig.now) and "'/pedal' released" in rig.filter.deadman_problem(rig.now)
    assert rig.filter.deadman_publishers(rig.now) == ["/pedal", "/stray"]


def test_a_word_of_release_counts_while_its_publisher_lives_and_not_for_ever(rig):
    press(rig, 1, pedal=False)
    ticks = int(0.9 / rig.config.dt)
    assert press(rig, ticks, stray=True).reasons & Reason.DEADMAN, "between two words of a slow publisher"
    assert not press(rig, int(0.2 / rig.config.dt), stray=True).reasons & Reason.DEADMAN, "it has ended"
    assert rig.filter.deadman_publishers(rig.now) == ["/stray"]


def test_one_publisher_is_held_and_released_as_it_says(rig):
    assert not press(rig, 3, pedal=True).reasons & Reason.DEADMAN
    status = press(rig, 3, pedal=False)
    assert status.reasons & Reason.DEADMAN and "the deadman is released or silent" in status.message
    assert not press(rig, 3, pedal=True).reasons & Reason.DEADMAN
    rig.tick(int(1.5 * rig.config.watchdogs.deadman_s / rig.config.dt))
    assert rig.output.status.reasons & Reason.DEADMAN, "silent"


def test_activation_names_the_two():
    rig = Rig(change=lambda config: dataclasses.replace(config, deadman_required=True))
    rig.tick(3)
    rig.filter.on_deadman(True, rig.now, "/stray")
    rig.filter.on_deadman(False, rig.now, "/pedal")
    done, text = rig.filter.activate(True, rig.now)
    assert done and "but holding" in text and "/stray" in text and "/pedal" in text


def test_words_of_a_future_count_as_released():
    switch = Deadman(0.2)
    switch.say(True, 10.0, "/pedal")
    assert not switch.held(9.9) and switch.held(10.0) and switch.held(10.2) and not switch.held(10.3)
    switch.say(False, 10.0, "/other")
    assert not switch.held(9.9) and not switch.held(10.0)
    assert switch.publishers(10.5) == ["/other", "/pedal"] and switch.publishers(11.5) == []


def test_a_word_that_waited_while_the_filter_stood_still_does_not_hold_the_button(rig):
    """It was released and its node ended while the filter was suspended; its earlier messages come out of the queue."""
    press(rig, 20, pedal=True)
    rig.now += 2.0
    rig.filter.on_deadman(True, rig.now, "/pedal")
    assert rig.filter.deadman_missing(rig.now)
    for _ in range(20):
        assert press(rig, 1, pedal=True).reasons & Reason.DEADMAN
    assert rig.tick(10).status.reasons & Reason.DEADMAN
    assert not press(rig, 20, pedal=True).reasons & Reason.DEADMAN, "it is there after all"


def test_a_release_that_waited_while_the_filter_stood_still_counts(rig):
    press(rig, 20, pedal=True)
    rig.now += 0.15                 # the last message that it is held is still fresh
    rig.filter.on_deadman(False, rig.now, "/pedal")
    assert rig.tick().status.reasons & Reason.DEADMAN
    assert press(rig, 100, stray=True).reasons & Reason.DEADMAN, "as any other word of release"
