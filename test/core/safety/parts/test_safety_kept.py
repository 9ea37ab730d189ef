"""What is kept between calls: counters, notes, flags and earlier results; and that nothing wrong is kept."""
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from safety_rig import ROBOTS, Rig

from hybridvla_core.geometry import poses, rotations
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import BatchKinematics
from hybridvla_core.safety import limits
from hybridvla_core.safety.execution import reentry as reentry_file
from hybridvla_core.safety.execution.execution import SETTLED, Execution
from hybridvla_core.safety.execution.reentry import INSIDE_RAD, THERE_RAD, Reentry
from hybridvla_core.safety.inputs.watchdogs import DRAIN_S
from hybridvla_core.safety.limits.limit import Trajectory
from hybridvla_core.safety.machine import RAMP_BEGIN
from hybridvla_core.safety.motion.judge import ROUNDING, MotionJudge
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import Goal
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer
FR3, DUAL = (load_robot(ROBOTS / f"{name}.yaml") for name in ("sim_fr3", "sim_dual"))
ARM = FR3.arms[0]
START = np.array([ARM.start_joints_rad])
BEYOND = np.array([0.0, 0, 0, 0, 0, 0, 2.22])          # of the last joint's limit
NEAR = [0.32, 0.03, 0.48]


def free(config):
    return dataclasses.replace(config, deadman_required=False, ramp_s=0.0, speed_scale=1.0)


def outside(rig):
    rig.joints["arm"] = START[0] + BEYOND
    rig.tick(3)
    return rig


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("times", [1.0, SETTLED])
def test_an_arm_is_near_its_target_within_its_tolerances_times_so_much(index, times):
    motion = Motion(DUAL)
    arms = [SimpleNamespace(position=position.copy(), matrix=matrix.copy(), state=None)
            for position, matrix in zip(motion.positions, motion.rotations)]
    execution, rules = Execution(DUAL, motion, arms), DUAL.at_target
    goal = Goal(motion.positions, motion.rotations)
    for share, near in ((0.99, True), (1.01, False)):
        for off, turn in ((share * times * rules.measured_position_m, 0.0), (0.0, share * times * rules.measured_rotation_rad)):
            arms[index].position = motion.positions[index] + off * np.array([0.0, 0.6, -0.8])
            arms[index].matrix = rotations.exp(turn * np.array([0.0, 0.6, -0.8])) @ motion.rotations[index]
            assert execution.measured_near(goal, times) is near
            assert poses.turn(motion.rotations[index], arms[index].matrix) == pytest.approx(turn, abs=1e-9)


def test_a_target_that_was_reached_stays_reached_when_the_arm_is_pushed_a_little():
    rig = Rig(change=free).start()
    rig.tick()
    rig.propose(np.array(rig.pose().position) + [0.0, 0.005, 0.0], rig.pose().quaternion)
    rig.run_until(lambda output: rig.filter._execution.done, 4.0)
    rig.follows = False
    for _ in range(4):                                  # slowly enough for no jump
        rig.joints["arm"] = rig.joints["arm"] + [0.02, 0, 0, 0, 0, 0, 0]
        rig.tick()
    rig.tick(round(FR3.at_target.settle_s / FR3.dt) + 5)
    off = np.linalg.norm(rig.measured_pose("arm").position - rig.pose().position)
    assert SETTLED * FR3.at_target.measured_position_m < off < ARM.leash.distance_m
    assert rig.output.status.reasons == Reason.NONE and rig.filter._execution.done is True


def test_a_hold_is_the_proposal_that_was_taken_last():
    rig = Rig(change=free).start()
    rig.propose(NEAR)
    rig.tick(4)
    assert rig.hold(sequence=40).accepted
    rig.tick(25)
    assert rig.output.status.sequence == 40


@pytest.mark.parametrize("share", [0.02, 0.25, 0.5, 1.0, 2.0])
def test_after_a_start_the_speed_grows_evenly_from_its_beginning(share):
    rig = Rig(change=lambda config: dataclasses.replace(free(config), ramp_s=2.0)).start()
    rig.now += 2.0 * share - FR3.dt                    # a pause: nothing moves while time goes on
    rig.tick()
    assert rig.output.status.applied_scale == pytest.approx(min(1.0, RAMP_BEGIN + (1.0 - RAMP_BEGIN) * share))


def test_stopped_while_inactive_nothing_is_sent_though_it_was_active_before():
    rig = Rig(change=free).start()
    rig.tick(3)
    assert rig.output.arms[0].publish is True
    assert rig.filter.activate(False, rig.now) == (True, "inactive")
    rig.tick()
    rig.filter.stop(rig.now)
    assert rig.tick(2).arms[0].publish is False and rig.filter.state == State.STOPPED
    assert rig.filter.resume(rig.now) == (True, "inactive")
    rig.filter.activate(True, rig.now)
    rig.filter.stop(rig.now)
    assert rig.tick(2).arms[0].publish is True, "stopped while active it holds"
    assert rig.filter.counters["stops"] == 2


