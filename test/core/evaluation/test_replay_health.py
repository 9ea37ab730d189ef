"""Streams of a recording: which died, jumped or changed their names, and when."""
from __future__ import annotations

from hybridvla_core.configuration import load_file
from hybridvla_core.evaluation.replay.health import NameWatch, StreamHealth
from hybridvla_core.evaluation.replay.settings import ReplayConfig
from hybridvla_core.paths import ROOT

RULES = load_file(ReplayConfig, ROOT / "config/replay/thresholds.yaml").streams
NAMES = ("joint1", "joint2")


def stream(times, stamps=None, duration=20.0):
    health = StreamHealth("camera front", 2.0, 2.0, RULES)
    for time, stamp in zip(times, times if stamps is None else stamps):
        health.add(time, 100.0 + stamp)
    health.finish(duration)
    return health.summary()


def ticks(begin, end):
    return [begin + 0.1 * k for k in range(int(round((end - begin) / 0.1)))]


def kinds(summary):
    return [event["kind"] for event in summary["events"]]


def test_a_steady_stream_has_no_events():
    summary = stream(ticks(0.0, 20.0))
    assert not summary["events"] and abs(summary["rate_hz"] - 10.0) < 0.1


def test_a_camera_that_dies_or_pauses_is_named_with_its_time():
    died = stream(ticks(0.0, 12.0))
    assert kinds(died) == ["died"] and abs(died["events"][0]["time_s"] - 11.9) < 0.01
    paused = stream(ticks(0.0, 5.0) + ticks(9.0, 20.0))
    assert kinds(paused) == ["gap"] and "4.90 s to 9.00 s" in paused["events"][0]["text"]
    assert kinds(stream([])) == ["missing"]
    assert kinds(stream(ticks(5.0, 20.0))) == ["gap"]


def test_stamps_that_jump_or_go_back_are_named_with_their_time():
    times = ticks(0.0, 20.0)
    ahead = stream(times, [time + (5.0 if time > 7.0 else 0.0) for time in times])
    assert kinds(ahead) == ["stamps"] and "+5.000 s" in ahead["events"][0]["text"]
    assert abs(ahead["events"][0]["time_s"] - 7.1) < 0.11
    back = stream(times, [time - (0.3 if time > 7.0 else 0.0) for time in times])
    assert kinds(back) == ["stamps"] and "go back" in back["events"][0]["text"]


def test_a_slow_stream_is_named_by_its_rate():
    assert kinds(stream([1.9 * k for k in range(11)])) == ["rate"]


def test_many_events_of_a_kind_are_counted_and_not_listed():
    times = ticks(0.0, 20.0)
    summary = stream(times, [time - 0.3 * (k % 2) for k, time in enumerate(times)])
    assert len(summary["events"]) == 12 and summary["further_events"] > 50


def test_joint_names_that_change_are_named_with_their_time_and_a_grippers_own_messages_are_not():
    health = StreamHealth("joints of arm arm", 1.0, None, RULES)
    watch = NameWatch("arm", NAMES, health)
    for time in ticks(0.0, 5.0):
        assert watch.add(time, NAMES) and not watch.add(time + 0.05, ("finger",))
    assert not health.events
    for time in ticks(5.0, 8.0):
        watch.add(time, ("panda_joint1", "panda_joint2"))
    assert len(health.events) == 1 and health.events[0]["kind"] == "names"
    assert 4.9 < health.events[0]["time_s"] < 5.1 and "panda_joint1" in health.events[0]["text"]
