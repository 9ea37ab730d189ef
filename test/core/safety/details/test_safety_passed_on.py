"""What one part passes on to the next: postures, clocks, refusals, paths between checks, and when a short arrival is reported."""
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from safety_rig import ROBOTS, Rig

from hybridvla_core.contracts import Pose
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import BatchKinematics
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety.execution.execution import SETTLED, Execution
from hybridvla_core.safety.execution.plan import WALL_M, Plan
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.inputs.acceptance import SHOWN_S
from hybridvla_core.safety.inputs.bases import FAR_M
from hybridvla_core.safety.inputs.measured_arm import MeasuredArm
from hybridvla_core.safety.limits.capsules import STRIDE, Clearance
from hybridvla_core.safety.limits.inter_arm import InterArmLimit
from hybridvla_core.safety.limits.limit import Trajectory
from hybridvla_core.safety.motion.braking import Braking
from hybridvla_core.safety.motion.judge import MotionJudge
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import PLAN, Goal
from hybridvla_core.safety.motion.solver import RATE_SHARE, StepSolver
from hybridvla_core.safety.status import Reason

pytestmark = pytest.mark.robot_computer
FR3, DUAL = (load_robot(ROBOTS / f"{name}.yaml") for name in ("sim_fr3", "sim_dual"))
NEAR = [0.32, 0.03, 0.48]


def free(config):
    return dataclasses.replace(config, deadman_required=False, ramp_s=0.0, speed_scale=1.0)


@pytest.mark.parametrize("count", [9, 14, 15, 31])
def test_between_looks_every_arm_may_have_gone_half_its_way(count):
    rng = np.random.default_rng(count)
    reaches, joints = rng.uniform(0.1, 1.0, (3, 2, 7)), np.cumsum(rng.normal(size=(2, count, 7)), axis=1)
    picks, ways = Clearance(reaches).samples(Trajectory(joints, 0.01, BatchKinematics(DUAL.arms)))
    expected = sorted({*range(2, count, STRIDE), count - 1})
    assert picks.tolist() == expected
    for arm in range(2):
        gone = [sum(np.abs(joints[arm, tick] - joints[arm, tick - 1]) @ reaches[:, arm].max(axis=0)
                    for tick in range(begin + 1, end + 1)) for begin, end in zip(expected, expected[1:])]
        assert ways[arm] == pytest.approx(0.5 * max(gone))


def test_where_every_tick_is_looked_at_there_is_no_way_between():
    joints = np.cumsum(np.ones((2, 4, 7)), axis=1)
    picks, ways = Clearance(np.ones((3, 2, 7))).samples(Trajectory(joints[:, :3], 0.01, BatchKinematics(DUAL.arms)))
    assert picks.tolist() == [2] and ways.tolist() == [0.0, 0.0]


def test_room_that_was_measured_lets_the_joints_go_exactly_so_far():
    reaches = np.zeros((2, 2, 7))
    reaches[0, 0, 3], reaches[1, 1, 2], reaches[1, 0, 3] = 0.5, 0.25, 0.1
    clearance = Clearance(reaches)

    def suffices(first, second):
        joints = np.zeros((2, 4, 7))
        joints[0, 2:, 3], joints[1, 2:, 2] = first, second
        return clearance.suffices(Trajectory(joints, 0.01, BatchKinematics(DUAL.arms)))
    assert suffices(0.0, 0.0) is False, "nothing has been measured"
    clearance.remember(np.zeros((2, 7)), np.array([0.1, 0.1]))
    assert suffices(0.19, 0.0) and suffices(-0.19, 0.0) and not suffices(0.21, 0.0) and not suffices(-0.21, 0.0)
    assert suffices(0.0, 0.39) and not suffices(0.0, 0.41)
    assert suffices(0.19, 0.3) and not suffices(0.19, 0.33), "0.1 x 0.19 of it the other arm takes"


