"""The commanded trajectory: it can stop inside all limits at every moment, and what happens when something fails."""
import copy
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig
from scipy.spatial.transform import Rotation

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety.execution.leash import Leash
from hybridvla_core.safety.execution.plan import Plan
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import Goal
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"
ROBOT = load_robot(ROBOTS / "sim_fr3.yaml")
DUAL = load_robot(ROBOTS / "sim_dual.yaml")
ARM = ROBOT.arms[0]


def goal(motion, *ways, turns=None):
    """Return the goal at the present pose, moved by ways (3,) m for each arm."""
    rotations = motion.rotations.copy()
    if turns is not None:
        rotations = np.stack([Rotation.from_rotvec(turn).as_matrix() @ r for turn, r in zip(turns, rotations)])
    return Goal(motion.positions + np.array(ways), rotations)


def run(motion, target, ticks, scale=1.0):
    """Return the positions (ticks, A, 3) of a motion towards the goal."""
    way = []
    for _ in range(ticks):
        assert motion.step(target, scale)
        way.append(motion.positions.copy())
    return np.array(way)


def worst(motion):
    """Return the smallest margin of any limit at the last steps."""
    return min(margins.min() for _, margins in motion.margins() if margins.size)


@pytest.mark.long
@pytest.mark.parametrize("way, turn", [([0.1, 0.6, -0.1], [0, 0, 0]), ([0.0, 0.0, -0.6], [0, 0, 0.5]),
                                       ([0.6, 0.0, 0.1], [0, 0, 0]), ([-0.3, 0.0, 0.0], [0, 1.0, 0])])
def test_from_every_moment_the_stored_braking_stops_inside_every_limit(way, turn):
    """Motions lead towards a wall, the table, the stretched arm and the base, and are stopped at every fifth tick."""
    motion = Motion(ROBOT)
    target = goal(motion, way, turns=[turn])
    stopped = 0
    for tick in range(260):
        assert motion.step(target)
        if tick % 5 == 0 and not motion.at_rest:
            kept, ticks = state_of(motion), 0
            while not motion.at_rest:
                assert motion.step(None)
                assert worst(motion) >= -1e-9
                ticks += 1
                assert ticks < 200
            restore(motion, kept)
            stopped += 1
    assert stopped > 20


KEPT = ("joints", "_previous", "positions", "rotations", "twist", "acceleration", "_braking", "_bends", "factor")


def state_of(motion):
    return {name: copy.copy(getattr(motion, name)) for name in KEPT}, copy.deepcopy(motion._last_check)


def restore(motion, state):
    for name, value in state[0].items():
        setattr(motion, name, value)
    motion._last_check = state[1]


def test_a_failing_solver_brakes_and_is_named(monkeypatch):
    motion = Motion(ROBOT)
    target = goal(motion, [0.1, 0.3, -0.1])
    run(motion, target, 60)
    dof = ARM.dof
    monkeypatch.setattr(motion._solvers[0], "step", lambda *args: (None, 0.0, np.zeros(dof)))
    ticks = 0
    while not motion.at_rest:
        assert motion.step(target)
        assert motion.reasons & Reason.SOLVER
        assert worst(motion) >= -1e-9
        ticks += 1
        assert ticks < 100
    rest = motion.positions.copy()
    monkeypatch.undo()
    way = run(motion, target, 500)
    assert np.linalg.norm(way[-1] - target.positions) < 1e-4 and np.linalg.norm(rest - target.positions) > 0.05


def test_a_solver_that_lies_does_not_get_through(monkeypatch):
    """It returns steps of any size: the check of the whole trajectory takes the stored braking instead."""
    motion, rng = Motion(ROBOT), np.random.default_rng(2)
    target = goal(motion, [0.1, 0.3, -0.1])
    run(motion, target, 60)
    monkeypatch.setattr(motion._solvers[0], "step", lambda *args: (
        rng.normal(0.0, 10.0 ** rng.uniform(-5, 0), ARM.dof), 1.0, rng.normal(0.0, 1.0, ARM.dof)))
    for _ in range(150):
        motion.step(target)
        assert worst(motion) >= -1e-9


def test_what_the_last_check_refuses_is_not_sent(monkeypatch):
    motion = Motion(ROBOT)
    target = goal(motion, [0.1, 0.3, -0.1])
    run(motion, target, 40)
    before = motion.joints.copy()
    monkeypatch.setattr(motion._last_check, "passes", lambda *args: False)
    assert not motion.step(target)
    assert motion.reasons & Reason.LAST_CHECK
    np.testing.assert_array_equal(motion.joints, before)


