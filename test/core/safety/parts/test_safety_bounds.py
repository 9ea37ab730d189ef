"""The last check and the audit to the last digit: every bound of every axis and joint, from both sides, with its tolerance."""
import dataclasses
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hybridvla_core.contracts import Pose
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety.motion.last_check import TOLERANCE, ArmCheck
from hybridvla_core.safety.outputs.audit import ROUNDING, CommandAudit
from hybridvla_core.safety.status import ArmCommand

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"
ROBOT = load_robot(ROBOTS / "fr3.yaml")
DT = ROBOT.dt
PLANES = (Plane("shelf", (0.0, -0.6, 0.8), 0.05),)
ARM = dataclasses.replace(ROBOT.arms[0], workspace=dataclasses.replace(ROBOT.arms[0].workspace, planes=PLANES))
START = np.array(ARM.start_joints_rad)
LIMITS, CARTESIAN, BOX = ARM.joint_limits, ARM.cartesian_limits, ARM.workspace
LAST = "pose is not that of the joints"
JOINTS = range(ARM.dof)


def step(joints=START, position=None, turn=None):
    """Return the inputs of the check: position, tool axes and joints. Without a given pose, the pose is that of the joints."""
    at, axes = ArmCheck(ARM, DT).tool(list(joints))
    if turn is not None:
        axes = (Rotation.from_rotvec(turn).as_matrix() @ np.array(axes).T).T.tolist()
    return (at if position is None else list(position)), axes, [float(q) for q in joints]


def said(before, last, new, relaxed=False):
    text = ArmCheck(ARM, DT).objection(before, last, new, relaxed)
    assert text == "" or text.startswith("arm/")
    return text[4:]


def with_joint(index, value, base=START):
    joints = np.array(base)
    joints[index] = value
    return joints


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("bounds, sign", [(BOX.lower_m, -1.0), (BOX.upper_m, 1.0)])
def test_a_wall_is_where_it_is(axis, bounds, sign):
    inside = np.array([0.5, -0.1, 0.3])
    for beyond, found in ((0.5, False), (1.0, False), (1.5, True)):
        inside[axis] = bounds[axis] + sign * beyond * TOLERANCE
        resting = step(position=inside)
        assert (said(resting, resting, resting) == "workspace") == found
        assert said(resting, resting, resting, relaxed=True) == LAST


def test_a_plane_is_where_it_is():
    normal = np.array(PLANES[0].normal)
    foot = np.array([0.5, 0.1, 0.1375])
    foot -= (foot @ normal - PLANES[0].offset_m) * normal
    for beyond, found in ((0.5, False), (1.5, True)):
        resting = step(position=foot - beyond * TOLERANCE * normal)
        assert (said(resting, resting, resting) == "plane") == found
        assert said(resting, resting, resting, relaxed=True) == LAST


@pytest.mark.parametrize("way", [(1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.6, -0.8)])
def test_the_tools_speed_and_acceleration_end_at_their_limits(way):
    middle, way = np.array([0.5, 0.0, 0.3]), np.array(way)
    for beyond, found in ((0.5, False), (1.5, True)):
        far = way * (CARTESIAN.speed_m_s + beyond * TOLERANCE) * DT
        at = [step(position=middle + k * far) for k in range(3)]
        assert (said(*at) == "speed") == found and found == (said(*at, relaxed=True) == "speed")
        bend = way * (CARTESIAN.acceleration_m_s2 + beyond * TOLERANCE) * DT ** 2
        slow = 0.2 * far
        at = [step(position=middle + offset) for offset in (-slow, 0.0 * slow, slow + bend)]
        assert (said(*at) == "acceleration") == found


@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.6, -0.8)])
def test_the_tools_rotation_ends_at_its_limits(axis):
    axis, middle = np.array(axis), step()[0]
    speed = CARTESIAN.rotation_speed_rad_s * DT
    change = CARTESIAN.rotation_acceleration_rad_s2 * DT ** 2
    change = math.hypot(change, speed ** 2)               # the bound leaves room for the curvature of a rotation at full speed
    for share, found in ((0.9999, False), (1.0001, True)):
        at = [step(position=middle, turn=k * share * speed * axis) for k in range(3)]
        assert (said(*at) == "rotation speed") == found
        at = [step(position=middle, turn=turn * axis) for turn in (0.0, 0.0, share * change)]
        assert (said(*at) == "rotation acceleration") == found