@pytest.mark.parametrize("index", [0, 1])
def test_an_arm_that_stops_short_of_its_target_is_said_when_it_had_its_time(index):
    motion, rules = Motion(DUAL), DUAL.at_target
    arms = [SimpleNamespace(name=arm.name, position=p.copy(), matrix=m, state=None)
            for arm, p, m in zip(DUAL.arms, motion.positions, motion.rotations)]
    short = 1.5 * SETTLED * rules.measured_position_m
    arms[index].position -= short * np.array([0.6, 0.0, -0.8])
    execution = Execution(DUAL, motion, arms)
    plan = SimpleNamespace(done=False, arrived_at=None, asked=Goal(motion.positions, motion.rotations), keyframe=False,
                           last_row=True)
    goal = plan.asked
    for at, said in ((0.0, False), (0.99 * rules.settle_s, False), (rules.settle_s, True), (rules.settle_s + 5.0, True)):
        execution.detail = ""
        assert execution._settle(plan, goal, 70.0 + at, False, 1.0) == (Reason.LEASH if said else Reason.NONE)
        expected = f"{DUAL.arms[index].name}: the arm stands {short * 1e3:.0f} mm from its target; " if said else ""
        assert execution.detail.startswith(expected) and bool(execution.detail) is said
        assert plan.done is False and plan.arrived_at == 70.0
    arms[index].position = motion.positions[index] - 0.9 * (motion.positions[index] - arms[index].position) / 1.5
    assert execution._settle(plan, goal, 70.0 + 0.5 * rules.settle_s, False, 1.0) == Reason.NONE and plan.done is False
    assert execution._settle(plan, goal, 70.0 + rules.settle_s, False, 1.0) == Reason.NONE and plan.done is True


def test_in_a_dry_run_it_counts_what_is_commanded():
    motion = Motion(DUAL)
    arms = [SimpleNamespace(name=arm.name, position=p + 0.5, matrix=m, state=None)
            for arm, p, m in zip(DUAL.arms, motion.positions, motion.rotations)]
    execution, goal = Execution(DUAL, motion, arms), Goal(motion.positions, motion.rotations)
    plan = SimpleNamespace(done=False, arrived_at=None, asked=goal, keyframe=False, last_row=True)
    assert execution._settle(plan, goal, 1.0, True, 1.0) == Reason.NONE and plan.done is True


@pytest.mark.parametrize("robot", ["sim_fr3", "sim_dual"])
def test_the_null_space_leans_towards_the_start_joints_at_the_speed_that_is_applied(robot, monkeypatch):
    rig = Rig(robot, change=lambda config: dataclasses.replace(free(config), speed_scale=0.3)).start()
    rig.tick()
    seen, step = [], rig.filter._motion.step

    def noted(goal, scale=1.0, posture=None):
        seen.append((goal, scale, posture))
        return step(goal, scale, posture)
    monkeypatch.setattr(rig.filter._motion, "step", noted)
    rig.propose([np.array(rig.pose(index).position) + [0.0, 0.01, 0.0] for index in range(len(rig.config.arms))])
    rig.tick()
    (goal, scale, posture), = seen
    np.testing.assert_array_equal(posture, [arm.start_joints_rad for arm in rig.config.arms])
    assert goal is not None and scale == 0.3


@pytest.mark.parametrize("simulated", [False, True])
def test_reports_that_come_later_and_later_count_by_our_clock_and_not_by_a_simulated_one(simulated):
    rig = Rig(change=free)
    rig.filter = SafetyFilter(rig.config, simulated_time=simulated)
    for _ in range(round(4.0 * rig.config.watchdogs.joint_state_s / rig.config.dt)):
        rig.changes = dict(stamp=1000.0 + 0.5 * (rig.now - 100.0))
        rig.tick()
    assert bool(rig.output.status.reasons & Reason.JOINT_STATE) is not simulated


