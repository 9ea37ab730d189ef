"""What slows a motion down and by how much: singularities, limits in the way, and a solver that finds nothing."""
import dataclasses

import numpy as np
import pytest

from hybridvla_core.geometry import rotations
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety.motion.motion import LOOK_TICKS, Motion
from hybridvla_core.safety.motion.pursuit import Goal
from hybridvla_core.safety.motion.solver import RATE_SHARE
from hybridvla_core.safety.status import Reason

pytestmark = pytest.mark.robot_computer
FR3 = load_robot(ROOT / "config" / "robots" / "sim_fr3.yaml")
DUAL = load_robot(ROOT / "config" / "robots" / "sim_dual.yaml")
ARM = FR3.arms[0]
START = np.array([ARM.start_joints_rad])


def dexterity(joints, arm=ARM):
    return float(np.linalg.svd(ArmKinematics(arm).jacobian(joints), compute_uv=False)[-1])


def near_singular(slow, stop, config=FR3, index=0):
    """Set the singularity bounds to these shares of the measure at the start."""
    arms, here = list(config.arms), dexterity(START[0])
    rules = dataclasses.replace(arms[index].singularity, slow_below=slow * here, stop_below=stop * here)
    arms[index] = dataclasses.replace(arms[index], singularity=rules)
    return dataclasses.replace(config, arms=tuple(arms))


def goal(motion, by=(0.1, 0.05, -0.1)):
    return Goal(motion.positions + np.array(by), motion.rotations.copy())


def stepped(config, scale=1.0, ticks=1, by=(0.1, 0.05, -0.1)):
    motion = Motion(config)
    to = goal(motion, by)
    for _ in range(ticks):
        assert motion.step(to, scale)
    return motion


@pytest.mark.parametrize("slow, stop, share", [(1.25, 0.75, 0.5), (1.1, 0.1, 0.9), (2.0, 0.98, 0.05), (1.0001, 0.5, 1.0),
                                               (0.99, 0.5, 1.0)])
def test_on_the_way_into_a_singularity_the_scale_is_the_room_that_is_left(slow, stop, share):
    slowed, plain = stepped(near_singular(slow, stop)), stepped(near_singular(0.5, 0.4), share)
    np.testing.assert_allclose(slowed.joints, plain.joints, rtol=0, atol=2e-9 if share < 1.0 else 1e-9)
    named = slow > 1.0
    assert ("singularity" in slowed.limited) is named and bool(slowed.reasons & Reason.SINGULARITY) is named


@pytest.mark.parametrize("index", [0, 1])
def test_the_arm_that_is_near_slows_both_where_they_are_coupled(index):
    slowed = stepped(near_singular(1.25, 0.75, DUAL, index), by=(0.05, 0.0, -0.05))
    plain = stepped(DUAL, 0.5, by=(0.05, 0.0, -0.05))
    np.testing.assert_allclose(slowed.joints, plain.joints, atol=2e-9)
    assert "singularity" in slowed.limited and "singularity" not in plain.limited


@pytest.mark.parametrize("index", [0, 1])
def test_an_arm_that_stands_near_a_singularity_slows_nothing(index):
    motion = Motion(near_singular(1.25, 0.75, DUAL, index))
    to = motion.positions.copy()
    to[1 - index] += (0.05, 0.0, -0.05)
    for tick in range(3):
        assert motion.step(Goal(to, motion.rotations.copy()))
        assert ("singularity" in motion.limited) is (tick == 0), "once it has been looked at it is on no way in"


def test_leading_out_of_a_singularity_is_not_slowed():
    config = near_singular(1.25, 0.2)
    for sign in (1.0, -1.0):
        motion = Motion(config)
        to = goal(motion, (0.0, 0.0, 0.2 * sign))
        measures = [dexterity(motion.joints[0])]
        for _ in range(30):
            assert motion.step(to)
            measures.append(dexterity(motion.joints[0]))
        inwards = measures[-2] < measures[-3]
        assert ("singularity" in motion.limited) is inwards
    assert abs(measures[-1] - measures[0]) > 1e-5


