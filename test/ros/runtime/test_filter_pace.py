"""The filter's rate: never sooner than a period, except for a tick brought forward at rest; never catching up."""
from __future__ import annotations

import threading

import numpy as np
import pytest

from hybridvla_ros.runtime import pacing

PERIOD = 0.005


class Clock:
    """A stand-in for `time`: sleeping takes exactly as long as requested."""

    def __init__(self):
        self.now, self.calls = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Bell:
    """A bell that rings at given times, in order."""

    def __init__(self, clock, moments):
        self.clock, self.moments, self.rung = clock, list(moments), False

    def ring(self):
        self.rung = True

    def silence(self):
        self.rung = False

    def wait(self, seconds):
        end = self.clock.now + max(0.0, seconds)
        if not self.rung and self.moments and self.moments[0] <= end:
            self.clock.now = max(self.clock.now, self.moments.pop(0))
            self.rung = True
        if not self.rung:
            self.clock.now = end
        return self.rung


@pytest.fixture
def run(monkeypatch):
    def begins(moments=(), ticks=20, work=lambda tick: 0.001):
        clock = Clock()
        monkeypatch.setattr(pacing, "time", clock)
        pace = pacing.Pace(1.0 / PERIOD)
        pace._bell = Bell(clock, [100.0 + moment for moment in moments])
        times = []
        for tick in range(ticks):
            times.append(pace.tick() - 100.0)
            pace.calm()
            clock.now += work(tick)
            pace.wait()
        return np.array(times), pace
    return begins


def test_the_rate_is_even_without_anything_in_between(run):
    times, pace = run()
    assert np.allclose(np.diff(times), PERIOD) and not pace.early


def test_what_comes_at_rest_is_answered_at_once_and_the_rate_goes_on_from_there(run):
    times, pace = run([0.0135])
    assert np.allclose(times[:4], [0.0, 0.005, 0.010, 0.0135]) and pace.early == 1
    assert np.allclose(np.diff(times[3:]), PERIOD)


def test_an_early_tick_keeps_half_a_period_and_never_follows_another(run):
    times, _ = run([0.0112])
    assert times[3] == pytest.approx(0.0125)
    flood, pace = run(np.arange(0.0, 0.2, 0.001), ticks=40)
    gaps = np.diff(flood)
    assert gaps.min() > 0.49 * PERIOD and pace.early
    assert (gaps[1:] + gaps[:-1]).min() > 1.45 * PERIOD, "every other tick at the most comes early"


def test_what_the_tick_itself_has_taken_up_brings_no_other_tick_forward(run, monkeypatch):
    times, pace = run()
    pace.hurry()
    pace.calm()
    before = pacing.time.monotonic()
    pace.tick()
    pace.wait()
    assert pacing.time.monotonic() - before == pytest.approx(PERIOD, rel=0.03) and not pace.early


def test_missed_ticks_are_not_made_up(run):
    times, pace = run(work=lambda tick: 0.050 if tick == 5 else 0.001)
    gaps = np.diff(times)
    assert gaps.max() == pytest.approx(0.050 + PERIOD) and (gaps > 0.97 * PERIOD).all() and pace.overruns == 1


def test_a_tick_that_was_held_up_for_long_is_no_reason_for_more_silence(run):
    times, _ = run(work=lambda tick: 60.0 if tick == 5 else 0.001)
    assert np.diff(times).max() == pytest.approx(60.0 + PERIOD)


def test_ticks_that_lower_the_rate_count_as_late(run):
    _, pace = run(work=lambda tick: 0.0045, ticks=20)
    assert pace.overruns >= 18


@pytest.mark.parametrize("work", [0.0045, 0.005, 0.009, 0.020])
def test_ticks_that_fill_their_period_leave_time_for_what_the_arms_say(run, work):
    times, _ = run(work=lambda tick: work)
    assert (np.diff(times) >= 1.249 * work).all(), "the lock is free for a fifth of the time"
    flooded, pace = run(np.arange(0.0, 0.2, 0.001), work=lambda tick: work)
    assert (np.diff(flooded) >= 1.249 * work).all(), "also where the next tick is asked for sooner"


def test_the_bell_wakes_another_thread_and_is_rung_once_until_silenced():
    bell = pacing.Bell()
    assert not bell.wait(0.0)
    ringer = threading.Timer(0.05, bell.ring)
    ringer.start()
    assert bell.wait(30.0)
    ringer.join()
    for _ in range(100_000):      # more than a pipe holds
        bell.ring()
    bell.silence()
    assert not bell.wait(0.0)
    bell.silence()
    bell.ring()
    assert bell.wait(0.0)
