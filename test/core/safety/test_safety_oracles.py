"""The filter's own geometry against libraries that know nothing of it: Pinocchio's and hpp-fcl's."""

import hppfcl
import numpy as np
import pinocchio as pin
import pytest
from scipy.spatial.transform import Rotation

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics, BatchKinematics
from hybridvla_core.safety import limits
from hybridvla_core.safety.limits.limit import Trajectory
from hybridvla_core.safety.motion.pursuit import PLAN
from hybridvla_core.safety.motion.solver import StepSolver

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"

# frankaemika/docs control_parameters.rst, written as a URDF: the joint frames of the table by roll, pitch, yaw. Its
# position limits are those of another system image, to show that nobody reads them.
FR3_ORIGINS = [((0, 0, 0.333), 0), ((0, 0, 0), -1), ((0, -0.316, 0), 1), ((0.0825, 0, 0), 1), ((-0.0825, 0.384, 0), -1),
               ((0, 0, 0), 1), ((0.088, 0, 0), 1)]


def fr3_urdf(position_limit=2.9):
    parts = ["<robot name='fr3'><link name='l0'/>"]
    for index, (xyz, quarter) in enumerate(FR3_ORIGINS, start=1):
        parts.append(f"<link name='l{index}'/><joint name='j{index}' type='revolute'><parent link='l{index - 1}'/>"
                     f"<child link='l{index}'/><origin xyz='{xyz[0]} {xyz[1]} {xyz[2]}' rpy='{quarter * np.pi / 2} 0 0'/>"
                     f"<axis xyz='0 0 1'/><limit lower='-{position_limit}' upper='{position_limit}' velocity='9' "
                     "effort='1'/></joint>")
    return "".join(parts) + "</robot>"


def test_fr3_kinematics_and_jacobian_agree_with_pinocchio_on_a_urdf():
    arm = load_robot(ROBOTS / "sim_fr3.yaml").arms[0]
    ours, model = ArmKinematics(arm), pin.buildModelFromXML(fr3_urdf())
    data = model.createData()
    turn, tip = Rotation.from_quat(arm.tool.quaternion_xyzw), np.array([0.0, 0.0, 0.107 + 0.1034])
    tool = model.addFrame(pin.Frame("tool", 7, 0, pin.SE3(turn.as_matrix(), tip), pin.FrameType.OP_FRAME))
    data = model.createData()
    for q in np.random.default_rng(0).uniform(arm.joint_limits.lower_rad, arm.joint_limits.upper_rad, (30, 7)):
        jacobian = pin.computeFrameJacobian(model, data, q, tool, pin.ReferenceFrame.LOCAL_WORLD_ALIGNED)
        pin.framesForwardKinematics(model, data, q)
        position, matrix = ours.pose(q)
        np.testing.assert_allclose(position, data.oMf[tool].translation, atol=1e-12)
        np.testing.assert_allclose(matrix, data.oMf[tool].rotation, atol=1e-12)
        np.testing.assert_allclose(ours.jacobian(q), jacobian, atol=1e-12)


@pytest.mark.parametrize("shift, joint", [(0.2, 3), (0.1, 5)])
def test_position_limits_are_those_of_the_file_where_a_urdf_differs(shift, joint):
    """A URDF with other limits exists (2.9 rad everywhere); config/robots is what counts."""
    robot = load_robot(ROBOTS / "fr3.yaml")
    arm = robot.arms[0]
    model = pin.buildModelFromXML(fr3_urdf())
    assert model.upperPositionLimit[joint] != pytest.approx(arm.joint_limits.upper_rad[joint], abs=0.05)
    limit = limits.build(robot)[0]
    for side, sign in ((arm.joint_limits.upper_rad, 1.0), (arm.joint_limits.lower_rad, -1.0)):
        q = np.array(arm.start_joints_rad)
        q[joint] = side[joint] + sign * shift
        window = Trajectory(np.repeat(q[None, None], 3, axis=1), robot.dt, BatchKinematics(robot.arms))
        worst = limit.margins(window).min()
        assert worst == pytest.approx(-shift - arm.joint_limits.margin_rad)


def test_nothing_of_the_package_reads_a_robot_description():
    """Neither the filter nor its configuration opens a URDF, SDF, SRDF or MJCF."""
    folder = ROOT / "src" / "hybridvla_core" / "safety"
    for file in folder.rglob("*.py"):
        text = file.read_text(encoding="utf-8").lower()
        for word in ("buildmodelfrom", ".urdf", ".sdf", ".srdf", ".mjcf", ".xml", "robot_description"):
            assert word not in text, f"{file.name} mentions {word}"


