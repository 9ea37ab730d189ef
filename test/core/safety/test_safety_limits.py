"""Each limit by itself: positive inside, negative outside, by the amount; kinematics against an independent table."""
import dataclasses

import numpy as np
import pytest
from checker import ArmLimits

from hybridvla_core.geometry import rotations
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics, BatchKinematics
from hybridvla_core.safety import limits
from hybridvla_core.safety.limits.capsules import segment_distance
from hybridvla_core.safety.limits.joint_motion import velocity_bounds
from hybridvla_core.safety.limits.limit import Trajectory
from hybridvla_core.safety.limits.singularity import smallest_singular_values
from hybridvla_core.safety.motion.braking import Braking
from hybridvla_core.safety.motion.solver import StepSolver

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"
ROBOT = load_robot(ROBOTS / "sim_fr3.yaml")
ARM = ROBOT.arms[0]
START = np.array(ARM.start_joints_rad)


def trajectory(joints, robot=ROBOT):
    """Return a trajectory. joints: (m, dof) of a single arm, or (A, m, dof)."""
    joints = np.asarray(joints, dtype=float)
    return Trajectory(joints if joints.ndim == 3 else joints[None], robot.dt, BatchKinematics(robot.arms))


def resting(joints, robot=ROBOT):
    return trajectory(np.repeat(np.atleast_2d(joints)[:, None], 3, axis=1), robot)


def margins(name, path, robot=ROBOT):
    limit = next(limit for limit in limits.build(robot) if limit.name == name)
    return dict(zip(limit.names, limit.margins(path)))


@pytest.mark.parametrize("robot", ["sim_fr3", "agilex"])
def test_batch_and_single_kinematics_agree_with_plain_matrix_products(robot):
    config = load_robot(ROBOTS / f"{robot}.yaml")
    arm = config.arms[0]
    plain = ArmLimits(dataclasses.asdict(arm))
    rng = np.random.default_rng(0)
    joints = rng.uniform(arm.joint_limits.lower_rad, arm.joint_limits.upper_rad, (20, arm.dof))
    batch = BatchKinematics([arm])
    tool = batch.tool(batch.links(joints[None])[-1])
    single = ArmKinematics(arm)
    for index, q in enumerate(joints):
        expected = plain.frames(q)[-1]
        position, matrix = single.pose(q)
        np.testing.assert_allclose(position, expected[:3, 3], atol=1e-12)
        np.testing.assert_allclose(matrix, expected[:3, :3], atol=1e-12)
        np.testing.assert_allclose(tool.position[0, :, index], expected[:3, 3], atol=1e-12)
        np.testing.assert_allclose(tool.xy[0, :, index].imag, expected[:3, 1], atol=1e-12)


def test_golden_tool_pose_of_the_start_joints():
    position, matrix = ArmKinematics(ARM).pose(START)
    np.testing.assert_allclose(position, [0.306891, 0.0, 0.486882], atol=1e-6)
    np.testing.assert_allclose(matrix, np.diag([1.0, -1.0, -1.0]), atol=1e-8)


def test_joint_position():
    q = START.copy()
    q[3] = ARM.joint_limits.lower_rad[3] + ARM.joint_limits.margin_rad - 0.01
    assert margins("joint_position", resting(q))["arm/joint_4/position"] == pytest.approx(-0.01)
    assert min(margins("joint_position", resting(START)).values()) > 0.0


def test_joint_velocity_and_acceleration():
    step = np.zeros(7)
    step[1] = 1.2 * ARM.joint_limits.velocity_rad_s[1] * ROBOT.dt
    path = trajectory([START, START, START + step])
    assert margins("joint_velocity", path)["arm/joint_2/velocity"] < 0.0
    assert margins("joint_acceleration", path)["arm/joint_2/acceleration"] < 0.0
    steady = trajectory([START, START + 0.5 * step, START + step])
    assert margins("joint_velocity", steady)["arm/joint_2/velocity"] > 0.0
    assert margins("joint_acceleration", steady)["arm/joint_2/acceleration"] > 0.0


def test_position_dependent_velocity_shrinks_to_zero_at_the_stop():
    table = ARM.joint_limits.position_dependent
    lower, upper = velocity_bounds(table, np.array(table.upper_rad))
    np.testing.assert_array_equal(upper, 0.0)
    assert (lower < 0.0).all()
    middle = velocity_bounds(table, START)[1]
    assert (middle > 1.0).all()


