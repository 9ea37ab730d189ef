"""How the arms come to rest, to the tick: which limit decides, what curvature costs, and where the path ends."""
import dataclasses

import numpy as np
import pytest

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.motion.braking import Braking

pytestmark = pytest.mark.robot_computer

DUAL = load_robot(ROOT / "config" / "robots" / "sim_dual.yaml")
DT = DUAL.dt
#: The second arm, with lower limits throughout.
WEAK = dataclasses.replace(
    DUAL.arms[1], cartesian_limits=dataclasses.replace(DUAL.arms[1].cartesian_limits, acceleration_m_s2=0.6,
                                                       rotation_acceleration_rad_s2=2.0),
    joint_limits=dataclasses.replace(DUAL.arms[1].joint_limits, acceleration_rad_s2=(5.0, 6.0, 7.0, 8.0, 9.0, 5.5, 6.5)))
ARMS = (DUAL.arms[0], WEAK)
PLAN = 0.8                 # share of every acceleration limit that braking is planned with


def ticks(twist=None, velocity=None, bend=None, arm=0):
    """Return the ticks to rest when one arm moves like this."""
    twists, velocities, bends = np.zeros((2, 6)), np.zeros((2, 7)), np.zeros((2, 7))
    for array, value in ((twists, twist), (velocities, velocity), (bends, bend)):
        if value is not None:
            array[arm] = value
    return Braking(ARMS, DT).ticks(twists, velocities, bends if bend is not None else None)


def one(index, value, size=7):
    array = np.zeros(size)
    array[index] = value
    return array


@pytest.mark.parametrize("arm", [0, 1])
def test_the_slowest_of_tool_turn_and_joints_decides(arm):
    rules = ARMS[arm].cartesian_limits
    speed = np.array([0.1, -0.2, 0.05])
    assert ticks(np.concatenate((speed, np.zeros(3))), arm=arm) == int(
        np.ceil(np.linalg.norm(speed) / (PLAN * rules.acceleration_m_s2 * DT)))
    assert ticks(np.concatenate((np.zeros(3), 3.0 * speed)), arm=arm) == int(
        np.ceil(3.0 * np.linalg.norm(speed) / (PLAN * rules.rotation_acceleration_rad_s2 * DT)))
    for joint, most in enumerate(ARMS[arm].joint_limits.acceleration_rad_s2):
        for sign in (-1.0, 1.0):
            assert ticks(velocity=one(joint, 0.7 * sign), arm=arm) == int(np.ceil(0.7 / (PLAN * most * DT)))
    assert ticks() == 1, "the tick in which the command stays"


@pytest.mark.parametrize("arm", [0, 1])
def test_bending_that_brakes_a_joint_takes_longer_and_bending_along_does_not(arm):
    for joint, most in enumerate(ARMS[arm].joint_limits.acceleration_rad_s2):
        usual = ticks(velocity=one(joint, 0.7), arm=arm)
        for sign in (-1.0, 1.0):
            moving = one(joint, 0.7 * sign)
            assert ticks(velocity=moving, bend=one(joint, 0.5 * most * sign), arm=arm) == usual, "along the motion"
            left = (0.97 - 0.5) * most
            assert ticks(velocity=moving, bend=one(joint, -0.5 * most * sign), arm=arm) == int(np.ceil(0.7 / (left * DT)))
            least = 0.3 * PLAN * most
            assert ticks(velocity=moving, bend=one(joint, -0.9 * most * sign), arm=arm) == int(np.ceil(0.7 / (least * DT)))
        assert ticks(velocity=one(joint, 0.7), bend=one(joint, -0.1 * most), arm=arm) == usual, "there is room for a little"


def test_the_path_slows_evenly_to_rest():
    last = np.zeros((2, 7))
    following = last + np.array([[0.004] * 7, [-0.002] * 7])
    path = Braking(ARMS, DT).path(last, following, np.zeros((2, 7)), 5)
    steps = np.diff(np.concatenate((following[:, None], path), axis=1), axis=1)
    for tick, share in enumerate((0.8, 0.6, 0.4, 0.2, 0.0)):
        np.testing.assert_allclose(steps[:, tick], share * (following - last), atol=1e-15)


def test_the_path_bends_as_the_straight_line_of_the_tool_asks():
    """At constant speed a joint follows q'' = bend; braking stretches time and keeps the same curve."""
    rng = np.random.default_rng(0)
    velocity, bend = rng.normal(size=(2, 7)), rng.normal(size=(2, 7))
    last = rng.normal(size=(2, 7))
    following = last + velocity * DT + 0.5 * bend * DT ** 2
    path = Braking(ARMS, DT).path(last, following, bend, 8)
    gone = DT * np.cumsum(1.0 - np.arange(1, 9) / 8.0)         # time that has passed along the curve
    for tick, time in enumerate(DT + gone):
        np.testing.assert_allclose(path[:, tick], last + velocity * time + 0.5 * bend * time ** 2, atol=1e-12)
