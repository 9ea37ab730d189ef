"""How a tick's velocity and joint step are computed: bounds that are kept and reached exactly, and optimality."""
import dataclasses

import numpy as np
import pytest

from hybridvla_core.geometry import rotations
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.motion import motion as motion_file
from hybridvla_core.safety.motion import solver as solver_file
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import BITES, CRUISE, PEAK, PLAN, Goal, Pursuit
from hybridvla_core.safety.motion.solver import StepSolver

pytestmark = pytest.mark.robot_computer

FR3, DUAL = (load_robot(ROOT / "config" / "robots" / f"{name}.yaml") for name in ("sim_fr3", "sim_dual"))
ARM, DT = FR3.arms[0], FR3.dt
RULES = ARM.cartesian_limits
SPEED = np.array([RULES.speed_m_s, RULES.rotation_speed_rad_s])
ACCELERATION = np.array([RULES.acceleration_m_s2, RULES.rotation_acceleration_rad_s2])
JERK = np.array([RULES.jerk_m_s3, RULES.rotation_jerk_rad_s3])
START = np.array(ARM.start_joints_rad)


def halves(twist):
    """Return (..., 2): lengths of the linear and of the angular half."""
    return np.linalg.norm(twist.reshape(*twist.shape[:-1], 2, 3), axis=-1)


def driven(config, error, scale=1.0, seconds=0.0, loads=None, most=2000, begin=None):
    """Return the twists (n, A, 6) of a way, and the error left at its end. seconds: deadline, which runs down on the way."""
    pursuit, error = Pursuit(config), np.array(error, dtype=float)
    twist = np.zeros_like(error) if begin is None else np.array(begin, dtype=float)
    acceleration, twists = np.zeros_like(error), [twist]
    for tick in range(most):
        left = max(seconds - tick * config.dt, 1e-3) if seconds else 0.0
        new = pursuit.next_twist(error, twist, acceleration, scale, left, loads)
        acceleration, twist = (new - twist) / config.dt, new
        error = error - twist * config.dt
        twists.append(twist)
        if np.abs(error).max() < 1e-6 and np.abs(twist).max() < 1e-4:
            break
    return np.array(twists), error


WAYS = [(np.array([0.3, 0.0, -0.4, 0, 0, 0]), 0), (np.array([0, 0, 0, 0.0, 2.4, 0.7]), 1)]


@pytest.mark.parametrize("way, half", WAYS)
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_a_long_way_is_straight_and_runs_into_each_bound_and_not_beyond(way, half, scale):
    twists, left = driven(FR3, [way], scale)
    assert np.abs(left).max() < 1e-6
    sizes = halves(twists[:, 0])
    direction = way / np.linalg.norm(way)
    np.testing.assert_allclose(twists[:, 0], np.outer(twists[:, 0] @ direction, direction), atol=1e-9)
    assert sizes[:, half].max() == pytest.approx(CRUISE * scale * SPEED[half], rel=1e-3)
    covered = np.cumsum(twists[:, 0] @ direction) * DT
    assert covered.max() <= np.linalg.norm(way) * (1 + 3e-4), "it does not shoot over its end"
    change = halves(np.diff(twists[:, 0], axis=0))[:, half] / DT
    assert change.max() <= PEAK * ACCELERATION[half] * (1 + 1e-9) and change.max() > 0.75 * ACCELERATION[half]
    jerk = halves(np.diff(twists[:, 0], n=2, axis=0))[:, half] / DT ** 2
    assert jerk.max() <= JERK[half] * (1 + 1e-6) and jerk[:3].max() == pytest.approx(JERK[half], rel=0.05)
    top = CRUISE * scale * SPEED[half]
    ideal = np.linalg.norm(way) / top + top / (PLAN * ACCELERATION[half])      # of a trapezoid
    assert ideal < len(twists) * DT < ideal + 0.35


def test_a_short_way_never_reaches_the_speed_and_does_not_overshoot():
    for far in (0.002, 0.02):
        twists, left = driven(FR3, [[far, 0, 0, 0, 0, 0]])
        covered = np.cumsum(twists[:, 0, 0]) * DT
        assert covered.max() <= far + 2e-6 and np.abs(left).max() < 1e-6
        assert twists[:, 0, 0].max() < (2.0 * PLAN * ACCELERATION[0] * far) ** 0.5
        assert len(twists) * DT < 2.0 * (far / (PLAN * ACCELERATION[0])) ** 0.5 + 0.35


