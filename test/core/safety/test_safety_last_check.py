"""The last check objects to every kind of bad step, by name, and to nothing else."""
import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety.motion.last_check import ArmCheck, LastCheck

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"
ROBOT = load_robot(ROBOTS / "sim_fr3.yaml")
ARM, DT = ROBOT.arms[0], ROBOT.dt
KINEMATICS = ArmKinematics(ARM)
START = np.array(ARM.start_joints_rad)


def command(joints):
    position, matrix = KINEMATICS.pose(joints)
    return position[None], matrix[None], np.array(joints)[None]


def objection(history, spoil=None, robot=ROBOT, relaxed=False):
    """Return the objection to the last of `history` (joints), changed by spoil(position, rotation, joints)."""
    check = LastCheck(robot)
    check.restart(*command(history[0]))
    for joints in history[1:-1]:
        check.sent(*command(joints))
    step = command(history[-1])
    if spoil:
        spoil(*step)
    passes = check.passes(*step, relaxed)
    assert passes == (check.objection == "")
    return check.objection


def step(joint, rad):
    """Return START moved by rad in one joint."""
    joints = START.copy()
    joints[joint] += rad
    return joints


def add(array, index, amount):
    array[index] += amount


def test_rest_and_a_slow_step_pass():
    assert objection([START, START]) == ""
    assert objection([START, START, step(1, 2e-5), step(1, 8e-5)]) == ""


@pytest.mark.parametrize("history, spoil, words", [
    ([START, START], lambda p, r, q: add(p, (0, 1), np.nan), "not finite"),
    ([START, START], lambda p, r, q: add(q, (0, 1), np.inf), "not finite"),
    ([START, START], lambda p, r, q: add(r, (0, 0, 0), np.nan), "not finite"),
    ([START, START], lambda p, r, q: add(p, (0, 2), 1.0), "workspace"),
    ([START, START], lambda p, r, q: add(p, (0, 0), 0.002), "speed"),
    ([START, START, START], lambda p, r, q: add(p, (0, 0), 5e-5), "acceleration"),
    ([step(6, -0.02), step(6, -0.01), START], None, "rotation speed"),
    ([START, START, step(6, 0.001)], None, "rotation acceleration"),
    ([START, START], lambda p, r, q: add(q, (0, 6), 3.0), "joint position"),
    ([START, START], lambda p, r, q: add(q, (0, 1), 0.0051), "joint velocity"),
    ([START, START, START], lambda p, r, q: add(q, (0, 1), 0.0004), "joint acceleration"),
    ([START, START, START], lambda p, r, q: add(q, (0, 1), 0.0001), "pose is not"),
    ([START, START, START], lambda p, r, q: add(p, (0, 0), 3e-6), "pose is not"),
])
def test_a_bad_step_is_named(history, spoil, words):
    assert words in objection(history, spoil)


def test_planes():
    position = KINEMATICS.pose(START)[0]
    for offset, words in ((position[2] - 0.01, ""), (position[2] + 0.01, "arm/plane")):
        workspace = dataclasses.replace(ARM.workspace, planes=(Plane("shelf", (0.0, 0.0, 1.0), float(offset)),))
        robot = dataclasses.replace(ROBOT, arms=(dataclasses.replace(ARM, workspace=workspace),))
        assert objection([START, START], robot=robot) == words
        assert objection([START, START], robot=robot, relaxed=True) == ""


def test_re_entering_leaves_positions_to_the_judgement_and_rates_to_the_check():
    outside = START.copy()
    outside[6] = ARM.joint_limits.upper_rad[6] + 0.01
    assert "joint position" in objection([outside, outside])
    assert objection([outside, outside], relaxed=True) == ""
    assert "joint velocity" in objection([outside, outside], lambda p, r, q: add(q, (0, 6), -0.1), relaxed=True)


@pytest.mark.parametrize("robot, tool", [("sim_fr3", None), ("agilex", None), ("sim_fr3", (0.03, -0.05, 0.12))])
def test_its_own_kinematics_agree_with_pinocchio(robot, tool):
    robot = load_robot(ROBOTS / f"{robot}.yaml")
    arm = robot.arms[0]
    if tool is not None:                            # beside the flange and tilted about all axes
        tilt = tuple(Rotation.from_rotvec([0.3, -0.5, 0.8]).as_quat().tolist())
        arm = dataclasses.replace(arm, tool=dataclasses.replace(arm.tool, position_m=tool, quaternion_xyzw=tilt))
    check, pinocchio = ArmCheck(arm, robot.dt), ArmKinematics(arm)
    rng = np.random.default_rng(2)
    for joints in rng.uniform(arm.joint_limits.lower_rad, arm.joint_limits.upper_rad, (50, arm.dof)):
        position, axes = check.tool(joints.tolist())
        expected, matrix = pinocchio.pose(joints)
        np.testing.assert_allclose(position, expected, atol=1e-12)
        np.testing.assert_allclose(np.array(axes).T, matrix, atol=1e-12)


def test_rotation_speed_is_measured_about_any_axis():
    rng = np.random.default_rng(5)
    limit = ARM.cartesian_limits.rotation_speed_rad_s * DT
    check = ArmCheck(ARM, DT)
    position, matrix = KINEMATICS.pose(START)
    for axis in rng.normal(size=(20, 3)):
        axis = axis / np.linalg.norm(axis)
        for share, words in ((0.999, ""), (1.001, "rotation speed")):
            steps = [(position.tolist(), (Rotation.from_rotvec(k * share * limit * axis).as_matrix() @ matrix).T.tolist(),
                      START.tolist()) for k in range(3)]
            objection = check.objection(*steps, False)
            assert words in objection if words else "rotation speed" not in objection
