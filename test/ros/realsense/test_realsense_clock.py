"""Stamps of RealSense frames: host time where it is credible, hardware time aligned by its fastest transfers."""
from __future__ import annotations

import numpy as np
import pytest

from hybridvla_ros.realsense.clock import FrameClock

pytestmark = pytest.mark.robot_computer


def test_host_times_are_taken_as_they_are_and_impossible_ones_are_not_believed():
    clock = FrameClock(max_lag_s=0.3)
    assert clock.stamp_ns(100_000.0, "global_time", 100_010_000_000) == 100_000_000_000
    assert clock.stamp_ns(100_033.0, "system_time", 100_043_000_000) == 100_033_000_000
    for wrong_ms in (101_066.0, 99_066.0):  # a second off in either direction
        stamp = clock.stamp_ns(wrong_ms, "global_time", 100_076_000_000)
        assert abs(stamp - 100_076_000_000) < 2_000_000
    assert clock.corrected == 2


def test_a_hardware_clock_is_placed_by_its_fastest_transfers_follows_drift_and_survives_its_wrap():
    random, clock = np.random.default_rng(1), FrameClock(max_lag_s=0.3)
    wrap_ms, errors = 2 ** 32 / 1000.0, []
    for index in range(3000):
        true = 1000.0 + index / 30.0
        hardware_ms = (4_290_000.0 + index / 30.0 * 1000.0 * (1 + 50e-6)) % wrap_ms  # 50 ppm fast, wraps after 5 s
        arrival = true + 0.004 + random.exponential(0.004)
        stamp = clock.stamp_ns(hardware_ms, "hardware_clock", int(arrival * 1e9))
        errors.append(stamp * 1e-9 - true)
    settled = np.array(errors[400:])  # the wrap restarts the window
    assert settled.min() > 0.0035 and settled.max() < 0.0065 and clock.corrected == 0


def test_stamps_never_go_back_but_follow_a_clock_that_was_set():
    clock = FrameClock(max_lag_s=0.3)
    first = clock.stamp_ns(100_000.0, "global_time", 100_010_000_000)
    assert clock.stamp_ns(99_990.0, "global_time", 100_020_000_000) == first + 1
    assert clock.stamp_ns(50_000.0, "global_time", 50_010_000_000) == 50_000_000_000


@pytest.mark.parametrize("domain", ["global_time", "system_time"])
def test_a_frame_that_a_stalled_bus_held_back_stays_old(domain):
    clock = FrameClock(max_lag_s=0.3)
    for index in range(60):
        clock.stamp_ns(100_000.0 + 33.0 * index, domain, int((100.020 + 0.033 * index) * 1e9))
    exposed = 102.0
    for lag in (0.60, 0.57, 0.53, 0.50):
        stamp = clock.stamp_ns(1e3 * exposed, domain, int((exposed + lag) * 1e9))
        assert stamp * 1e-9 - exposed == pytest.approx(0.02, abs=0.005)
        exposed += 0.033