def test_both_halves_and_coupled_arms_share_one_clock_and_others_do_not():
    error = np.zeros((2, 6))
    error[0, :3], error[0, 3:], error[1, 2] = [0.2, 0.1, 0.0], [0.0, 0.5, 0.1], -0.07
    together, _ = driven(dataclasses.replace(DUAL, coupled=True), error)
    shares = together[5:-60].reshape(-1, 12) @ error.ravel() / (error.ravel() @ error.ravel())
    np.testing.assert_allclose(together[5:-60].reshape(-1, 12), np.outer(shares, error.ravel()), atol=1e-6)
    apart, _ = driven(dataclasses.replace(DUAL, coupled=False), error)

    def ends(twists, arm):
        return int(np.flatnonzero(np.abs(twists[:, arm]).max(axis=1) > 1e-3)[-1])
    assert ends(apart, 1) < 0.7 * ends(apart, 0) and abs(ends(together, 1) - ends(together, 0)) < 40


def test_with_a_deadline_the_way_takes_until_then_and_without_time_as_little_as_it_can():
    far = 0.1
    quick, _ = driven(FR3, [[far, 0, 0, 0, 0, 0]])
    slow, left = driven(FR3, [[far, 0, 0, 0, 0, 0]], seconds=3.0, most=int(3.0 / DT))
    assert np.abs(left).max() < 5e-4
    assert slow[100:400, 0, 0] == pytest.approx(far / 3.0, rel=0.15) and slow.max() < 0.5 * quick.max()
    soon, _ = driven(FR3, [[far, 0, 0, 0, 0, 0]], seconds=0.01, most=len(quick))
    np.testing.assert_allclose(soon[:40], quick[:40], err_msg="what cannot be kept slows nothing")
    pursuit, still = Pursuit(FR3), np.zeros((1, 6))
    at_speed = np.array([[0.02, 0, 0, 0, 0, 0]])
    wanted = pursuit.next_twist(np.array([[0.0004, 0, 0, 0, 0, 0]]), at_speed, still, 1.0, 1e-3)
    assert wanted[0, 0] <= 0.0004 / (BITES * DT) + 1e-9, "the last stretch is spread over some ticks"


def test_where_joints_are_weaker_than_the_tool_they_bound_its_acceleration():
    far, top = 0.5, 1.0
    loads = np.zeros((1, 7, 6))
    loads[0, 3, 0] = -1.0 / top                            # a joint that allows no more than 1 m/s^2 of the tool
    assert top < ACCELERATION[0]
    twists, left = driven(FR3, [[far, 0, 0, 0, 0, 0]], loads=loads)
    change = np.abs(np.diff(twists[:, 0, 0])) / DT
    assert np.abs(left).max() < 1e-6 and 0.75 * top < change.max() <= PEAK * top * (1 + 1e-9)


def test_a_wrong_way_is_turned_round_within_the_bounds():
    begin = np.array([[0.0, 0.2, 0, 0, 0, -0.5]])
    twists, left = driven(FR3, [[0.2, 0, 0, 0.3, 0, 0]], begin=begin)
    assert np.abs(left).max() < 1e-6
    change = halves(np.diff(twists[:, 0], axis=0)) / DT
    assert (change <= PEAK * ACCELERATION * (1 + 1e-9)).all() and (change.max(axis=0) > 0.2 * ACCELERATION).all()
    assert (halves(np.diff(twists[:, 0], n=2, axis=0)) / DT ** 2 <= JERK * (1 + 1e-6)).all()
    rate = Pursuit(FR3).rate(begin)
    assert rate == pytest.approx((np.array([0.2, 0.5]) / SPEED / CRUISE).max())