@pytest.mark.parametrize("away, taken", [(0.99 * FAR_M, True), (1.01 * FAR_M, False)])
def test_a_step_from_another_place_is_refused_and_that_is_shown_for_a_while(away, taken):
    rig = Rig(change=free).start()
    rig.tick(2)
    here = rig.pose()
    proposal = rig.proposal(NEAR, seed=1)
    base = Pose(np.array(here.position) + away * np.array([0.6, 0.0, 0.8]), here.quaternion)
    target = dataclasses.replace(proposal.targets[0], base=base)
    answer = rig.filter.on_proposal(dataclasses.replace(proposal, targets=(target,)), rig.now)
    assert answer.accepted is taken
    begun = rig.now
    if not taken:
        text = f"arm: its base lies {away * 1e3:.0f} mm from where the arm has been commanded; it was made for another place"
        assert answer.reason == text
        rig.run_until(lambda output: text in output.status.message, 0.3)
        assert rig.output.status.reasons == Reason.PROPOSAL_STALE
        rig.run_until(lambda output: text not in output.status.message, 2.0 * SHOWN_S)
        assert rig.now - begun == pytest.approx(SHOWN_S, abs=0.15)
        assert rig.filter.counters["rejected/proposal_stale"] == 1


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_way_to_rest_has_the_time_that_bending_needs(sign):
    arms = tuple(dataclasses.replace(arm, joint_limits=dataclasses.replace(arm.joint_limits, acceleration_rad_s2=(2.0,) * 7))
                 for arm in DUAL.arms)                     # so weak that the joints are the binding limit
    config = dataclasses.replace(DUAL, arms=arms)
    motion = Motion(config)
    judge, velocity, bend = MotionJudge(config, motion._arms), np.zeros((2, 7)), np.zeros((2, 7))
    velocity[1, 3], bend[1, 3] = 0.4, 1.2 * sign
    twist = np.stack([arm.jacobian(joints) @ speed for arm, joints, speed in zip(motion._arms, motion.joints, velocity)])
    ticks = Braking(arms, DUAL.dt).ticks(twist, velocity, bend)
    _, path = judge.first_broken(motion.joints, motion.joints, motion.joints + velocity * DUAL.dt, bend)
    assert path.shape == (2, ticks, 7)
    assert (ticks > judge.braking_ticks(twist, velocity)) is (sign < 0.0), "only where bending brakes the joint as well"


@pytest.mark.parametrize("index", [0, 1])
def test_a_goal_outside_is_brought_inside_on_the_line_from_where_the_arms_are_commanded(index):
    motion = Motion(DUAL)
    execution = Execution(dataclasses.replace(DUAL, coupled=False), motion, [])
    rig = Rig("sim_dual")
    wanted = motion.positions.copy()
    wanted[index, 1] += 9.0
    execution.take(rig.proposal(wanted), 1.0)
    goal, high = execution.goal(1.0).positions, DUAL.arms[index].workspace.upper_m[1]
    np.testing.assert_allclose(goal[index, [0, 2]], motion.positions[index, [0, 2]], atol=1e-9)
    assert high - 1e-3 < goal[index, 1] < high
    np.testing.assert_array_equal(goal[1 - index], motion.positions[1 - index])
    np.testing.assert_array_equal(execution.asked.positions, wanted)


@pytest.mark.parametrize("coupled, kept, passes", [(True, (0.5, 0.8), 2), (True, (0.8, 0.4), 2), (True, (1.0, 1.0), 1),
                                                   (False, (0.5, 0.8), 1), (True, (1.0, 0.9985), 2), (True, (0.9995, 1.0), 1)])
def test_coupled_arms_are_shortened_alike_by_the_one_that_keeps_least(coupled, kept, passes, monkeypatch):
    motion = Motion(dataclasses.replace(DUAL, coupled=coupled))
    asked = [[], []]
    for index, solver in enumerate(motion._solvers):
        def step(jacobian, displacement, drift, lean, lower, upper, index=index):
            asked[index].append(displacement)
            return np.full(7, 1e-5), kept[index], np.full(7, 0.1 * index)
        monkeypatch.setattr(solver, "step", step)
    assert motion.step(Goal(motion.positions + [0.05, 0.0, -0.02], motion.rotations.copy()))
    for index in range(2):
        assert len(asked[index]) == passes and np.linalg.norm(asked[index][0]) > 0.0
        if passes == 2:
            np.testing.assert_allclose(asked[index][1], min(kept) * asked[index][0], rtol=1e-12)
    assert ("joint_step" in motion.limited) is (min(kept) < 0.999)


