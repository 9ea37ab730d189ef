"""Sync and health of camera streams: cameras that are late, lost, swapped or off by a second are each named."""
from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from hybridvla_core.policy.cameras import CameraSource
from hybridvla_ros.observation.camera_health import CameraHealth
from hybridvla_ros.observation.camera_identity import CameraIdentity, same_serial
from hybridvla_ros.observation.camera_sync import CameraSync

PERIOD = 1.0 / 30.0


def ns(seconds):
    return int(round(seconds * 1e9))


def feed(sync, view, start, count, offset=0.0, arrive=True, period=PERIOD, first=0):
    """Feed frames of `view` at 30 Hz. offset: error of its stamps, s."""
    for index in range(first, first + count):
        moment = start + index * period
        sync.add(view, ns(moment + offset), f"{view} {index}", index, ns(moment + 0.005) if arrive else None)
    return start + (first + count - 1) * period


@pytest.fixture
def sync():
    return CameraSync(("front", "wrist"), max_spread=0.025, max_age=0.5)


def test_a_camera_whose_stamps_are_a_second_off_is_named_as_that_and_not_as_silent(sync):
    now = feed(sync, "front", 100.0, 30)
    feed(sync, "wrist", 100.0, 30, offset=-1.0)
    found, problem = sync.latest(now + 0.01)
    assert found is None and "camera wrist: frames arrive" in problem and "1.0 s behind" in problem
    assert sync.health["wrist"].lag_s == pytest.approx(1.005) and sync.health["front"].lag_s == pytest.approx(0.005)
    ahead = CameraSync(("front", "wrist"), max_spread=0.025, max_age=0.5)
    feed(ahead, "front", 100.0, 30)
    feed(ahead, "wrist", 100.0, 30, offset=1.0)
    assert "camera wrist: its stamps are 1.0 s ahead" in ahead.latest(now + 0.01)[1]


def test_a_silent_camera_is_named_with_its_silence_and_taken_again_when_it_is_back(sync):
    now = feed(sync, "front", 100.0, 60)
    feed(sync, "wrist", 100.0, 30)
    found, problem = sync.latest(now)
    assert found is None and "camera wrist: no frame for 1.0 s" in problem
    back = feed(sync, "front", now + PERIOD, 30)
    feed(sync, "wrist", now + PERIOD, 30)
    assert sync.latest(back)[0] is not None
    assert sync.health["wrist"].outages == 1 and sync.health["front"].outages == 0


def test_after_a_stall_of_30_s_the_late_burst_of_old_frames_is_not_used(sync):
    """The frames that a stalled bus held back arrive at once, with old stamps."""
    feed(sync, "front", 100.0, 30)
    feed(sync, "wrist", 100.0, 30)
    now = feed(sync, "front", 101.0, 900)
    assert "camera wrist: no frame for 30.0 s" in sync.latest(now)[1]
    for index in range(10):
        sync.add("wrist", ns(101.0 + index * PERIOD), "old", 30 + index, ns(now))
    found, problem = sync.latest(now)
    assert found is None and "camera wrist" in problem and "behind this computer's clock" in problem
    sync.add("wrist", ns(now), "new", 40, ns(now + 0.005))
    found, _ = sync.latest(now + 0.01)
    assert found.messages["wrist"] == "new"
    assert sync.health["wrist"].longest_gap_s > 29.0 and sync.health["wrist"].dropped > 800


def test_frames_without_a_stamp_are_named(sync):
    now = feed(sync, "front", 100.0, 3)
    sync.add("wrist", 0, "unstamped", 1, ns(now))
    assert "camera wrist: its frames carry no stamp" in sync.latest(now)[1]
    assert sync.health["wrist"].unstamped == 1