def test_workspace():
    inside = margins("workspace", resting(START))
    assert inside["workspace/z_max"] == pytest.approx(0.65 - 0.486882, abs=1e-6)
    q = START + [1.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert min(margins("workspace", resting(q)).values()) < 0.0


def test_speed_and_rotation_speed():
    step = np.zeros(7)
    step[0] = 0.01                                   # rad in one tick: 2 rad/s at 0.307 m, and a turn of 2 rad/s
    path = trajectory([START, START + step, START + 2.0 * step])
    assert margins("cartesian_speed", path)["arm/tool/speed"] == pytest.approx(0.35 - 0.6138, abs=1e-3)
    assert margins("rotation_speed", path)["arm/tool/rotation_speed"] == pytest.approx(1.2 - 2.0, abs=1e-3)
    jerky = trajectory([START, START, START + 0.05 * step])
    assert margins("rotation_acceleration", jerky)["arm/tool/rotation_acceleration"] == pytest.approx(6 - 20, abs=0.01)
    assert margins("cartesian_acceleration", jerky)["arm/tool/acceleration"] < 0.0


def test_table_and_self_collision():
    assert min(margins("table", resting(START)).values()) > 0.0
    low = START + [0.0, 1.6, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert min(margins("table", resting(low)).values()) < 0.0
    folded = np.array([0.0, -1.7, 0.0, -3.0, 0.0, 0.6, 0.0])
    assert min(margins("self_collision", resting(START)).values()) > 0.0
    assert min(margins("self_collision", resting(folded)).values()) < margins(
        "self_collision", resting(START))["arm/shoulder-hand"]


def test_inter_arm():
    robot = load_robot(ROBOTS / "sim_dual.yaml")
    apart = np.array([arm.start_joints_rad for arm in robot.arms])
    assert margins("inter_arm", resting(apart, robot), robot)["inter_arm"] > 0.3
    together = apart.copy()
    together[:, 0] = [1.2, -1.2]
    together[:, 1] += 0.5
    assert margins("inter_arm", resting(together, robot), robot)["inter_arm"] < 0.0


def test_singularity_is_the_smallest_singular_value_of_the_jacobian():
    kinematics = ArmKinematics(ARM)
    expected = np.linalg.svd(kinematics.jacobian(START), compute_uv=False)[-1]
    assert smallest_singular_values(resting(START))[0] == pytest.approx(expected, abs=1e-9)
    turned = START + np.array([0.5, 0.3, -0.4, 0.2, 0.6, -0.5, 0.1])
    ends = smallest_singular_values(trajectory([turned, turned - 0.2, START]))[0]
    assert ends == pytest.approx(expected, abs=1e-9), "of the end alone"
    stretched = np.array([0.0, 0.3, 0.0, -0.16, 0.0, 1.0, 0.0])
    assert margins("singularity", resting(stretched))["arm/singularity"] < margins(
        "singularity", resting(START))["arm/singularity"]


@pytest.mark.parametrize("first, second, distance", [
    ([[0, 0, 0], [1, 0, 0]], [[0, 1, 0], [1, 1, 0]], 1.0),                # parallel
    ([[0, 0, 0], [1, 0, 0]], [[0.5, -1, 0.3], [0.5, 1, 0.3]], 0.3),       # crossing
    ([[0, 0, 0], [0, 0, 0]], [[0, 3, 4], [0, 3, 4]], 5.0),                # points
    ([[0, 0, 0], [1, 0, 0]], [[2, 0, 0], [3, 0, 0]], 1.0),                # in line
])
def test_segment_distance(first, second, distance):
    (a, b), (c, d) = np.array(first, dtype=float), np.array(second, dtype=float)
    assert float(segment_distance(a, b, c, d)) == pytest.approx(distance, abs=1e-9)


def test_skipping_a_distance_is_never_wrong():
    """Whenever the cheap bound says yes, the measured distances agree."""
    limit = next(limit for limit in limits.build(ROBOT) if limit.name == "self_collision")
    rng = np.random.default_rng(4)
    skipped = 0
    for _ in range(60):
        begin = rng.uniform(ARM.joint_limits.lower_rad, ARM.joint_limits.upper_rad)
        limit.margins(resting(begin))
        end = begin + rng.normal(0.0, 0.03, 7)
        path = trajectory(np.linspace(begin, end, 9))
        if limit.certainly_kept(path):
            skipped += 1
            assert min(margins("self_collision", path).values()) >= -1e-9
    assert skipped > 5


def test_braking_ends_at_rest_and_on_a_straight_line():
    brakes, kinematics = Braking(ROBOT.arms, ROBOT.dt), ArmKinematics(ARM)
    velocity = np.linalg.pinv(kinematics.jacobian(START)) @ np.array([0.0, 0.35, 0.0, 0.0, 0.0, 0.0])
    bend = -np.linalg.pinv(kinematics.jacobian(START)) @ kinematics.drift(START, velocity)
    following = START + velocity * ROBOT.dt + 0.5 * bend * ROBOT.dt ** 2
    twist = np.array([[0.0, 0.35, 0.0, 0.0, 0.0, 0.0]])
    path = brakes.path(START[None], following[None], bend[None], brakes.ticks(twist, velocity[None]))[0]
    np.testing.assert_allclose(path[-1], path[-2], atol=1e-12)
    end = kinematics.pose(path[-1])[0] - kinematics.pose(START)[0]
    assert abs(end[0]) < 5e-4 and abs(end[2]) < 5e-4
    assert end[1] == pytest.approx(0.35 ** 2 / (2 * 0.8 * 1.5), rel=0.1)


def test_solver_keeps_bounds_and_direction():
    solver, kinematics = StepSolver(ARM, ROBOT.dt), ArmKinematics(ARM)
    kinematics.pose(START)
    jacobian = kinematics.jacobian(START)
    wanted = np.array([0.0, 0.002, -0.001, 0.0, 0.0, 0.0])
    tight = np.full(7, 1e-3)
    step, kept, _ = solver.step(jacobian, wanted, np.zeros(6), np.zeros(7), -tight, tight)
    assert 0.0 < kept < 1.0 and (np.abs(step) <= tight + 1e-12).all()
    moved = jacobian @ step
    assert np.linalg.norm(moved[:3] - kept * wanted[:3]) < 0.05 * np.linalg.norm(moved[:3])


def test_rotation_helpers():
    rng = np.random.default_rng(1)
    for vector in np.vstack((rng.normal(0, 1, (20, 3)), [[np.pi - 1e-6, 0, 0], [0, 0, 0], [1e-12, 0, 0]])):
        vector = vector / max(1.0, np.linalg.norm(vector) / 3.0)
        matrix = rotations.exp(vector)
        np.testing.assert_allclose(rotations.log(matrix), vector, atol=1e-7)
        np.testing.assert_allclose(rotations.to_matrix(rotations.to_quaternion(matrix)), matrix, atol=1e-12)