def capsules_of(arm, q):
    """Return name -> (hppfcl capsule, placement), from plain chains of Pinocchio placements."""
    table = arm.kinematics
    frames, placement = [pin.SE3.Identity()], pin.SE3.Identity()
    for a, d, alpha, offset, angle in zip(table.a_m, table.d_m, table.alpha_rad, table.theta_offset_rad, q):
        step = pin.SE3(pin.utils.rotate("x", alpha), np.zeros(3)) * pin.SE3(np.eye(3), np.array([a, 0.0, 0.0]))
        step = step * pin.SE3(pin.utils.rotate("z", angle + offset), np.array([0.0, 0.0, d]))
        placement = placement * step
        frames.append(placement)
    result = {}
    for capsule in arm.collision.capsules:
        start, end = np.array(capsule.start_m), np.array(capsule.end_m)
        axis, length = end - start, float(np.linalg.norm(end - start))
        turn = pin.Quaternion.FromTwoVectors(np.array([0.0, 0.0, 1.0]), axis if length > 1e-9 else np.ones(3)).matrix()
        local = pin.SE3(turn, 0.5 * (start + end))
        result[capsule.name] = (hppfcl.Capsule(capsule.radius_m, max(length, 1e-9)), frames[capsule.link] * local)
    return result


def distance(first, second):
    (shape1, place1), (shape2, place2) = first, second
    request, result = hppfcl.DistanceRequest(), hppfcl.DistanceResult()
    return hppfcl.distance(shape1, hppfcl.Transform3f(place1.rotation, place1.translation),
                           shape2, hppfcl.Transform3f(place2.rotation, place2.translation), request, result)


@pytest.mark.parametrize("robot", ["sim_fr3", "agilex", "sim_dual"])
def test_clearances_are_hpp_fcls(robot):
    """Self-collision and distances between arms at random joints; where links interpenetrate, both say so."""
    robot = load_robot(ROBOTS / f"{robot}.yaml")
    built = {limit.name: limit for limit in limits.build(robot)}
    rng = np.random.default_rng(4)
    batch = BatchKinematics(robot.arms)
    for _ in range(15):
        q = np.stack([rng.uniform(arm.joint_limits.lower_rad, arm.joint_limits.upper_rad) for arm in robot.arms])
        window = Trajectory(np.repeat(q[:, None], 3, axis=1), robot.dt, batch)
        theirs, world = [], []
        for index, arm in enumerate(robot.arms):
            capsules = capsules_of(arm, q[index])
            theirs += [distance(capsules[a], capsules[b]) - arm.collision.margin_m for a, b in arm.collision.pairs]
            mount = pin.SE3(Rotation.from_quat(arm.mount.quaternion_xyzw).as_matrix(), np.array(arm.mount.position_m))
            world.append([(shape, mount * place) for shape, place in capsules.values()])
        agree(built["self_collision"].margins(window), np.array(theirs))
        if len(world) == 2:
            nearest = min(distance(a, b) for a in world[0] for b in world[1]) - robot.inter_arm_margin_m
            agree(built["inter_arm"].margins(window), np.array([nearest]))


def agree(ours, theirs):
    apart = theirs > 0.0
    np.testing.assert_allclose(ours[apart], theirs[apart], atol=1e-5)
    assert (ours[~apart] < 1e-5).all()


def test_the_solvers_bound_before_a_stop_is_one_of_discrete_time():
    """Stopping in whole ticks overshoots the continuous v^2 / (2 a); the solver's bound leaves room for it."""
    robot = load_robot(ROBOTS / "sim_fr3.yaml")
    arm, dt = robot.arms[0], robot.dt
    solver = StepSolver(arm, dt)
    q = np.array(arm.start_joints_rad)
    joint, deceleration = 3, PLAN * 0.97 * arm.joint_limits.acceleration_rad_s2[3]
    stop = arm.joint_limits.upper_rad[joint] - arm.joint_limits.margin_rad
    continuous = 0.0
    for room in np.linspace(0.002, 0.1, 25):
        q[joint] = stop - room
        last = np.full(7, 0.97 * arm.joint_limits.velocity_rad_s[joint] * dt)
        upper = solver.bounds(q, last, 0.0)[1][joint]
        speed, travelled = upper / dt, 0.0
        if upper <= last[joint] - 0.97 * arm.joint_limits.acceleration_rad_s2[joint] * dt * dt + 1e-12:
            continue                             # the solver does not ask for harder braking than allowed
        while speed > 0.0:
            travelled += speed * dt
            speed -= deceleration * dt
        assert travelled <= room + 1e-12
        naive, way = np.sqrt(2.0 * deceleration * room), 0.0
        while naive > 0.0:
            way += naive * dt
            naive -= deceleration * dt
        continuous = max(continuous, way - room)
    assert continuous > 1e-3                     # by how much the continuous formula would have overshot
