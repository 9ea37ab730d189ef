"""The measured arms as a second judge, without a motion: what counts, beyond which bound, for which arm, and how often."""
import dataclasses
import math

import numpy as np
import pytest

from hybridvla_core.contracts import ArmState, GripperState, Pose
from hybridvla_core.geometry import rotations
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety.counters import new_counters
from hybridvla_core.safety.inputs.measured_arms import PAIRING_S, SETTLED_S, MeasuredArms
from hybridvla_core.safety.inputs.measured_limits import NEARER_M, OUTSIDE_M, OUTSIDE_RAD, MeasuredLimits
from hybridvla_core.safety.inputs.whereabouts import KEPT_RAD, LOST_RAD, Whereabouts
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.status import Reason

pytestmark = pytest.mark.robot_computer
DUAL = load_robot(ROOT / "config" / "robots" / "sim_dual.yaml")
NAMES = [arm.name for arm in DUAL.arms]
START = np.array([arm.start_joints_rad for arm in DUAL.arms])
LIMITS = DUAL.arms[0].joint_limits


def report(index, joints=None, **changes):
    arm = DUAL.arms[index]
    state = ArmState(arm.name, arm.joint_names, np.array(START[index] if joints is None else joints), None, None, 1.0,
                     GripperState.DONE)
    return dataclasses.replace(state, **changes)


class Seen:
    """Measured arms that have not moved for long. `tell` advances the time by a tick."""

    def __init__(self, config=DUAL):
        self.counters, self.now = new_counters(), 50.0
        self.arms = MeasuredArms(config, self.counters)
        self.tell()
        self.now += 1.0
        self.tell()

    def tell(self, index=None, joints=None, **changes):
        self.now += 0.005
        for each in range(2) if index is None else [index]:
            assert self.arms.update(report(each, joints, **changes), self.now) == ""
        for each in range(2) if index is not None else []:
            if each != index:
                assert self.arms.update(report(each), self.now) == ""

    def look(self, judge=True, resting=True):
        return self.arms.look(self.now, judge, resting)


def beyond(by, joint=6):
    joints = START[0].copy()
    joints[joint] = LIMITS.upper_rad[joint] + by
    return joints


def settle(seen, index, joints, **changes):
    """Report a jump for long enough that the arm is believed again."""
    seen.arms.update(report(index, joints, **changes), seen.now)
    seen.now += 0.3
    seen.tell(index, joints, **changes)


@pytest.mark.parametrize("index", [0, 1])
def test_an_arm_outside_counts_once_while_it_lasts_and_again_when_it_comes_again(index):
    seen = Seen()
    assert seen.look() == (Reason.NONE, "") and seen.counters["measured_violations"] == 0
    for times in (1, 2):
        settle(seen, index, beyond(0.02))
        for _ in range(3):
            assert seen.look() == (Reason.MEASURED_LIMIT, f"{NAMES[index]}: joint 7 is 0.020 rad outside its limit")
            assert seen.counters["measured_violations"] == times
        assert seen.look(judge=False) == (Reason.NONE, ""), "not judged while nothing moves it"
        settle(seen, index, START[index])
        assert seen.look() == (Reason.NONE, "")
    assert seen.counters["measured_violations"] == 2


def test_the_first_arm_is_named_and_the_flags_of_both_are_there():
    seen = Seen()
    settle(seen, 1, beyond(0.02))
    seen.arms.update(report(0, ready=False, message="reflex"), seen.now)
    assert seen.look() == (Reason.ROBOT_MODE | Reason.MEASURED_LIMIT, f"{NAMES[0]}: reflex")
    assert seen.arms.errored() == (NAMES[0],)
    seen.arms.update(report(0), seen.now)
    seen.arms.update(report(1, beyond(0.02), controller_ready=False), seen.now)
    assert seen.arms.errored() == (NAMES[1],) and seen.look() == (
        Reason.CONTROLLER | Reason.MEASURED_LIMIT, f"{NAMES[1]}: the controller that takes our commands does not run")