def test_three_free_running_cameras_pair_within_the_spread_wherever_their_phases_lie():
    """With two cameras half a period to either side of a third, the nearest frames of both may be a period apart."""
    random = np.random.default_rng(4)
    for _ in range(200):
        sync = CameraSync(("a", "b", "c"), max_spread=0.024, max_age=0.5)
        phases = random.uniform(0.0, PERIOD, 3)
        for view, phase in zip(sync.views, phases):
            now = feed(sync, view, 100.0 + phase, 10)
        found, problem = sync.latest(now + PERIOD)
        circle = np.sort(phases)
        widest = max(np.diff(np.append(circle, circle[0] + PERIOD)))
        possible = PERIOD - widest  # the smallest arc that contains all three phases is the circle without its widest gap
        if possible <= 0.024:
            assert found is not None and found.spread <= 0.024, (phases, problem)
        else:
            assert found is None and "apart" in problem and "behind camera" in problem


def test_the_tighter_set_is_not_older_than_the_bound():
    sync = CameraSync(("a", "b"), max_spread=0.01, max_age=0.1)
    for stamp, view in ((100.0, "a"), (100.0, "b"), (100.15, "a"), (100.12, "b")):
        sync.add(view, ns(stamp), stamp)
    found, problem = sync.latest(100.16)
    assert found is None and "0.030 s apart" in problem


def test_waiting_ends_with_the_next_frame(sync):
    assert not sync.wait(0.01)
    timer = threading.Timer(0.05, lambda: sync.add("front", 1, "x"))
    timer.start()
    assert sync.wait(20.0)
    timer.join()


def test_what_came_while_one_looked_is_not_waited_past(sync):
    news = sync.news
    sync.add("front", 1, "x")
    assert sync.wait(20.0, news)
    news = sync.news
    sync.wake()
    assert sync.wait(20.0, news)
    assert not sync.wait(0.01, sync.news)


# Health ------------------------------------------------------------------------------------------------------------

def test_frames_the_driver_dropped_and_messages_the_network_lost_are_counted_apart():
    health = CameraHealth()
    sequence = 0
    for index in range(60):
        sequence += 1
        if index in (20, 21, 40):
            continue  # never reached us: sequence and stamp both jump
        if index >= 50:
            sequence = index - 2  # the driver's own loss leaves no trace in the sequence
        if index in (52, 53):
            continue
        health.add(ns(100.0 + index * PERIOD), sequence)
    assert health.dropped == 5 and health.lost == 3 + 2
    assert health.values()["rate_hz"] == pytest.approx(30.0, abs=0.1)
    assert math.isnan(health.lag_s) and health.silent_s(1.0) == math.inf


def test_a_restarted_driver_and_a_repeated_frame_are_no_loss():
    health = CameraHealth()
    for sequence, stamp in ((5000, 100.0), (5001, 100.03), (1, 100.06), (2, 100.06), (3, 99.0), (4, 99.03)):
        health.add(ns(stamp), sequence)
    assert (health.lost, health.duplicates, health.went_back) == (0, 1, 1)


def test_a_camera_at_half_its_rate_for_good_is_no_loss_for_ever():
    """Automatic exposure halves the rate in the dark: that is a rate to report, not endless drops."""
    health = CameraHealth()
    for index in range(30):
        health.add(ns(100.0 + index * PERIOD), index)
    for index in range(60):
        health.add(ns(101.0 + index * 2 * PERIOD), 30 + index)
    assert health.values()["rate_hz"] == pytest.approx(15.0, abs=0.1) and health.dropped < 20


# Identity ----------------------------------------------------------------------------------------------------------

RIGHT = CameraSource("right", "/r", serial="AY3794301S8", serial_parameter="/camera_r/camera/serial_number")
LEFT = CameraSource("left", "/l", serial="AY37943012K", serial_parameter="/camera_l/camera/serial_number")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_two_swapped_cameras_are_named_both():
    told = {RIGHT.serial_parameter: LEFT.serial, LEFT.serial_parameter: RIGHT.serial}
    clock = Clock()
    identity = CameraIdentity((RIGHT, LEFT), told.get, clock)
    assert "camera right: its driver does not say its serial number" in identity.problem()
    identity.poll()
    problem = identity.problem()
    assert "camera right" in problem and "AY37943012K, which belongs to camera left: the two are exchanged" in problem
    told.update({RIGHT.serial_parameter: RIGHT.serial, LEFT.serial_parameter: LEFT.serial})
    identity.poll()
    assert identity.problem(), "a parameter is not read more than once a second"
    clock.now = 1.5
    identity.poll()
    assert identity.problem() == ""