def test_the_pursuit_is_told_all_that_it_needs(monkeypatch):
    motion, told = Motion(FR3), []
    goal = Goal(motion.positions + [0.05, 0.0, -0.02], motion.rotations.copy(), 0.7)
    for _ in range(5):
        assert motion.step(goal)
    before, original = (motion.error(goal), motion.twist.copy(), motion.acceleration.copy()), motion._pursuit.next_twist

    def noted(*arguments):
        told.append(arguments)
        return original(*arguments)
    monkeypatch.setattr(motion._pursuit, "next_twist", noted)
    joints = motion.joints
    assert motion.step(goal, 0.6)
    (error, twist, acceleration, scale, seconds, loads), = told
    for value, expected in zip((error, twist, acceleration), before):
        np.testing.assert_array_equal(value, expected)
    assert scale == pytest.approx(0.6) and seconds == 0.7
    np.testing.assert_allclose(loads, [motion._solvers[0].loads(motion._arms[0].jacobian(joints[0]))])


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("room, braking_s", [(0.02, 0.0), (0.3, 0.1), (0.02, 1.0), (1e-5, 0.0)])
def test_a_joint_is_as_fast_towards_its_limit_as_it_can_brake(joint, side, room, braking_s):
    arm, dt = FR3.arms[0], FR3.dt
    limits = arm.joint_limits
    q = 0.5 * (np.array(limits.lower_rad) + np.array(limits.upper_rad))
    q[joint] = (limits.upper_rad[joint] - limits.margin_rad - room if side > 0
                else limits.lower_rad[joint] + limits.margin_rad + room)
    a = PLAN * RATE_SHARE * limits.acceleration_rad_s2[joint]
    alone = a * (np.sqrt(2.25 * dt * dt + 2.0 * room / a) - 1.5 * dt)          # v^2 / (2 a) + 1.5 v dt = room
    speed = min(alone, room / (1.5 * dt + 0.5 * braking_s), RATE_SHARE * limits.velocity_rad_s[joint])
    last = np.zeros(7)
    last[joint] = side * speed * dt
    lower, upper = StepSolver(arm, dt).bounds(q, last, braking_s)
    assert (upper if side > 0 else lower)[joint] == pytest.approx(side * speed * dt, rel=1e-9)
    assert (lower <= upper).all()


def test_one_arm_alone_has_no_other_to_keep_clear_of():
    limit, joints = InterArmLimit(FR3.arms, 0.05), np.zeros((1, 3, 7))
    assert limit.margins(Trajectory(joints, 0.01, BatchKinematics(FR3.arms))).shape == (0,) and limit.names == ()
    assert limit.certainly_kept(Trajectory(joints, 0.01, BatchKinematics(FR3.arms))) is True


def test_a_late_drivers_clock_that_is_set_ahead_is_measured_from_there():
    arm, rig = MeasuredArm(FR3.arms[0]), Rig()

    def told(stamp, at):
        arm.update(dataclasses.replace(rig.arm_state("arm"), stamp=stamp), at)
        return arm.lateness
    assert told(10.0, 100.0) == 0.0 and told(10.1, 103.1) == pytest.approx(3.0, abs=0.01)
    assert told(12.2, 103.2) == 0.0, "it gained two seconds, which says nothing of how late it is"
    assert told(12.3, 103.4) == pytest.approx(0.1, abs=1e-3)


def test_a_dry_run_looks_at_no_push_and_at_no_measured_arm():
    rig = Rig(dry_run=True, change=free).start()
    rig.tick()
    begin = np.array(rig.pose().position)
    rig.propose(begin + [0.1, 0.05, -0.05], rig.pose().quaternion, valid_for=20.0)
    rig.run_until(lambda output: output.status.at_target, 5.0)
    assert rig.output.status.reasons == Reason.NONE and not any(output.status.reasons & Reason.LEASH for output in rig.sent)
    assert np.linalg.norm(rig.pose().position - begin) > rig.config.arms[0].leash.distance_m
    assert not any(output.arms[0].publish for output in rig.sent)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("begin, beyond, share", [(0.06, 0.03, None), (0.06, -0.01, 1.0), (-0.02, 0.05, 0.0), (-0.02, -0.2, 1.0)])
def test_a_target_beyond_a_plane_is_scaled_to_where_its_line_meets_it(index, begin, beyond, share):
    """begin: distance of the start in front of the plane, m; beyond: distance of the target behind it, m."""
    normal, here = np.array([0.6, -0.8, 0.0]), Motion(DUAL).positions
    plane = Plane("wall", tuple(normal), float(normal @ here[index]) - begin)
    arms = list(DUAL.arms)
    arms[index] = dataclasses.replace(arms[index], workspace=dataclasses.replace(arms[index].workspace, planes=(plane,)))
    config = dataclasses.replace(DUAL, arms=tuple(arms), coupled=False)
    wanted = here.copy()
    wanted[index] += -(begin + beyond) * normal + 0.05 * np.array([0.0, 0.0, -1.0])
    goal = Plan(Rig("sim_dual").proposal(wanted), config, 0.0).goal(0.0, here, Motion(DUAL).rotations).positions
    share = (begin - WALL_M) / (begin + beyond) if share is None else share
    np.testing.assert_allclose(goal[index], here[index] + share * (wanted[index] - here[index]), atol=1e-9)
    np.testing.assert_array_equal(goal[1 - index], here[1 - index])