def test_of_two_arms_the_one_that_stops_both_is_named_and_of_two_that_do_the_first():
    seen = Seen()
    settle(seen, 0, beyond(0.02))
    seen.arms.update(report(1, ready=False, message="reflex"), seen.now)
    assert seen.look() == (Reason.ROBOT_MODE | Reason.MEASURED_LIMIT, f"{NAMES[1]}: reflex")
    seen.arms.update(report(0, beyond(0.02), controller_ready=False), seen.now)
    assert seen.look() == (Reason.ROBOT_MODE | Reason.CONTROLLER | Reason.MEASURED_LIMIT,
                           f"{NAMES[0]}: the controller that takes our commands does not run")


def test_an_arm_falls_silent_after_its_time_and_is_unknown_from_then_on():
    seen, limit = Seen(), DUAL.watchdogs.joint_state_s
    heard = seen.now
    seen.arms.update(report(1), heard + limit)
    for late, silent in ((0.99, False), (1.01, True)):
        seen.now = heard + late * limit
        assert seen.arms.heard(0, seen.now) is not silent and seen.arms.heard(1, seen.now) is True
        reasons, text = seen.look()
        assert (reasons == Reason.JOINT_STATE) is silent and seen.arms.unknown == ({NAMES[0]} if silent else set())
    assert text == f"{NAMES[0]}: no usable joint states for {1.01 * limit:.2f} s; check the driver"
    assert seen.arms.not_ready(seen.now) == text
    assert MeasuredArms(DUAL, new_counters()).not_ready(1.0) == f"{NAMES[0]}: no joint states yet; check the driver"
    assert MeasuredArms(DUAL, new_counters()).heard(0, 1.0) is False
    assert seen.arms.update(dataclasses.replace(report(0), name="leg"), 60.0) == "there is no arm 'leg'; check the driver"
    assert seen.arms.update(report(1, joint_positions=np.zeros(2)), 60.0) == (
        f"{NAMES[1]}: joint states carry 2 positions for 7 names; check the driver")


def test_joint_states_that_come_late_by_their_own_stamps_say_by_how_much():
    seen = Seen()
    for index in range(2):
        for stamp, now in ((10.0, 60.0), (10.1, 60.1 + (0.35 if index else 0.0))):
            seen.arms.update(report(index, stamp=stamp), now)
    seen.arms.update(report(0, stamp=10.45), 60.45)
    seen.now = 60.46
    reasons, text = seen.look()
    assert reasons == Reason.JOINT_STATE
    assert text == f"{NAMES[1]}: joint states come 0.35 s later than they did, by their own stamps; check the driver"


def test_what_may_begin_and_what_may_not():
    seen = Seen()
    assert seen.arms.not_ready(seen.now) == ""
    seen.tell(1, START[1] + 0.004)
    assert seen.arms.not_ready(seen.now) == f"{NAMES[1]}: the arm is still moving; wait until it rests"
    assert seen.arms.not_ready(seen.now, others_move=True) == ""
    seen.now += 0.2
    seen.tell()
    seen.now += 0.15
    seen.tell(0, None, ready=False)
    assert seen.arms.not_ready(seen.now) == f"{NAMES[0]}: the robot does not accept commands; recover it first"
    seen.tell(0, None, controller="soft")
    assert seen.look()[0] == Reason.CONTROLLER and seen.arms.not_ready(seen.now) == "", "the one that runs is accepted"
    seen.arms.accept_controllers()
    assert seen.look() == (Reason.NONE, "")
    seen.tell()
    assert seen.look() == (Reason.CONTROLLER, f"{NAMES[0]}: the controller changed from 'soft' to ''")


def own_pose(seen, index, off=(0.0, 0.0, 0.0), turn=0.0):
    arm = list(seen.arms)[index]
    return Pose(arm.position + np.array(off), rotations.to_quaternion(rotations.exp(np.array([0.0, turn, 0.0])) @ arm.matrix))