def test_speed_acceleration_and_jerk_of_the_tool_in_free_motion():
    motion = Motion(ROBOT)
    start = motion.positions[0].copy()
    way = np.vstack((start, start, run(motion, goal(motion, [0.1, 0.25, -0.15]), 300)[:, 0]))
    dt, limits = ROBOT.dt, ARM.cartesian_limits
    velocity, acceleration, jerk = (np.linalg.norm(np.diff(way, n=n, axis=0), axis=1).max() / dt ** n
                                    for n in (1, 2, 3))
    assert 0.9 * limits.speed_m_s < velocity <= limits.speed_m_s
    assert acceleration <= limits.acceleration_m_s2
    assert jerk <= 1.05 * limits.jerk_m_s3         # 1.0 as planned; the curved joint space adds a little


@pytest.mark.long
def test_coupled_arms_share_one_clock_and_others_do_not():
    ways = [[0.0, 0.05, -0.05], [0.15, -0.15, -0.2]]
    for coupled in (True, False):
        motion = Motion(dataclasses.replace(DUAL, coupled=coupled))
        start, target = motion.positions.copy(), goal(motion, *ways)
        way = run(motion, target, 400)
        shares = np.linalg.norm(way - start, axis=2) / np.linalg.norm(target.positions - start, axis=1)
        middle = shares[(shares[:, 1] > 0.2) & (shares[:, 1] < 0.8)]
        apart = np.abs(middle[:, 0] - middle[:, 1]).max()
        assert apart < 0.02 if coupled else apart > 0.2
        np.testing.assert_allclose(way[-1], target.positions, atol=1e-5)


@pytest.mark.long
def test_what_stops_one_coupled_arm_stops_the_other():
    motion = Motion(DUAL)
    start, target = motion.positions.copy(), goal(motion, [0.1, 0.1, -0.1], [0.1, 0.6, -0.1])   # the left one: a wall
    way = run(motion, target, 700)
    done = np.linalg.norm(way[-1] - start, axis=1) / np.linalg.norm(target.positions - start, axis=1)
    assert done[0] == pytest.approx(done[1], abs=0.02) and done[1] < 0.9
    assert worst(motion) >= -1e-9


@pytest.mark.long
def test_coupled_arms_at_the_distance_they_keep_go_on_together():
    motion = Motion(DUAL)
    mounts = np.array([arm.mount.position_m for arm in DUAL.arms])
    run(motion, Goal(np.array([[0.45, -0.05, 0.3], [0.45, 0.10, 0.3]]) - mounts, motion.rotations.copy()), 500)
    room = next(margins.min() for limit, margins in motion.margins() if limit.name == "inter_arm")
    assert 0.0 <= room < 0.005, "they have come as near as they may"
    start, way = motion.positions.copy(), (0, 0.1, 0)
    run(motion, goal(motion, way, way), 260)
    np.testing.assert_allclose(motion.positions - start, [way, way], atol=2e-3)
    assert worst(motion) >= -1e-9


def planned(robot, target):
    rig = Rig(change=lambda _: robot).start()
    rig.tick()
    start = rig.pose().position
    assert rig.propose(target).accepted
    rig.run_until(lambda output: output.status.reasons & Reason.WORKSPACE and output.status.state == State.HOLDING, 8.0)
    return start, rig.pose().position


@pytest.mark.long
@pytest.mark.parametrize("on_limit", ["scale", "slide"])
def test_beyond_the_box_scale_keeps_the_line_and_slide_follows_the_wall(on_limit):
    target = np.array([0.5, 0.7, 0.3])
    start, end = planned(dataclasses.replace(ROBOT, on_limit=on_limit), target)
    assert end[1] == pytest.approx(ARM.workspace.upper_m[1], abs=2e-3)
    off = np.linalg.norm(np.cross(end - start, target - start)) / np.linalg.norm(target - start)
    if on_limit == "scale":
        assert off < 2e-3
    else:
        np.testing.assert_allclose(end[[0, 2]], target[[0, 2]], atol=2e-3)


@pytest.mark.parametrize("on_limit", ["scale", "slide"])
def test_beyond_a_plane_the_tool_ends_at_it(on_limit):
    normal = np.array([0.0, -0.6, 0.8])
    offset = float(normal @ [0.5, 0.1, 0.3])
    workspace = dataclasses.replace(ARM.workspace, planes=(Plane("shelf", tuple(normal), offset),))
    robot = dataclasses.replace(ROBOT, on_limit=on_limit, arms=(dataclasses.replace(ARM, workspace=workspace),))
    _, end = planned(robot, [0.5, 0.3, 0.25])
    assert 0.0 <= normal @ end - offset < 2e-3