@pytest.mark.parametrize("index", JOINTS)
def test_every_joint_has_its_own_limits(index):
    pose = step()[0]
    low, high = LIMITS.lower_rad[index] + LIMITS.margin_rad, LIMITS.upper_rad[index] - LIMITS.margin_rad
    middle = 0.5 * (low + high)

    def at(value):
        return pose, step()[1], list(with_joint(index, value))
    for beyond, found in ((0.5, False), (1.0, False), (1.5, True)):
        for value in (low - beyond * TOLERANCE, high + beyond * TOLERANCE):
            assert (said(at(value), at(value), at(value)) == "joint position") == found
            assert said(at(value), at(value), at(value), relaxed=True) == LAST
    for beyond, found in ((0.5, False), (1.5, True)):
        far = (LIMITS.velocity_rad_s[index] + beyond * TOLERANCE) * DT
        bend = (LIMITS.acceleration_rad_s2[index] + beyond * TOLERANCE) * DT ** 2
        for sign in (-1.0, 1.0):
            steps = [at(middle + sign * k * far) for k in range(3)]
            assert (said(*steps) == "joint velocity") == found and (said(*steps, relaxed=True) == "joint velocity") == found
            steps = [at(middle + sign * offset) for offset in (-0.2 * far, 0.0, 0.2 * far + bend)]
            assert (said(*steps) == "joint acceleration") == found


@pytest.mark.parametrize("axis", range(3))
def test_the_pose_is_that_of_the_joints(axis):
    for off, text in ((0.5, ""), (1.5, LAST)):
        for sign in (-1.0, 1.0):
            position, axes, joints = step()
            position[axis] += sign * off * TOLERANCE
            assert said(step(), step(), (position, axes, joints)) == text
            for row in range(3):
                position, axes, joints = step()
                axes = [list(values) for values in axes]
                axes[row][axis] += sign * off * TOLERANCE
                assert said(step(), step(), (position, axes, joints)) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_wherever_it_stands(value):
    for place in range(3 + 9 + ARM.dof):
        position, axes, joints = step()
        axes = [list(values) for values in axes]
        if place < 3:
            position[place] = value
        elif place < 12:
            axes[(place - 3) // 3][place % 3] = value
        else:
            joints[place - 12] = value
        assert said(step(), step(), (position, axes, joints)) == "not finite"


def audited(position, joints, last=None, anew=False, relaxed=False, publish=True):
    """Return how many violations the audit counts in the command after `last`."""
    audit = CommandAudit(dataclasses.replace(ROBOT, arms=(ARM,)))

    def command(values, publish=True):
        pose = Pose(np.array(position, dtype=float), np.array([1.0, 0, 0, 0]))
        return [ArmCommand("arm", pose, np.array(values), None, publish)]
    if last is not None:
        audit.violations(command(last), False, True)
    return audit.violations(command(joints, publish), anew, relaxed)


def test_the_audit_counts_what_lies_beyond_a_bound_and_nothing_that_is_not_sent():
    middle = np.array([0.5, -0.1, 0.45])
    assert audited(middle, START) == 0
    for axis in range(3):
        for bounds, sign in ((BOX.lower_m, -1.0), (BOX.upper_m, 1.0)):
            for beyond, count in ((0.5, 0), (1.5, 1)):
                at = middle.copy()
                at[axis] = bounds[axis] + sign * beyond * ROUNDING
                assert audited(at, START) == count and audited(at, START, relaxed=True) == audited(at, START, publish=False) == 0
    normal = np.array(PLANES[0].normal)
    foot = middle - (middle @ normal - PLANES[0].offset_m) * normal
    assert audited(foot - 0.5 * ROUNDING * normal, START) == 0 and audited(foot - 1.5 * ROUNDING * normal, START) == 1
    for index in JOINTS:
        low, high = LIMITS.lower_rad[index] + LIMITS.margin_rad, LIMITS.upper_rad[index] - LIMITS.margin_rad
        for beyond, count in ((0.5, 0), (1.5, 1)):
            assert audited(middle, with_joint(index, low - beyond * ROUNDING)) == count
            assert audited(middle, with_joint(index, high + beyond * ROUNDING)) == count
            far = LIMITS.velocity_rad_s[index] * DT + beyond * ROUNDING
            for sign in (-1.0, 1.0):
                after = with_joint(index, START[index] + sign * far)
                assert audited(middle, after, last=START) == audited(middle, after, last=START, relaxed=True) == count
                assert audited(middle, after, last=START, anew=True) == 0
    assert audited([math.nan, 0.0, 0.3], START) == audited(middle, with_joint(2, math.nan)) == 1


@pytest.mark.parametrize("last", [0, 1])
def test_the_audit_looks_at_every_arm_that_is_sent_whichever_is_not(last):
    dual = load_robot(ROBOTS / "sim_dual.yaml")
    audit, joints = CommandAudit(dual), [np.array(arm.start_joints_rad) for arm in dual.arms]

    def commands(by):
        pose = Pose(np.array([0.45, 0.0, 0.4]), np.array([1.0, 0, 0, 0]))
        return [ArmCommand(arm.name, pose, joints[index] + by * (index == last), None, index == last)
                for index, arm in enumerate(dual.arms)]
    assert audit.violations(commands(0.0), False, True) == 0
    assert audit.violations(commands(0.5), False, True) == 1, "a jump of the one that is sent"
    assert audit.violations(commands(0.5), False, True) == 0, "and compared with what was sent last"