@pytest.mark.parametrize("index", [0, 1])
def test_the_drivers_own_tool_pose_may_be_a_little_off_and_a_little_more_while_the_arm_moves(index):
    near, angle = DUAL.tcp_tolerance_m, DUAL.tcp_tolerance_rad
    rules = DUAL.arms[index].cartesian_limits
    for off, turn, settled, on_the_way in (
            (0.99 * near, 0.0, True, True), (1.01 * near, 0.0, False, True), (0.0, 0.99 * angle, True, True),
            (0.0, 1.01 * angle, False, True), (near + 0.99 * PAIRING_S * rules.speed_m_s, 0.0, False, True),
            (near + 1.01 * PAIRING_S * rules.speed_m_s, 0.0, False, False),
            (0.0, angle + 0.99 * PAIRING_S * rules.rotation_speed_rad_s, False, True),
            (0.0, angle + 1.01 * PAIRING_S * rules.rotation_speed_rad_s, False, False)):
        seen = Seen()
        pose = own_pose(seen, index, (0.0, off, 0.0), turn)
        seen.look(resting=False)
        seen.now += 0.9 * SETTLED_S
        seen.tell(index, START[index], pose=pose)
        assert (seen.look()[0] == Reason.NONE) is on_the_way, (off, turn)
        text = (f"{NAMES[index]}: the driver's tool pose differs from ours by {off * 1e3:.1f} mm and {math.degrees(turn):.2f} "
                "degrees; check the tool in config/robots")
        assert seen.arms.tool_problem() == ("" if settled else text)
        seen.now += 0.2 * SETTLED_S
        seen.tell(index, START[index], pose=pose)
        assert seen.look() == ((Reason.NONE, "") if settled else (Reason.TCP_MISMATCH, text))
        assert seen.look(judge=False) == (Reason.NONE, "")


def crossed(index=0):
    """Return a configuration with a plane that one arm's tool has crossed by 30 mm."""
    position = Motion(DUAL).positions[index]
    plane = Plane("glass", (0.0, 0.0, 1.0), float(position[2]) + 0.03)
    arms = list(DUAL.arms)
    arms[index] = dataclasses.replace(arms[index], workspace=dataclasses.replace(arms[index].workspace, planes=(plane,)))
    return dataclasses.replace(DUAL, arms=tuple(arms))


@pytest.mark.parametrize("index", [0, 1])
def test_a_measured_tool_beyond_a_plane_is_a_breach_by_more_than_its_tolerance(index):
    limits = MeasuredLimits(crossed(index))
    flag, text = limits.breach(START)
    assert flag == Reason.MEASURED_LIMIT
    assert text == f"{NAMES[index]}/workspace/glass is broken by the measured arm, by 0.030 m; see what moved it"
    assert OUTSIDE_M == 0.02 and MeasuredLimits(DUAL).breach(START) == (Reason.NONE, "")
    assert limits.relaxed is False
    limits.relax(START)
    assert limits.relaxed is True and limits.breach(START) == (Reason.NONE, ""), "no worse than where it began"
    lower = START.copy()
    lower[index, 1] += 0.15                                   # the arm leans forward and down
    assert limits.breach(lower)[0] == Reason.MEASURED_LIMIT
    limits.relax(None)
    assert limits.relaxed is False and limits.breach(START)[0] == Reason.MEASURED_LIMIT
    unknown = START.copy()
    unknown[1 - index, 2] = math.nan
    assert limits.breach(unknown) == (Reason.NONE, "") and limits.margins(unknown) == []


def test_a_measured_joint_is_a_breach_beyond_its_margin_and_tolerance_and_the_worst_is_named():
    limits = MeasuredLimits(DUAL)
    for by, broken in ((0.9 * OUTSIDE_RAD, False), (1.1 * OUTSIDE_RAD, True)):
        joints = START.copy()
        joints[1] = beyond(by)
        assert bool(limits.breach(joints)[0]) is broken
    assert limits.breach(joints)[1].startswith(f"{NAMES[1]}/joint_7/position is broken by the measured arm, by ")
    joints[0] = beyond(2.0 * OUTSIDE_RAD)
    assert limits.breach(joints)[1].startswith(f"{NAMES[0]}/joint_7/position"), "the worst of them"
    margins = {margin.name: margin for margin in limits.margins(START)}
    name = f"measured/{NAMES[0]}/joint_2/position"
    room = min(START[0, 1] - LIMITS.lower_rad[1], LIMITS.upper_rad[1] - START[0, 1]) - LIMITS.margin_rad
    assert margins[name].margin == pytest.approx(room) and margins[name].unit == "rad" and margins[name].active is False


