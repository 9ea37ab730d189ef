"""What one arm reports, against its bounds: jumps, rest, stamps, limits with their tolerance, and what is unusable."""
import dataclasses
import math

import numpy as np
import pytest

from hybridvla_core.contracts import ArmState, GripperState, Pose
from hybridvla_core.geometry import rotations
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.inputs.measured_arm import MeasuredArm

pytestmark = pytest.mark.robot_computer

CONFIG = load_robot(ROOT / "config" / "robots" / "fr3.yaml").arms[0]
START = np.array(CONFIG.start_joints_rad)
LIMITS, BOX = CONFIG.joint_limits, CONFIG.workspace


def report(joints=START, **changes):
    state = ArmState("arm", CONFIG.joint_names, np.array(joints, dtype=float), None, None, 1.0, GripperState.DONE)
    return dataclasses.replace(state, **changes)


def moved(index, by):
    joints = START.copy()
    joints[index] += by
    return joints


@pytest.fixture
def arm():
    arm = MeasuredArm(CONFIG)
    assert arm.update(report(), 10.0) == ""
    return arm


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_more_than_three_times_the_speed_and_a_little_is_a_jump_and_is_doubted_for_a_while(index, sign):
    most = 3.0 * LIMITS.velocity_rad_s[index] * 0.02 + 0.05
    for share, jumped in ((0.999, False), (1.001, True)):
        arm = MeasuredArm(CONFIG)
        arm.update(report(), 10.0)
        fault = arm.update(report(moved(index, sign * share * most)), 10.02)
        assert fault == (f"joint {index + 1} jumped within 20 ms" if jumped else "")
        assert arm.doubtful(10.219) == fault and arm.doubtful(10.221) == ""
        np.testing.assert_array_equal(arm.joints, moved(index, sign * share * most), "taken all the same")


def test_a_good_report_ends_a_doubt_only_once_its_time_is_over(arm):
    arm.update(report(moved(0, 1.0)), 10.01)
    assert arm.update(report(moved(0, 1.0)), 10.1) == "" and arm.doubtful(10.15) and arm.fault
    arm.update(report(moved(0, 1.0)), 10.22)
    assert arm.fault == "" and not arm.doubtful(10.22)


def test_an_arm_rests_when_no_joint_has_moved_for_a_tenth_of_a_second(arm):
    assert not arm.moving(10.0), "the first report moves nothing"
    arm.update(report(moved(3, 0.0029)), 10.01)
    assert not arm.moving(10.01)
    arm.update(report(moved(3, 0.0031)), 10.02)
    assert arm.moving(10.02) and arm.moving(10.119) and not arm.moving(10.121)
    for k in range(1, 100):                               # creeping below the bound within each tenth of a second
        arm.update(report(moved(3, 0.0031 + 1e-4 * k)), 10.2 + 0.01 * k)
        assert not arm.moving(10.2 + 0.01 * k)
    for speed, moving in ((0.049, False), (0.051, True), (-0.051, True)):
        arm.update(report(moved(3, 0.013), joint_velocities=np.array([0, 0, 0, math.nan, 0, 0, speed])), 20.0 + abs(speed))
        assert arm.moving(30.0) == moving
    arm.update(report(moved(3, 0.013), joint_velocities=np.zeros(0)), 21.0)
    assert arm.moving(30.0) is False, "a driver that reports no speeds"


def test_joints_are_outside_by_more_than_their_tolerance_and_the_worst_is_named(arm):
    for index in range(7):
        for bound, sign in ((LIMITS.lower_rad[index], -1.0), (LIMITS.upper_rad[index], 1.0)):
            for beyond, text in ((0.009, ""), (0.011, f"joint {index + 1} is 0.011 rad outside its limit")):
                joints = START.copy()
                joints[index] = bound + sign * beyond
                arm.joints, arm.position = joints, np.array([0.5, 0.0, 0.3])
                assert arm.outside() == text
    arm.joints = START.copy()
    arm.joints[2], arm.joints[4] = LIMITS.upper_rad[2] + 0.02, LIMITS.lower_rad[4] - 0.03
    assert arm.outside() == "joint 5 is 0.030 rad outside its limit"


@pytest.mark.parametrize("axis", range(3))
def test_the_tool_is_outside_the_box_by_more_than_its_tolerance(arm, axis):
    for bound, sign in ((BOX.lower_m[axis], -1.0), (BOX.upper_m[axis], 1.0)):
        for beyond, text in ((0.019, ""), (0.023, f"the tool is 23 mm outside the box along {'xyz'[axis]}")):
            arm.position = np.array([0.5, 0.0, 0.3])
            arm.position[axis] = bound + sign * beyond
            assert arm.outside() == text


def test_the_drivers_pose_is_compared_in_metres_and_radians(arm):
    assert arm.tool_mismatch() is None
    turned = rotations.to_quaternion(rotations.exp(np.array([0.0, 0.2, 0.0])) @ arm.matrix)
    arm.update(report(pose=Pose(arm.position + [0.0, 0.03, -0.04], turned)), 10.1)
    assert arm.tool_mismatch() == pytest.approx((0.05, 0.2))
    assert MeasuredArm(CONFIG).tool_mismatch() is None


def stamped(stamps, times, watch=True):
    """Return an arm's answers to reports with these stamps at these times, and the arm."""
    arm = MeasuredArm(CONFIG, watch)
    return [arm.update(report(stamp=stamp), now) for stamp, now in zip(stamps, times)], arm