def test_a_driver_that_states_its_number_in_its_diagnostics_is_heard():
    camera = CameraSource("front", "/f", serial="123", serial_diagnostics="camera_front/realsense2_camera_manager")
    identity = CameraIdentity((camera, CameraSource("wrist", "/w")), {}.get)
    assert identity.wants_diagnostics

    def say(name, serial):
        identity.on_diagnostics(DiagnosticArray(status=[DiagnosticStatus(name=name, hardware_id=serial)]))

    say("camera_wrist/realsense2_camera_manager_color: Frequency Status", "999")
    assert "does not say" in identity.problem()
    say("/camera_front/realsense2_camera_manager_color: Frequency Status", "999")
    assert "serial number 999" in identity.problem()
    say("camera_front/realsense2_camera_manager_color: Frequency Status", "123")
    assert identity.problem() == ""


@pytest.mark.parametrize("name, serial", [
    ("realsense_camera_node: camera_front", "123"), ("robot1/realsense_camera_node: camera_front", "123"),
    ("/robot1/realsense_camera_node: camera_front", "123"), ("realsense_camera_node: camera", None),
    ("realsense_camera_node: camera_front_2", None), ("my_realsense_camera_node: camera_front", None)])
def test_a_camera_node_in_a_namespace_fits_and_a_longer_name_is_another_camera(name, serial):
    identity = CameraIdentity((CameraSource("front", "/robot1/camera_front/color/image_raw", serial="123",
                                            serial_diagnostics="realsense_camera_node: camera_front"),), {}.get)
    identity.on_diagnostics(DiagnosticArray(status=[DiagnosticStatus(name=name, hardware_id="123")]))
    assert (identity.problem() == "") is (serial is not None)


def test_of_two_namespaces_the_one_of_the_cameras_topic_is_meant():
    identity = CameraIdentity((CameraSource("front", "/robot1/camera_front/color/image_raw", serial="123",
                                            serial_diagnostics="realsense_camera_node: camera_front"),), {}.get)
    entries = [DiagnosticStatus(name=f"/robot{number}/realsense_camera_node: camera_front", hardware_id=serial)
               for number, serial in ((1, "123"), (2, "999"))]
    for order in (entries, entries[::-1]):
        identity.on_diagnostics(DiagnosticArray(status=order))
        assert identity.problem() == ""


@pytest.mark.parametrize("first, second, same", [
    ("0123", "123", True), ("_f0221", "F0221", True), (" 12 ", "12", True), ("12", "21", False), ("", "12", False)])
def test_what_parameters_do_to_serial_numbers_is_forgiven(first, second, same):
    assert same_serial(first, second) is same


def test_without_serial_numbers_nothing_is_asked():
    identity = CameraIdentity((CameraSource("front", "/f"),), pytest.fail)
    identity.poll()
    assert identity.problem() == "" and not identity.wants_diagnostics


def test_a_camera_that_comes_again_must_state_its_number_anew():
    told, clock = {LEFT.serial_parameter: LEFT.serial}, Clock()
    identity = CameraIdentity((LEFT,), told.get, clock)
    identity.poll()
    assert identity.problem() == ""
    told[LEFT.serial_parameter] = "another"
    identity.poll()
    assert identity.problem() == "", "a number that fits is read again now and then"
    identity.forget("left")
    assert "does not say its serial number" in identity.problem()
    identity.poll()
    assert "serial number another" in identity.problem()
