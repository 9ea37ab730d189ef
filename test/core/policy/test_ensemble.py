"""Both ensemble rules, both means of rotations, and the gripper, at the wrap-around and with two arms."""
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hybridvla_core.checkpoints.config import EnsembleConfig
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.policy.inference.ensemble import disagreement, fuse

PAPER = EnsembleConfig.paper()
RELEASED = EnsembleConfig.released()
angle = st.floats(-math.pi, math.pi, allow_nan=False)
pitch = st.floats(-1.5, 1.5, allow_nan=False)


def action(*euler, place=(0.0, 0.0, 0.0), gripper=0.0):
    return np.array([*place, *euler, gripper])


def turn_between(euler, other):
    return (Rotation.from_euler("xyz", euler).inv() * Rotation.from_euler("xyz", other)).magnitude()


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("first, second", [(math.pi, -math.pi), (3.1, -3.1), (math.pi - 1e-9, -math.pi + 1e-9)])
def test_the_wrap_around_of_roll_and_yaw(axis, first, second):
    one, two = np.zeros(3), np.zeros(3)
    one[axis], two[axis] = first, second
    fused = fuse(action(*one), action(*two), PAPER)[3:6]
    assert turn_between(fused, one) <= abs(math.pi - abs(first)) + 1e-6
    released = fuse(action(*one), action(*two), RELEASED)[3:6]
    assert turn_between(released, one) > 3.0, "the released arithmetic turns the tool around here"


@settings(max_examples=200, deadline=None)
@given(angle, pitch, angle, angle, pitch, angle)
def test_the_mean_lies_half_way_whatever_the_charts(a, b, c, d, e, f):
    one, two = (a, b, c), (d, e, f)
    whole = turn_between(one, two)
    fused = fuse(action(*one), action(*two), PAPER)[3:6]
    assert turn_between(one, fused) == pytest.approx(whole / 2, abs=1e-6)
    assert turn_between(fused, two) == pytest.approx(whole / 2, abs=1e-6)


def test_away_from_the_wrap_around_both_agree_for_one_axis():
    one, two = action(0.3, 0, 0, place=(0.1, 0.2, 0.3)), action(0.5, 0, 0, place=(0.3, 0.2, 0.1))
    assert fuse(one, two, PAPER)[:6] == pytest.approx(fuse(one, two, RELEASED)[:6])
    assert fuse(one, two, PAPER)[:3] == pytest.approx([0.2, 0.2, 0.2])


def test_each_arm_turns_by_itself():
    one = np.concatenate([action(math.pi, 0, 0), action(0, 0, 0.2)])
    two = np.concatenate([action(-math.pi, 0, 0), action(0, 0, 0.4)])
    fused = fuse(one, two, PAPER)
    assert turn_between(fused[3:6], one[3:6]) < 1e-6 and fused[12] == pytest.approx(0.3)


def test_the_gate_of_the_paper_reads_every_token_of_both_arms():
    confidence = np.array([1.0] * 7 + [0.93] * 7)
    assert PAPER.opens(confidence) and not PAPER.opens(confidence - np.array([0.0] * 7 + [0.02] * 7))
    assert not replace(PAPER, theta=0.97).opens(confidence)


def test_the_released_gate_reads_six_tokens_of_the_first_arm_for_both():
    sure, unsure = np.full(7, 0.99), np.full(7, 1e-6)
    assert RELEASED.opens(np.concatenate([sure, unsure])), "the second arm has no say"
    assert not RELEASED.opens(np.concatenate([unsure, sure]))
    assert RELEASED.opens(np.array([0.99] * 6 + [1e-6])), "nor has the gripper"
    assert not RELEASED.opens(np.array([5.8 / 6] * 6 + [1.0]) - 1e-9)
    assert not RELEASED.opens(np.array([0.99] * 6 + [0.0])), "but a token that is no action forbids it"


@pytest.mark.parametrize("one, two, paper, released", [
    (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0)])
def test_the_gripper_is_decided_not_averaged(one, two, paper, released):
    roll = (math.pi, 0, 0), (-math.pi, 0, 0)
    pair = action(*roll[0], gripper=one), action(*roll[1], gripper=two)
    assert fuse(*pair, PAPER)[6] == paper
    assert fuse(*pair, RELEASED)[6] == released


def test_disagreement_is_measured_on_so3_and_is_the_larger_arm_s():
    one = np.concatenate([action(math.pi - 0.1, 0, 0), action(0, 0, 0)])
    two = np.concatenate([action(-math.pi + 0.1, 0, 0), action(0, 0, 0.3, place=(0.03, 0.04, 0))])
    distance, turn = disagreement(one, two)
    assert distance == pytest.approx(0.05) and turn == pytest.approx(0.3)


@pytest.mark.parametrize("change", [dict(rule="median"), dict(theta=0.0), dict(theta=float("nan")), dict(theta=7.0),
                                    dict(confidence_window_bins=-1), dict(rotation_mean="slerp"), dict(gripper="open")])
def test_rules_that_do_not_exist_are_refused(change):
    with pytest.raises(ConfigurationError, match="ensemble"):
        replace(PAPER, **change)
    with pytest.raises(ConfigurationError, match="theta must lie above 0 and up to 6, and is 7"):
        replace(PAPER, theta=7.0)