def test_measured_arms_too_near_each_other_raise_the_flags_of_both():
    near = dataclasses.replace(DUAL, inter_arm_margin_m=5.0)
    limits = MeasuredLimits(near)
    room = {margin.name: margin.margin for margin in limits.margins(START)}["measured/inter_arm"]
    assert room < -NEARER_M
    flag, text = limits.breach(START)
    assert flag == Reason.MEASURED_LIMIT | Reason.COLLISION | Reason.OTHER_ARM
    assert text == f"inter_arm is broken by the measured arm, by {-room:.3f} m; see what moved it"
    for margin, broken in ((5.0 + room + 0.9 * NEARER_M, False), (5.0 + room + 1.1 * NEARER_M, True)):
        assert bool(MeasuredLimits(dataclasses.replace(DUAL, inter_arm_margin_m=margin)).breach(START)[0]) is broken
    seen = Seen(near)
    assert seen.look() == (flag, text) and seen.counters["measured_violations"] == 1
    assert seen.look() == (flag, text) and seen.counters["measured_violations"] == 1


@pytest.mark.parametrize("door, coupled", [("cartesian", True), ("joint", False)])
def test_an_arm_that_moved_while_it_was_silent_is_lost_and_one_that_did_not_is_not(door, coupled):
    config = dataclasses.replace(DUAL, door=door, coupled=coupled)
    seen, near = Seen(config), {0: True, 1: True, None: True}
    where = Whereabouts(config, Motion(config), seen.arms, lambda index: near[index])
    assert where.lost() == [] and where.unheard(NAMES[0]) is False
    seen.arms.unknown = {NAMES[1]}
    assert where.lost() == [] and where.unheard(NAMES[1]) is True and where.unheard(NAMES[0]) is coupled
    seen.arms.unknown = set()
    assert where.lost() == [] and where.unheard(NAMES[1]) is False
    near[1] = False
    assert where.lost() == [], "it was not silent"
    seen.arms.unknown = {NAMES[1]}
    where.lost()
    seen.arms.unknown = set()
    assert where.lost() == [NAMES[1]]
    near[1] = True
    for moved, lost in ((0.9 * LOST_RAD, []), (1.1 * LOST_RAD, [NAMES[1]] if door == "joint" else [])):
        seen.arms.unknown = {NAMES[1]}
        where.lost()
        seen.arms.unknown = set()
        settle(seen, 1, START[1] - np.array([0, 0, moved, 0, 0, 0, 0]))
        assert where.lost() == lost


def test_arms_that_rest_under_their_last_command_are_undisturbed_until_something_moves_them():
    seen, near = Seen(), {None: True}
    where = Whereabouts(DUAL, Motion(DUAL), seen.arms, lambda index: near[index])
    assert where.undisturbed is False
    where.keep(False)
    assert where.undisturbed is False
    where.keep(True)
    assert where.undisturbed is True
    seen.tell(1, START[1] + 0.9 * KEPT_RAD)
    where.look(disturbed=False)
    assert where.undisturbed is True
    near[None] = False
    assert where.undisturbed is False
    near[None] = True
    seen.tell(1, START[1] - 1.1 * KEPT_RAD)
    where.look(disturbed=False)
    assert where.undisturbed is False
    where.keep(True)
    where.look(disturbed=True)
    assert where.undisturbed is False
    where.keep(True)
    where.forget()
    assert where.undisturbed is False
    where.silent.add(NAMES[0])
    where.keep(True)
    assert where.undisturbed is False