@pytest.mark.parametrize("slow, looks", [(0.4, 3), (0.6, 3 * LOOK_TICKS)])
def test_one_that_is_far_is_looked_at_now_and_then_and_one_that_is_near_always(monkeypatch, slow, looks):
    motion, original, seen = Motion(near_singular(slow, 0.1)), np.linalg.svd, []

    def counted(matrix, *args, **keys):
        if np.ndim(matrix) == 2:                    # of one arm; the limit evaluates all arms at once
            seen.append(matrix)
        return original(matrix, *args, **keys)
    to = goal(motion)
    monkeypatch.setattr(np.linalg, "svd", counted)
    for _ in range(3 * LOOK_TICKS):
        assert motion.step(to)
    assert len(seen) == looks and not motion.limited


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("ticks", [0, 10, 40])
def test_joints_that_get_faster_while_the_tools_brake_slow_them_in_time(index, ticks):
    """The slowdown uses what the joints gain until the middle of the stored braking, whichever joint is the fastest."""
    motion = Motion(DUAL)
    limit = np.array(DUAL.arms[index].joint_limits.velocity_rad_s) * RATE_SHARE
    motion.twist[index, 0] = 0.5 * DUAL.arms[index].cartesian_limits.speed_m_s
    rate = motion._pursuit.rate(motion.twist)
    motion._braking = np.zeros((2, ticks, 7))
    velocity, gain = np.zeros((2, 7)), 25.0
    velocity[index, 3], motion._bends[index, 3] = 0.6 * limit[3], gain
    gained = gain * 0.5 * ticks * DUAL.dt / limit[3]
    assert 0.4 < rate < 0.6 and motion._joint_scale(velocity) == pytest.approx(rate / max(rate, 0.6 + gained))
    motion._bends[index, 3] = -gain
    assert motion._joint_scale(velocity) == pytest.approx(rate / max(rate, 0.6, gained - 0.6))
    assert motion._joint_scale(0.5 * velocity) == pytest.approx(rate / max(rate, 0.3, gained - 0.3))


def test_a_limit_in_the_way_takes_speed_away_and_gives_it_back_slowly():
    position = Motion(FR3).positions[0]
    wall = Plane("wall", (0.0, -1.0, 0.0), -float(position[1]) - 0.02)
    config = dataclasses.replace(FR3, arms=(dataclasses.replace(ARM, workspace=dataclasses.replace(
        ARM.workspace, planes=(wall,))),))
    motion = Motion(config)
    to = Goal(motion.positions + np.array([0.0, 0.3, 0.0]), motion.rotations.copy())
    factors = []
    for _ in range(250):
        assert motion.step(to)
        factors.append(motion.factor)
        assert motion.positions[0, 1] <= position[1] + 0.02 + 1e-9
    assert "workspace" in motion.limited and min(factors) >= 0.01 and factors[-1] < 0.5
    assert motion.positions[0, 1] > position[1] + 0.019, "and still it comes to the wall"
    before = motion.factor
    back = Goal(np.array([position]), motion.rotations.copy())
    grown = []
    for _ in range(60):
        motion.step(back)
        grown.append(motion.factor)
    ratio = (np.array(grown[1:]) - 0.001) / np.array(grown[:-1])
    assert grown[-1] > before and (ratio[np.array(grown[1:]) < 1.0] <= 1.02 + 1e-9).all() and max(grown) <= 1.0


def test_a_solver_that_finds_nothing_halves_the_speed_and_brakes(monkeypatch):
    motion = stepped(FR3, ticks=40)
    to, before = goal(motion), motion.twist[0, :3].copy()
    for solver in motion._solvers:
        monkeypatch.setattr(solver, "step", lambda *_: (None, 0.0, np.zeros(7)))
    factors = []
    for _ in range(8):
        assert motion.step(to)
        assert motion.reasons == Reason.SOLVER
        factors.append(motion.factor)
    np.testing.assert_allclose(factors, np.maximum(0.5 ** np.arange(1, 9), 0.02))
    assert np.linalg.norm(motion.twist[0, :3]) < np.linalg.norm(before)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("off, turn, rests", [(1.9e-6, 0.0, True), (2.1e-6, 0.0, False), (0.0, 1.9e-5, True),
                                              (0.0, 2.1e-5, False)])
def test_a_goal_that_is_near_enough_is_there(axis, off, turn, rests):
    motion, along = Motion(FR3), np.eye(3)[axis]
    turned = rotations.exp(turn * along) @ motion.rotations[0]
    assert motion.step(Goal(motion.positions + off * along, turned[None]))
    assert np.array_equal(motion.joints, START) is rests


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_without_a_speed_it_comes_to_rest(scale):
    motion = stepped(FR3, ticks=30)
    for _ in range(60):
        motion.step(goal(motion), scale)
    assert motion.at_rest and not motion.limited


def test_another_joint_solution_is_taken_at_rest_only_and_found_to_the_last_digit():
    motion = Motion(FR3)
    seed = START + np.array([[0.2, 0.02, -0.2, 0.0, 0.0, 0.0, 0.0]])
    assert motion.repose(seed) is True
    position, matrix = motion.pose_of(motion.joints)[0]
    assert np.abs(position - motion.positions[0]).max() < 1e-10 and np.abs(matrix - motion.rotations[0]).max() < 1e-10
    assert motion.at_rest and motion.step(None)
    moving = stepped(FR3, ticks=10)
    kept = moving.joints
    assert moving.repose(seed) is False and moving.joints is kept
    assert Motion(FR3).repose(np.full((1, 7), 40.0)) is False, "no solution is found from there"
