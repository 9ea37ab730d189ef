"""`hybridvla dataset from-bags` for rows that make chunks: an action apart whatever the rate of the camera, or none and why."""
from __future__ import annotations

import numpy as np
import pytest
import replay_bag
from replay_bag import BEGIN
from test_dataset_from_bags import add, policy_file, run_verb, statuses

from hybridvla.msg import SafetyStatus


@pytest.fixture
def result(tmp_path):
    """Runs the verb and returns (exit status, summary, data set or None)."""
    return lambda *bags, **more: run_verb(tmp_path, *bags, **more)


def filmed(*parts, length=6.0):
    """Return the usual motion, filmed at successive rates (Hz, until s)."""
    motion, now, number = replay_bag.Motion(length), 0.005, 0
    pictures, motion.images = [data for _, data in motion.images], []
    for rate, until in parts:
        while now < until:
            motion.images.append((BEGIN + now, pictures[number % 4]))
            now, number = now + 1.0 / rate, number + 1
    return motion


def reasons(summary):
    return [entry["reason"] for entry in summary["flagged"] if not entry["kept"]]


@pytest.mark.parametrize("rate, shortest, longest", [
    (10.003, 0.99, 1.01), (10.5, 0.95, 0.96), (9.7, 1.03, 1.04), (30.01, 0.99, 1.01), (14.0, 0.71, 1.43)])
def test_rows_follow_each_other_whatever_the_rate_of_the_camera(result, tmp_path, rate, shortest, longest):
    policy = policy_file(tmp_path, action_period_s=0.1)
    status, summary, data = result(replay_bag.write(tmp_path / "a.bag", filmed((rate, 6.0))), policy=policy)
    assert status == 0 and not reasons(summary)
    # Until 1.5 s the arm swings by 0.4 rad: the angle between two rows gives the time between them.
    angles = np.arctan2(data.rows(0).state[:, 1], data.rows(0).state[:, 0])
    periods = np.diff(angles[angles < 0.35][:12]) / 0.4 * 1.5 / 0.1
    assert len(periods) >= 9 and shortest - 0.02 < periods.min() and periods.max() < longest + 0.02
    assert abs(len(data) - 59.0 * min(1.0 / np.mean([shortest, longest]), 1.1)) < 4


@pytest.mark.parametrize("parts, words", [
    ([(15.0, 6.0)], "the images of camera front come every 0.0667 s, and an action takes 0.05 s: chunks of its rows would lack"),
    ([(8.0, 6.0)], "action_period_s of 0.125 or more"),
    ([(30.0, 3.0), (14.0, 6.0)], "its usable images come every 0.058")])        # in the dark the camera exposes for longer
def test_a_camera_slower_than_the_actions_is_refused_with_what_to_do(result, tmp_path, capsys, parts, words):
    bag = replay_bag.write(tmp_path / "a.bag", filmed(*parts))
    assert result(bag, policy=policy_file(tmp_path, action_period_s=0.05))[0] == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("options", [(), ("--everything",)])
def test_where_nobody_was_followed_for_a_moment_the_images_are_not_blamed(result, tmp_path, capsys, options):
    motion = filmed((10.0, 6.0))
    bag = replay_bag.write(tmp_path / "a.bag", motion)
    active, idle = (statuses(motion, state=state) for state in (SafetyStatus.ACTIVE, SafetyStatus.INACTIVE))
    add(bag, "/hybridvla/safety/status", [(when, off if 2.0 < when < 2.6 else on)
                                          for (when, on), (_, off) in zip(active, idle)])
    ended = result(bag, policy=policy_file(tmp_path, action_period_s=0.1, delta_base="measured"), options=options)[0]
    said = capsys.readouterr().err
    assert ended == (0 if options else 1) and "no usable images" not in said
    assert ("the filter followed nobody for a while, from 2.00 s to 2.70 s" in said) == (not options)


@pytest.mark.parametrize("idle, options, status", [
    ((4.6, 5.0), ("--keyframes",), 1), ((4.6, 5.0), (), 0), ((4.6, 5.0), ("--keyframes", "--everything"), 0),
    ((7.7, 9.9), ("--keyframes",), 0)])       # behind the last row
def test_keyframes_on_both_sides_of_a_stretch_in_which_nobody_was_followed_make_no_chunk(result, tmp_path, capsys, idle, options,
                                                                                         status):
    motion = replay_bag.Motion(10.0)
    bag = replay_bag.write(tmp_path / "a.bag", motion)
    on, off = (statuses(motion, state=state) for state in (SafetyStatus.ACTIVE, SafetyStatus.INACTIVE))
    add(bag, "/hybridvla/safety/status", [(when, there if idle[0] < when < idle[1] else here)
                                          for (when, here), (_, there) in zip(on, off)])
    ended, _, data = result(bag, options=options)
    assert ended == status and (data is None) == bool(status)
    assert ("the filter followed nobody for a while, from 4.6 s to 5.0 s, so the keyframes" in capsys.readouterr().err) == \
        bool(status)