def test_a_refused_start_is_noted_until_the_arm_is_inside_again():
    rig = outside(Rig(change=free))
    refused, text = rig.filter.activate(True, rig.now)
    assert refused is False and rig.filter.detail == text
    status = rig.tick().status
    assert status.reasons == Reason.OUTSIDE_AT_START and text in status.message
    rig.joints["arm"] = START[0].copy()
    rig.tick(60)
    assert rig.output.status.reasons == Reason.NONE and rig.filter.detail == ""


def test_what_is_broken_is_said_as_soon_as_the_way_back_begins():
    rig = outside(Rig(change=free))
    done, text = rig.filter.reenter(rig.now)
    assert done and text == f"re-entering: {rig.filter.detail}" and "joint_7" in rig.filter.detail
    rig.filter.stop(rig.now, Reason.OPERATOR, "by hand")
    assert rig.filter.detail == "by hand"


def test_every_limit_and_every_refusal_of_the_last_check_has_its_counter(monkeypatch):
    rig = Rig(change=free).start()
    motion, motion_step = rig.filter._motion, rig.filter._motion.step
    limited, moves = [set(), {"table"}, {"table"}, set(), {"table", "inter_arm"}], [True, True, False, False, True]

    def step(*arguments):
        motion_step(None)
        motion.limited = limited.pop(0)
        return moves.pop(0)
    monkeypatch.setattr(motion, "step", step)
    rig.tick(5)
    counters = rig.filter.counters
    assert counters["limited/table"] == 2 and counters["limited/inter_arm"] == 1 and counters["last_check_refusals"] == 2
    assert not any(name is None for name in counters)


def test_what_arrives_at_the_last_moment_of_a_pause_is_heard_again():
    rig = Rig(change=free).start()
    rig.tick()
    rig.now += rig.config.watchdogs.clock_gap_s + 0.05
    resumed = rig.tick() and rig.now
    while rig.now < resumed + DRAIN_S - 1.5 * FR3.dt:
        rig.tick()
    for at, taken in ((float(np.nextafter(resumed + DRAIN_S, 0.0)), False), (resumed + DRAIN_S, True)):
        assert rig.filter.on_proposal(rig.proposal(NEAR, observation_age=0.0), at).accepted is taken


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("by, counts", [(0.9e-3, False), (2e-3, True)])
def test_at_rest_joints_are_found_anew_where_they_differ_from_what_was_measured(joint, sign, by, counts):
    rig = Rig(change=free).start()
    rig.tick()
    rig.follows = False
    rig.joints["arm"] = START[0] + sign * by * np.eye(7)[joint]
    rig.tick(2)
    before, pose = rig.filter._motion.joints, rig.pose().position.copy()
    assert rig.propose(NEAR).accepted
    assert rig.filter.counters.get("reposes", 0) == int(counts)
    assert np.array_equal(rig.filter._motion.joints, before) is not counts
    np.testing.assert_allclose(rig.filter._motion.pose_of(rig.filter._motion.joints)[0][0], pose, atol=1e-9)


def test_quaternions_of_a_motion_never_change_their_sign():
    rig = Rig(change=free).start()
    rig.tick()
    turned = rotations.exp(np.array([0.3, -0.4, 0.5])) @ rotations.to_matrix(rig.pose().quaternion)
    rig.propose(rig.pose().position, rotations.to_quaternion(turned))
    rig.tick(40)
    sent = np.array([output.arms[0].pose.quaternion for output in rig.sent[3:]])
    assert (np.sum(sent[1:] * sent[:-1], axis=1) > 0.99).all() and np.abs(sent[-1] - sent[0]).max() > 1e-3


def trajectory(config, *joints):
    return Trajectory(np.stack(joints, axis=1), config.dt, BatchKinematics(config.arms))


@pytest.mark.parametrize("name", ["inter_arm", "self_collision", "table"])
def test_the_room_that_is_remembered_is_the_one_where_the_command_is(name):
    """It bounds how far the arms may go before the next check: too large a value would let them pass a limit."""
    start = np.array([arm.start_joints_rad for arm in DUAL.arms])
    near = start.copy()
    near[0, 0], near[1, 0] = 1.0, -1.0
    near[:, 1] += 0.9
    near[:, 3] = -2.9

    def limit(config):
        return next(each for each in limits.build(config) if each.name == name)

    def room(joints):
        return float(limit(DUAL).margins(trajectory(DUAL, joints, joints, joints)).min())
    one, other = (near, start) if room(near) < room(start) else (start, near)
    assert room(other) > room(one) + 1e-3
    judged, there = limit(DUAL), room(one)
    judged.margins(trajectory(DUAL, one, one, other))
    assert judged.certainly_kept(trajectory(DUAL, one, one, one)) is (there > 0.0), "what is broken here is not kept"
    assert float(np.min(judged._clearance._rooms)) == pytest.approx(there, abs=1e-9)