def test_a_drivers_clock_may_be_another_and_may_not_be_set():
    assert stamped([5.0, 5.1, 5.2], [100.0, 100.1, 100.2])[0] == ["", "", ""]
    assert stamped([5.0, 6.09], [100.0, 100.1])[0][-1] == "", "within a second of our own"
    assert stamped([5.0, 6.11], [100.0, 100.1])[0][-1] == "the driver's clock was set ahead by 1.1 s"
    assert stamped([5.0, 4.89], [100.0, 100.1])[0][-1] == "the driver's clock was set back by 0.1 s"
    assert stamped([5.0, 3.5], [100.0, 100.1])[0][-1] == "the driver's clock was set back by 1.5 s"
    for stamp in (5.0, 4.95):
        said, arm = stamped([5.0, stamp], [100.0, 100.1])
        assert said[-1] == "" and arm.age(100.1) == pytest.approx(0.1), "the same once more, or one that was overtaken: no news"
    said, arm = stamped([5.0, 5.0, 5.0], [100.0, 100.1, 100.21])
    assert arm.fault == "the stamps of its joint states stand still"
    assert stamped([0.0], [100.0])[0] == stamped([math.inf], [100.0])[0] == ["joint states carry no stamp"]
    assert stamped([math.nan, math.nan], [100.0, 100.1])[0] == ["", ""]


def test_reports_that_come_later_than_they_did_are_as_old_as_that():
    stamps, times = [5.0, 5.1, 5.2, 5.3], [100.0, 100.1, 100.35, 100.45]
    _, arm = stamped(stamps, times)
    assert arm.lateness == pytest.approx(0.15, abs=1e-3) and arm.age(100.5) == pytest.approx(0.05 + arm.lateness)
    assert stamped(stamps, times, watch=False)[1].lateness == 0.0
    _, arm = stamped([5.0, 5.1, 5.25], [100.0, 100.15, 100.2])
    assert arm.lateness == 0.0, "earlier than ever is the new measure"
    _, arm = stamped([5.0, 105.0], [100.0, 200.08])
    assert arm.lateness == 0.0, "a clock that runs slower by less than a thousandth"
    _, arm = stamped([5.0, 105.0], [100.0, 200.2])
    assert arm.lateness == pytest.approx(0.2 - 0.001 * 100.2, abs=1e-6)
    _, arm = stamped([5.0, 4.0, 4.1], [100.0, 100.1, 100.25])
    assert arm.lateness == pytest.approx(0.05, abs=1e-3), "after a clock was set, from there"


def test_what_cannot_be_used_is_said_by_name():
    def said(**changes):
        arm = MeasuredArm(CONFIG)
        text = arm.update(report(**changes), 1.0)
        assert arm.state is None and arm.fault == text
        return text
    names = CONFIG.joint_names
    missing = f"joint {names[0]} is missing in the joint states, which name "
    assert said(joint_names=("a",), joint_positions=np.zeros(1)) == f"{missing}a"
    assert said(joint_names=(), joint_positions=np.zeros(0)) == f"{missing}nothing"
    many = tuple(f"j{k}" for k in range(9))
    assert said(joint_names=many, joint_positions=np.zeros(9)).endswith("which name j0, j1, j2, j3, j4, j5, j6, j7, j8")
    assert said(joint_names=(*many, "j9"), joint_positions=np.zeros(10)).endswith("j8, ...")
    assert said(joint_names=(*names, names[2]), joint_positions=np.zeros(8)) == "a joint is named twice in the joint states"
    assert said(joint_positions=START[:6]) == "joint states carry 6 positions for 7 names"
    assert said(joints=moved(5, math.nan)) == "a joint position is not a number"
    for index in range(7):
        for bound, sign in ((LIMITS.lower_rad[index], -1.0), (LIMITS.upper_rad[index], 1.0)):
            joints = START.copy()
            joints[index] = bound + sign * 1.001
            text = said(joints=joints)
            assert text.startswith(f"joint {index + 1} reads {joints[index]:.4g}, where no arm can be: its range is "
                                   f"{LIMITS.lower_rad[index]:.4g} to {LIMITS.upper_rad[index]:.4g} rad") and "degrees" in text
            joints[index] = bound + sign * 0.999
            assert MeasuredArm(CONFIG).update(report(joints), 1.0) == ""


def test_joints_are_read_by_name_among_others(arm):
    order = [6, 2, 0, 1, 5, 4, 3]
    names = ("finger", *(CONFIG.joint_names[k] for k in order))
    assert arm.update(report(np.array([9.0, *moved(1, 0.01)[order]]), joint_names=names), 10.02) == ""
    np.testing.assert_array_equal(arm.joints, moved(1, 0.01))
    np.testing.assert_allclose(arm.position, MeasuredArm(CONFIG)._kinematics.pose(moved(1, 0.01))[0])


def test_a_controller_is_the_one_that_was_accepted(arm):
    assert MeasuredArm(CONFIG).controller_problem() == "" and arm.controller_problem() == ""
    arm.update(report(controller="soft"), 10.1)
    assert arm.controller_problem() == "the controller changed from '' to 'soft'"
    arm.accept_controller()
    assert arm.controller_problem() == ""
    arm.update(report(controller="soft", controller_ready=False), 10.2)
    assert arm.controller_problem() == "the controller that takes our commands does not run"
    arm.update(report(controller="soft", controller_ready=False, message="it was unloaded"), 10.3)
    assert arm.controller_problem() == "it was unloaded"
