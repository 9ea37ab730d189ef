"""Which images are used: those nearest to the due times, over the whole recording, even when the camera is a little fast."""
from __future__ import annotations

import numpy as np
import pytest

from hybridvla_ros.replay.pace import Pace


def taken(rate, period, jitter=0.0, count=20000):
    """Return the stamps, s, of the images used from a camera with a rate, Hz; images arrive 20 ms after their stamp."""
    stamps = np.arange(count) / rate + np.random.default_rng(1).uniform(-jitter, jitter, count)
    pace, found = Pace(period, 1.0 / rate), []
    for stamp in stamps:
        if pace.looks(stamp + 0.02) and pace.takes(stamp):
            pace.took(stamp + 0.02, stamp)
            found.append(stamp)
    return np.diff(found) / period


@pytest.mark.parametrize("rate, jitter", [
    (30.01, 0.0), (30.01, 0.006), (30.0, 0.006), (29.99, 0.006), (30.3, 0.006), (31.5, 0.0)])
def test_of_a_camera_about_as_fast_as_the_actions_every_image_is_taken(rate, jitter):
    apart = taken(rate, 1.0 / 30.0, jitter)
    assert len(apart) == 19999 and apart.max() < 1.5


@pytest.mark.parametrize("rate, period, longest", [
    (30.0, 0.05, 1.34), (29.0, 0.05, 1.4), (30.01, 0.1, 1.01), (60.1, 0.05, 1.01), (25.0, 0.1, 1.21), (100.0, 1.0 / 30.0, 1.21),
    (15.01, 0.1, 1.34), (36.0, 1.0 / 30.0, 1.68)])
def test_of_a_faster_camera_the_rows_are_an_action_apart_on_the_average(rate, period, longest):
    apart = taken(rate, period)
    assert apart.mean() == pytest.approx(1.0, abs=0.01) and apart.max() < longest


def test_a_camera_that_began_anew_and_one_that_was_silent_are_taken_up_again_at_once():
    pace = Pace(0.1, 0.1)
    for now, stamp, wanted in ((1.0, 100.0, True), (1.1, 100.1, True), (1.2, 100.1, False), (1.3, 7.0, True), (1.4, 7.1, True),
                               (5.0, 10.7, True), (5.04, 10.74, False), (5.1, 10.8, True)):
        assert (pace.looks(now) and pace.takes(stamp)) is wanted, now
        if wanted:
            pace.took(now, stamp)
    assert not Pace(None, 0.1).looks(1.0) and Pace(0.0, 0.1).looks(1.0)
