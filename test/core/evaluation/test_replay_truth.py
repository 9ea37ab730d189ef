"""Keyframes from recorded motion: rests, grasps, phases, and what cannot be compared."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Pose
from hybridvla_core.evaluation.replay.evaluator import Evaluator
from hybridvla_core.evaluation.replay.settings import ReplayConfig
from hybridvla_core.evaluation.replay.track import Track
from hybridvla_core.evaluation.replay.truth import RecordedMotion, TruthFinder
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.transforms.normalise import Scale

SETTINGS = load_file(ReplayConfig, ROOT / "config/replay/thresholds.yaml")
CONVENTION = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml").convention
DOWN = np.array([1.0, 0.0, 0.0, 0.0])


def track(points, grips=()):
    """Return a track. points: (time, x) of the corners of a motion along x; grips: (time, opening afterwards)."""
    result = Track("arm", 7)
    times, xs = zip(*points)
    opening = 1.0
    for now in np.arange(times[0], times[-1], 0.01):
        wanted = 1.0
        for when, after in grips:
            wanted = after if now >= when else wanted
        opening += np.clip(wanted - opening, -0.03, 0.03)
        result.add(float(now), Pose(np.array([np.interp(now, times, xs), 0.0, 0.2]), DOWN), float(opening), np.zeros(7))
    result.finish(SETTINGS.motion)
    return result


#: Moves out, grasps there, moves back, releases there.
MOTION = ((0.0, 0.3), (1.0, 0.3), (2.0, 0.5), (4.0, 0.5), (5.0, 0.3), (7.0, 0.3))
GRIPS = ((2.3, 0.55), (5.3, 1.0))


@pytest.fixture
def finder():
    recording = RecordedMotion([track(MOTION, GRIPS)], [(0.0, "do it")])
    return TruthFinder(recording, CONVENTION, SETTINGS.motion)


def test_the_target_is_where_the_arm_comes_to_rest_and_its_gripper_afterwards(finder):
    truth, why = finder.find(1.2)
    assert why == "" and truth.phase == "grasp"
    assert truth.arms[0].pose.position[0] == pytest.approx(0.5, abs=0.01) and truth.arms[0].closed
    assert finder.find(0.2)[0].arms[0].pose.position[0] == pytest.approx(0.5, abs=0.01)


def test_at_rest_before_the_grasp_the_grasp_is_still_to_come_and_after_it_the_next_place(finder):
    here, _ = finder.find(2.15)
    assert here.phase == "grasp" and here.arms[0].pose.position[0] == pytest.approx(0.5, abs=0.01)
    following, _ = finder.find(3.5)
    assert following.phase == "release" and following.arms[0].pose.position[0] == pytest.approx(0.3, abs=0.01)
    assert not following.arms[0].closed


def test_what_cannot_be_compared_says_why(finder):
    assert "gripper is on its way" in finder.find(2.35)[1]
    assert "nothing more" in finder.find(6.5)[1]
    recording = RecordedMotion([track(MOTION, GRIPS)], [(0.0, "do it"), (1.5, "do that")])
    assert "ended before" in TruthFinder(recording, CONVENTION, SETTINGS.motion).find(1.2)[1]
    recording = RecordedMotion([track(MOTION, GRIPS)], [(0.0, "do it")], engaged=[(3.0, 6.0)])
    assert "did not follow" in TruthFinder(recording, CONVENTION, SETTINGS.motion).find(1.2)[1]


def test_nothing_after_the_end_of_an_episode_is_a_target_and_its_last_rest_is_one_however_soon_the_label_came():
    def at(until, stamp):
        return TruthFinder(RecordedMotion([track(MOTION, GRIPS)], [(0.0, "do it")], until=until), CONVENTION,
                           SETTINGS.motion).find(stamp)

    settled, _ = at(2.1, 1.2)       # rests from 2.0 s on; the grasp at 2.3 s is after the episode's end
    assert settled.at == pytest.approx(2.1) and settled.arms[0].pose.position[0] == pytest.approx(0.5, abs=0.01)
    assert not settled.arms[0].closed and at(2.5, 1.2)[0].arms[0].closed
    for until, stamp in ((1.9, 1.2), (4.5, 3.5), (2.2, 2.15)):
        assert at(until, stamp)[0] is None and "ended before" in at(until, stamp)[1]


def test_dense_actions_are_compared_one_period_later():
    from dataclasses import replace

    dense = replace(CONVENTION, action_period_s=0.5)
    truth, _ = TruthFinder(RecordedMotion([track(MOTION)], [(0.0, "do it")]), dense, SETTINGS.motion).find(1.2)
    assert truth.at == pytest.approx(1.7) and truth.arms[0].pose.position[0] == pytest.approx(0.44, abs=0.005)


def test_a_block_that_gives_way_a_little_is_not_let_go():
    wobbling = track(MOTION, ((2.3, 0.55), (3.0, 0.58), (3.2, 0.56)))
    assert [closed for _, _, closed in wobbling.grips] == [True]
    assert wobbling.grips[0][0] == pytest.approx(2.3, abs=0.06)


def test_readings_that_go_back_in_time_are_left_out_and_counted():
    result = Track("arm", 7)
    for when in (0.0, 0.1, 0.05, 0.2):
        result.add(when, Pose(np.zeros(3), DOWN), 1.0, np.zeros(7))
    result.finish(SETTINGS.motion)
    assert result.dropped == 1 and list(result.times) == [0.0, 0.1, 0.2]


def test_a_gripper_that_is_closed_from_the_beginning_counts_as_closed_before_its_first_change():
    """The arm's first readings come before its gripper's, and the sent track contains poses only."""
    measured, sent = Track("arm", 7), Track("arm", 0)
    for number, now in enumerate(np.arange(0.0, 5.0, 0.01)):
        pose = Pose(np.array([0.3 + 0.05 * min(now, 2.0), 0.0, 0.2]), DOWN)
        measured.add(now, pose, np.nan if number < 3 else 0.2 + 0.8 * float(now > 4.0), np.zeros(7))
        sent.add(now, pose, np.nan, np.zeros(0))
    for one in (measured, sent):
        one.finish(SETTINGS.motion)
    assert measured.gripper_known and not sent.gripper_known
    sent.grip_like(measured)
    for one in (measured, sent):
        assert [one.closed(when) for when in (0.0, 2.0, 4.5)] == [True, True, False]
    truth, _ = TruthFinder(RecordedMotion([measured], [(0.0, "do it")]), CONVENTION, SETTINGS.motion).find(0.5)
    assert truth.phase == "carry" and truth.arms[0].closed


def test_keyframes_are_where_a_compliant_arm_was_sent_and_not_where_it_swung(finder):
    sent = track(((0.0, 0.3), (1.0, 0.3), (1.9, 0.5), (4.0, 0.5), (4.9, 0.3), (7.0, 0.3)), GRIPS)
    # Overshoots, stops briefly at each turning point, and rests 2 cm beside its target once it holds the load.
    swung = track(((0.0, 0.3), (1.0, 0.3), (2.0, 0.52), (2.1, 0.52), (2.2, 0.49), (2.4, 0.49), (2.6, 0.48), (4.0, 0.48),
                   (5.0, 0.29), (5.1, 0.29), (5.2, 0.3), (7.0, 0.3)), GRIPS)
    both = TruthFinder(RecordedMotion([swung], [(0.0, "do it")], sent=[sent]), CONVENTION, SETTINGS.motion)
    for stamp, place, closed in ((0.5, 0.5, True), (1.95, 0.5, True), (2.15, 0.5, True), (3.0, 0.3, False), (4.95, 0.3, False)):
        truth, why = both.find(stamp)
        assert why == "" and truth.arms[0].closed is closed, stamp
        assert truth.arms[0].pose.position[0] == pytest.approx(place, abs=1e-6), stamp
    alone = TruthFinder(RecordedMotion([swung], [(0.0, "do it")]), CONVENTION, SETTINGS.motion)
    assert alone.find(0.5)[0].arms[0].pose.position[0] == pytest.approx(0.52, abs=2e-3)     # where it went: only that is known


@pytest.mark.parametrize("rule, tilted", [("zero", False), ("released", True)])
def test_a_little_of_what_the_model_sees_as_zero_puts_no_state_outside_and_another_convention_does(rule, tilted):
    judge = Evaluator.__new__(Evaluator)
    scale = Scale(np.array([0.3, 0.0]), np.array([0.7, 0.0]), np.array([True, True]), rule)
    judge._model = SimpleNamespace(normaliser=SimpleNamespace(state=scale))
    outside = [judge._state_outside(np.array(state)) for state in ([0.5, 0.0], [0.5, 0.002], [0.9, 0.0], [0.5, 3.14])]
    assert outside == [False, tilted, True, True]