def test_arms_without_pairs_of_links_that_may_meet_have_no_margins_of_them():
    arms = tuple(dataclasses.replace(arm, collision=dataclasses.replace(arm.collision, pairs=())) for arm in DUAL.arms)
    start = np.array([arm.start_joints_rad for arm in arms])
    none = next(each for each in limits.build(dataclasses.replace(DUAL, arms=arms)) if each.name == "self_collision")
    assert none.margins(trajectory(DUAL, *[start] * 30)).shape == (0,)


def test_relaxed_a_limit_that_is_kept_must_stay_kept_and_a_broken_one_gets_no_worse():
    judge, high = MotionJudge(FR3, Motion(FR3)._arms), ARM.joint_limits.upper_rad[6] - ARM.joint_limits.margin_rad
    judge.relaxed = True

    def kept(here, there):
        at = [np.where(np.arange(7) == 6, high + value, START) for value in (here, there)]
        limit = next(each for each in judge.limits if each.name == "joint_position")
        return judge._keeps(limit, trajectory(FR3, at[0], at[0], at[1]), at[0])
    assert kept(-0.01, -0.001) is True and kept(-0.01, 0.5 * ROUNDING) is True
    assert kept(-0.01, 1e-6) is False and kept(-1e-4, 0.5) is False
    assert kept(0.2, 0.2) is True and kept(0.2, 0.1) is True and kept(0.2, 0.2 + 1e-6) is False


class Told:
    """A motion that records the calls it receives, with limits broken as the test says; the ways out are scripted, too."""

    def __init__(self, *broken):
        self.broken, self.joints, self.asked, self.forgiven = set(broken), START + 0.01, [], []
        self.positions, self.rotations = np.array([[0.5, 0.0, 0.4]]), np.eye(3)[None]
        self.at_rest, self.relaxed, self.factor, self.limits = True, False, 0.5, []

    def places(self, joints):
        return [(SimpleNamespace(name=name), np.array([-0.1 if name in self.broken else 1.0]))
                for name in ("joint_position", "workspace", "table")]

    def step(self, goal, scale=1.0):
        self.asked.append("rest" if goal is None else "tool")
        return True

    def step_joints(self, goal, scale):
        self.asked.append(("joints", goal, scale))
        return True

    def forgive(self, joints):
        self.forgiven.append(joints)


@pytest.fixture
def back(monkeypatch):
    ways = []

    def find(joints, seed):
        yield
        return ways.pop(0)
    monkeypatch.setattr(reentry_file, "WayOut", lambda *_: SimpleNamespace(find=find, find_back=find))
    return lambda motion, *found: ways.extend(found) or Reentry(FR3, motion)


def test_joints_are_led_in_first_then_the_tool_and_only_for_the_rest_a_way_is_looked_for(back):
    motion = Told("joint_position", "workspace", "table")
    motion.joints = START + 9.0
    way = back(motion, None)
    assert way.step(0.3) is True and motion.relaxed is True
    (kind, goal, scale), = motion.asked
    assert kind == "joints" and scale == 0.3
    np.testing.assert_allclose(goal, [np.array(ARM.joint_limits.upper_rad) - ARM.joint_limits.margin_rad - INSIDE_RAD])
    motion.broken = {"workspace"}
    way.step(0.3)
    motion.broken = {"workspace", "table"}
    way.step(0.3)
    assert motion.asked[1:] == ["tool", "rest"] and way._looked == 1, "it rests, and a way is looked for"
    motion.broken = set()
    way.step(0.3)
    assert way.finished is True


def test_a_way_that_was_found_is_gone_leg_by_leg_and_what_is_left_at_its_end_is_tried_anew(back):
    motion, first, second = Told("table"), START + 0.2, START + 0.3
    way = back(motion, [first, second], [first])
    begun = motion.joints
    while way._legs is None:
        way.step(0.3)
    assert motion.factor == 1.0 and motion.asked[-1] == "rest" and not motion.forgiven
    way.step(0.3)
    assert motion.asked[-1][1] is first and motion.forgiven == [begun, None], "no worse than where the way began"
    motion.joints = first + 0.9 * THERE_RAD
    way.step(0.3)
    assert motion.asked[-1][1] is second and motion.asked[-1][2] == 0.3
    motion.joints = second - 1.1 * THERE_RAD
    way.step(0.3)
    assert motion.asked[-1][1] is second, "not there yet"
    motion.joints, looked = second, way._looked
    way.step(0.3)
    assert motion.asked[-1] == "rest" and way._looked == looked == 1
    while way._legs is None:
        way.step(0.3)
    assert way._looked == 2 and way.stuck is False
    motion.joints = second + 0.1
    way.step(0.3)
    assert motion.asked[-1][1] is first