def largest(allowed):
    """Return the largest step in [0, 1] rad for which `allowed` holds, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low


@pytest.mark.parametrize("seed", range(12))
def test_joint_steps_leave_room_to_stop_and_keep_speed_and_acceleration(seed):
    rng, limits, solver = np.random.default_rng(seed), ARM.joint_limits, StepSolver(ARM, DT)
    share = solver_file.RATE_SHARE
    low, high = np.array(limits.lower_rad) + limits.margin_rad, np.array(limits.upper_rad) - limits.margin_rad
    near = rng.choice([1e-3, 0.02, 0.3], 7) * rng.random(7)
    q = np.where(rng.random(7) < 0.5, low + near, high - near) if seed else high + 0.01
    last = rng.uniform(-1.0, 1.0, 7) * np.array(limits.velocity_rad_s) * DT * rng.choice([0.01, 1.0])
    braking_s = rng.random() * 0.3
    lower, upper = solver.bounds(q, last, braking_s)
    for joint in range(7):
        change = share * limits.acceleration_rad_s2[joint] * DT ** 2
        fastest, a = share * limits.velocity_rad_s[joint] * DT, PLAN * share * limits.acceleration_rad_s2[joint]
        for sign, bound, room in ((1.0, upper[joint], high[joint] - q[joint]), (-1.0, -lower[joint], q[joint] - low[joint])):
            before = sign * last[joint]

            def stops(step, room=room, a=a):
                v = step / DT
                return v * (1.5 * DT + 0.5 * braking_s) <= room and v * v / (2 * a) + 1.5 * v * DT <= room
            wanted = min(fastest, before + change, largest(stops))
            wanted = max(wanted, min(before - change, fastest))       # it cannot brake harder than that
            if sign > 0:
                assert bound == pytest.approx(wanted, abs=1e-12)
            else:
                assert bound == pytest.approx(max(wanted, -upper[joint]), abs=1e-12), "never above the upper one"


def objective(solver_step, share, jacobian, wanted, posture):
    weights = np.array([1, 1, 1, *[solver_file.ROTATION_WEIGHT] * 3])
    miss = weights * (jacobian @ solver_step - share * wanted)
    size = np.linalg.norm(weights * wanted)
    damping = solver_file.DAMPING + solver_file.DETOUR_DAMPING
    return (miss @ miss + solver_file.SLACK * (1 - share) ** 2 * size ** 2
            + damping * (solver_step - posture) @ (solver_step - posture))


@pytest.mark.parametrize("seed", range(8))
def test_a_step_within_bounds_is_the_least_squares_one_and_one_that_binds_shrinks_and_is_the_best_there_is(seed):
    rng, solver = np.random.default_rng(seed), StepSolver(ARM, DT)
    jacobian = ArmKinematics(ARM).jacobian(START + 0.2 * rng.standard_normal(7))
    wanted, posture, drift = 2e-3 * rng.standard_normal(6), 1e-4 * rng.standard_normal(7), rng.standard_normal(6)
    wide = np.full(7, 1.0)
    step, share, bend = solver.step(jacobian, wanted, drift, posture, -wide, wide)
    assert share == 1.0
    np.testing.assert_allclose(jacobian @ step, wanted, atol=2e-6)
    np.testing.assert_allclose(jacobian @ bend, -drift, atol=2e-3)
    null = np.eye(7) - np.linalg.pinv(jacobian) @ jacobian
    np.testing.assert_allclose(null @ step, null @ posture, atol=1e-6, err_msg="what is free goes to the posture")
    np.testing.assert_allclose(null @ bend, 0.0, atol=2e-3)
    tight = 0.3 * np.abs(step).max() * np.ones(7)
    bound, share, again = solver.step(jacobian, wanted, drift, posture, -tight, 0.9 * tight)
    np.testing.assert_array_equal(again, bend)
    assert 0.0 < share < 1.0 and (bound >= -tight).all() and (bound <= 0.9 * tight).all()
    best = objective(bound, share, jacobian, wanted, posture)
    for _ in range(300):
        other = np.clip(bound + rng.standard_normal(7) * 10.0 ** rng.uniform(-7, -4), -tight, 0.9 * tight)
        other_share = np.clip(share + rng.standard_normal() * 10.0 ** rng.uniform(-5, -1), 0.0, 1.0)
        assert objective(other, other_share, jacobian, wanted, posture) >= best - 1e-13
    missed = jacobian @ bound - share * wanted
    assert np.linalg.norm(missed) < 0.5 * np.linalg.norm(share * wanted), "shorter rather than elsewhere"


def test_the_load_of_a_joint_is_its_part_of_what_the_tool_asks_for():
    jacobian, rng = ArmKinematics(ARM).jacobian(START), np.random.default_rng(3)
    loads = StepSolver(ARM, DT).loads(jacobian)
    most = solver_file.LOAD * solver_file.RATE_SHARE * np.array(ARM.joint_limits.acceleration_rad_s2)
    for _ in range(5):
        tool = rng.standard_normal(6)
        np.testing.assert_allclose(loads @ tool, np.linalg.pinv(jacobian) @ tool / most, atol=1e-4)


def under_way(config=FR3, to=(0.1, 0.15, -0.1), ticks=30, turn=0.0):
    motion = Motion(config)
    goal = Goal(motion.positions + np.array(to), np.stack([rotations.exp(np.array([0, 0, turn])) @ r for r in motion.rotations]))
    for _ in range(ticks):
        assert motion.step(goal)
    return motion, goal


@pytest.mark.parametrize("off, ticks", [(0.02, 1), (0.6, 20)])
@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_the_null_space_leans_to_the_posture_slowly_and_only_as_far_as_the_tool_moves(off, ticks, turn):
    leaning, goal = under_way(turn=turn)
    posture = START + off * np.array([1.0, -0.5, 0.8, 0.1, -1.0, 0.3, 0.7])
    for _ in range(ticks):                         # as fast as the joints can be accelerated
        before = leaning.joints[0]
        assert leaning.step(goal, 1.0, posture[None])
    jacobian = ArmKinematics(ARM).jacobian(before)
    moving = min(1.0, float((halves(leaning.twist[0]) / SPEED).sum()))
    lean = motion_file.POSTURE_RATE * (posture - before)
    lean *= min(1.0, motion_file.POSTURE_SPEED / np.abs(lean).max()) * moving * DT
    null = np.eye(7) - np.linalg.pinv(jacobian) @ jacobian
    found = null @ (leaning.joints[0] - before)
    np.testing.assert_allclose(found, null @ lean, atol=0.05 * np.abs(null @ lean).max())
    resting = Motion(FR3)
    assert resting.step(Goal(resting.positions, resting.rotations), 1.0, posture[None])
    np.testing.assert_array_equal(resting.joints[0], START, "at rest nothing moves")


@pytest.mark.parametrize("linear, angular, moving", [(0.0, 0.0, 0.0), (0.3, 0.0, 0.3), (0.3, 0.5, 0.8), (0.9, 0.8, 1.0)])
def test_the_lean_grows_with_both_halves_of_the_tools_motion_up_to_its_bound(linear, angular, moving):
    twist = np.array([[0.0, 0.6 * linear, -0.8 * linear, 0, 0, 0]]) * SPEED[0] + np.array([[0, 0, 0, angular, 0, 0]]) * SPEED[1]
    lean = Motion(FR3)._lean(0, START, twist, START[None] + np.array([[0, 0, 2.0, 0, 0, 0, -1.0]]))
    np.testing.assert_allclose(lean, moving * motion_file.POSTURE_SPEED * DT * np.array([0, 0, 1.0, 0, 0, 0, -0.5]), atol=1e-12)


def test_what_motion_says_of_itself_is_what_it_did():
    motion, goal = under_way(turn=0.3)
    before = motion.positions[0].copy(), motion.rotations[0].copy(), motion.twist[0].copy()
    assert motion.step(goal) and not motion.at_rest
    linear = (motion.positions[0] - before[0]) / DT
    angular = rotations.log(motion.rotations[0] @ before[1].T) / DT
    np.testing.assert_allclose(motion.twist[0], [*linear, *angular], atol=1e-12)
    np.testing.assert_allclose(motion.acceleration[0], (motion.twist[0] - before[2]) / DT, atol=1e-9)
    np.testing.assert_allclose(motion.error(goal)[0, :3], goal.positions[0] - motion.positions[0])
    np.testing.assert_allclose(rotations.exp(motion.error(goal)[0, 3:]) @ motion.rotations[0], goal.rotations[0], atol=1e-12)
    for name in ("joints", "positions", "rotations"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(motion, name)[0] = 0.0
    rest = motion.joints.copy()
    motion.seed(rest)
    assert motion.at_rest and not motion.twist.any() and not motion.acceleration.any() and motion.factor == 1.0
    assert motion.step(None)
    np.testing.assert_array_equal(motion.joints, rest)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_led_along_joints_the_way_is_straight_and_every_joint_keeps_its_share_of_speed_and_acceleration(scale):
    motion = Motion(FR3)
    motion.lead(True)
    way = np.array([0.3, 0.1, 0.1, 0.05, -0.2, 0.1, 0.2])
    joints = [motion.joints[0]]
    for _ in range(600):
        assert motion.step_joints((START + way)[None], scale)
        joints.append(motion.joints[0])
        if np.abs(joints[-1] - START - way).max() < 1e-5 and motion.at_rest:
            break
    joints = np.array(joints)
    np.testing.assert_allclose(joints[-1], START + way, atol=1e-5)
    along = (joints - START) @ way / (way @ way)
    np.testing.assert_allclose(joints, START + np.outer(along, way), atol=1e-6)
    speed = np.abs(np.diff(joints, axis=0)).max(axis=0) / DT
    allowed = scale * np.array(ARM.joint_limits.velocity_rad_s)
    assert (speed <= allowed * (1 + 1e-9)).all()
    strength = 0.3 * np.array(ARM.joint_limits.acceleration_rad_s2)
    change = np.abs(np.diff(joints, n=2, axis=0)).max(axis=0) / DT ** 2
    assert (change <= strength * (1 + 1e-6)).all() and (change / strength).max() > 0.9
    assert along.max() <= 1.0 + 1e-6 and np.diff(along).min() >= -1e-12, "it does not shoot over its end"