@pytest.mark.long
def test_towards_a_singularity_it_slows_stops_and_comes_back():
    reach = dataclasses.replace(ARM.workspace, upper_m=(1.2, 0.45, 0.9))
    robot = dataclasses.replace(ROBOT, arms=(dataclasses.replace(ARM, workspace=reach),))
    motion = Motion(robot)
    start = motion.positions.copy()
    way = run(motion, goal(motion, [0.6, 0.0, 0.0]), 1200)
    kinematics = ArmKinematics(ARM)
    dexterity = np.linalg.svd(kinematics.jacobian(motion.joints[0]), compute_uv=False)[-1]
    assert ARM.singularity.stop_below - 1e-6 <= dexterity < ARM.singularity.slow_below
    assert way[-1, 0, 0] < 0.9                                     # it did not get there
    back = run(motion, Goal(start, motion.rotations.copy()), 800)
    assert np.linalg.norm(back[-1] - start) < 1e-4                 # and is not stuck


@pytest.mark.long
@pytest.mark.parametrize("index", [0, 1])
def test_of_two_arms_each_is_slowed_on_its_way_into_a_singularity(index):
    roomy = [dataclasses.replace(arm, workspace=dataclasses.replace(
        arm.workspace, lower_m=(-1.2, -1.2, 0.0), upper_m=(1.2, 1.2, 1.0))) for arm in DUAL.arms]
    motion = Motion(dataclasses.replace(DUAL, arms=tuple(roomy), coupled=False))
    outward = np.zeros((2, 3))
    outward[index, 0] = 0.8
    target, arm = goal(motion, *outward), ArmKinematics(DUAL.arms[index])
    for _ in range(1200):
        assert motion.step(target)
        if motion.reasons & Reason.SINGULARITY:
            break
    rules = DUAL.arms[index].singularity
    dexterity = np.linalg.svd(arm.jacobian(motion.joints[index]), compute_uv=False)[-1]
    assert 0.5 * (rules.slow_below + rules.stop_below) < dexterity < 1.1 * rules.slow_below, "well before the hard limit"


def test_plans_keep_goals_inside_box_and_planes():
    rig = Rig()
    plane = Plane("shelf", (0.0, 0.0, 1.0), 0.2)
    workspace = dataclasses.replace(ARM.workspace, planes=(plane,))
    robot = dataclasses.replace(ROBOT, on_limit="slide", arms=(dataclasses.replace(ARM, workspace=workspace),))
    plan = Plan(rig.proposal([2.0, -2.0, 0.1]), robot, 0.0)
    inside = plan.goal(0.0, np.array([[0.4, 0.0, 0.4]]), np.eye(3)[None]).positions[0]
    assert plan.outside.max() > 0.0
    np.testing.assert_allclose(inside, [0.75, -0.45, 0.2], atol=1e-3)


def test_leash_is_measured_from_where_an_unhindered_arm_would_be():
    leash = Leash(ROBOT)
    start, turn = np.array([[0.4, 0.0, 0.4]]), np.eye(3)[None]
    leash.restart(start, turn)
    bound = ARM.leash.distance_m
    commanded = start.copy()
    for _ in range(400):                                           # 0.35 m/s: the lag alone is 70 mm
        commanded = commanded + [0.0, 0.35 * ROBOT.dt, 0.0]
        leash.advance(commanded, turn)
    follows = commanded - [0.0, 0.35 * ARM.leash.lag_s, 0.0]
    assert leash.margins(follows, turn)[0][0] == pytest.approx(bound, abs=2e-3)
    assert leash.margins(follows - [0.0, bound + 0.01, 0.0], turn)[0][0] < 0.0
    turned = Rotation.from_rotvec([0.0, 0.0, ARM.leash.rotation_rad + 0.01]).as_matrix()[None]
    assert leash.margins(follows, turned)[1][0] == pytest.approx(-0.01, abs=1e-6)
    assert leash.pulls_away(0, commanded[0], start[0], np.array([0.0, 1.0, 0.0]))
    assert not leash.pulls_away(0, commanded[0], start[0], np.array([0.0, -1.0, 0.0]))


def test_a_fresh_start_begins_at_rest_where_it_is_told():
    motion = Motion(ROBOT)
    run(motion, goal(motion, [0.1, 0.2, -0.1]), 60)
    joints = np.array([ARM.start_joints_rad]) + 0.05
    motion.seed(joints)
    assert motion.at_rest
    np.testing.assert_array_equal(motion.joints, joints)
    way = run(motion, goal(motion, [0.05, 0.0, 0.0]), 3)
    assert np.linalg.norm(way[0] - motion.pose_of(joints)[0][0]) < 1e-4
