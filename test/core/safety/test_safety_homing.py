"""The way to the start joints: slow, free, checked before the first step; joint rigs with one clock for both arms."""

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.safety.execution.way_to_start import WayToStart
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer

AWAY = {"right": np.array([-0.4, 1.6, -1.3, 0.2, 0.7, 0.3]), "left": np.array([0.3, 1.5, -1.4, -0.1, 0.8, 0.0])}


def rig(joints, **keys):
    bench = Rig("agilex", **keys)
    for name, values in joints.items():
        bench.joints[name] = np.array(values)
    bench.filter.on_deadman(True, bench.now)
    bench.tick(3)
    return bench


def homing(bench, seconds=60.0, deadman=True):
    """Tick with the deadman held until the way ends."""
    for _ in range(int(seconds * bench.config.tick_hz)):
        if deadman:
            bench.filter.on_deadman(True, bench.now)
        bench.tick()
        if bench.filter.state != State.RECOVERING:
            return
    pytest.fail("the way does not end")


def test_both_arms_go_slowly_to_their_start_and_the_filter_is_inactive_again():
    bench = rig(AWAY)
    ok, message = bench.filter.go_to_start(bench.now)
    assert ok, message
    begin = bench.now
    bench.tick()
    assert bench.output.status.message == "leading the arms slowly: on the way to the start joints"
    homing(bench)
    assert bench.filter.homed and bench.filter.state == State.INACTIVE
    for arm, command in zip(bench.config.arms, bench.output.arms):
        np.testing.assert_allclose(command.joint_positions, arm.start_joints_rad, atol=5e-4)
        np.testing.assert_allclose(bench.joints[arm.name], arm.start_joints_rad, atol=4e-3)     # the arm follows with a lag
    joints = np.array([[command.joint_positions for command in output.arms] for output in bench.sent[4:]])   # after seeding
    speeds = np.abs(np.diff(joints, axis=0)) / bench.config.dt
    limit = np.array([arm.joint_limits.velocity_rad_s for arm in bench.config.arms]) * bench.config.reenter_scale
    assert (speeds <= limit * 1.001).all()
    assert bench.now - begin > 2.0
    assert bench.output.status.counters["target_violations"] == 0


@pytest.mark.long
def test_a_released_deadman_pauses_and_the_way_goes_on():
    bench = rig(AWAY)
    assert bench.filter.go_to_start(bench.now)[0]
    for _ in range(200):
        bench.filter.on_deadman(True, bench.now)
        bench.tick()
    bench.tick(200)
    held = bench.output.arms[0].joint_positions
    bench.tick(100)
    np.testing.assert_array_equal(bench.output.arms[0].joint_positions, held)
    assert bench.filter.state == State.RECOVERING and "deadman" in bench.output.status.message
    homing(bench)
    assert bench.filter.homed


@pytest.mark.parametrize("joints, begin", [(AWAY, "go_to_start"), ({**AWAY, "left": np.array([0.3, 1.5, -1.4, -0.1, 0.8, 2.3])},
                                                                   "reenter")])
def test_while_nobody_could_call_stop_the_way_waits_and_then_goes_on(joints, begin):
    """`hold_for` reports a lost master, with the operator's flag."""
    bench = rig(joints)
    ok, message = getattr(bench.filter, begin)(bench.now)
    assert ok, message

    def held(ticks):
        for _ in range(ticks):
            bench.filter.on_deadman(True, bench.now)
            bench.tick()

    held(100)
    bench.filter.hold_for(Reason.OPERATOR, "the master is gone")
    held(100)
    rest = [command.joint_positions for command in bench.output.arms]
    held(100)
    status = bench.output.status
    assert status.state == State.RECOVERING and status.reasons & Reason.OPERATOR and "the master is gone" in status.message
    for command, joints in zip(bench.output.arms, rest):
        np.testing.assert_array_equal(command.joint_positions, joints)
    bench.filter.hold_for(Reason.OPERATOR, "")
    held(60)
    assert any(np.abs(command.joint_positions - joints).max() > 1e-3 for command, joints in zip(bench.output.arms, rest))


def test_deactivate_and_stop_end_the_way():
    bench = rig(AWAY)
    assert bench.filter.go_to_start(bench.now)[0]
    for _ in range(100):
        bench.filter.on_deadman(True, bench.now)
        bench.tick()
    bench.filter.activate(False, bench.now)
    homing(bench, 2.0)
    assert bench.filter.state == State.INACTIVE and not bench.filter.homed
    assert "still moving" in bench.filter.go_to_start(bench.now)[1]
    bench.tick(60)
    assert bench.filter.go_to_start(bench.now)[0]
    bench.filter.stop(bench.now)
    bench.tick(300)
    assert bench.filter.state == State.STOPPED


def blocked_before_the_start(metres):
    """Set off to the start, and let the arms stop following this far from it."""
    bench = rig(AWAY)
    ends = {arm.name: bench.kinematics[arm.name].pose(np.array(arm.start_joints_rad))[0] for arm in bench.config.arms}
    assert bench.filter.go_to_start(bench.now)[0]

    def away():
        return max(np.linalg.norm(bench.measured_pose(name).position - end) for name, end in ends.items())

    while away() > metres:
        bench.filter.on_deadman(True, bench.now)
        bench.tick()
    bench.follows = False
    return bench, away()


def test_an_arm_that_something_holds_before_its_start_is_named_with_the_distance_and_was_not_led_there():
    bench, away = blocked_before_the_start(0.042)
    homing(bench, 10.0)
    status = bench.output.status
    assert bench.filter.state == State.INACTIVE and not bench.filter.homed
    assert status.reasons & Reason.LEASH and f"the arm stands {away * 1e3:.0f} mm from its target; free it" in status.message
    bench.follows = True
    bench.tick(60)
    assert bench.filter.go_to_start(bench.now)[0], "free again, it goes on from where it is"
    homing(bench)
    assert bench.filter.homed and not bench.output.status.reasons & Reason.LEASH


def test_an_arm_that_sags_a_little_at_its_start_is_there_after_it_has_settled():
    bench, away = blocked_before_the_start(0.012)
    settle, tolerance = bench.config.at_target.settle_s, bench.config.at_target.measured_position_m
    assert tolerance < away < 2.0 * tolerance
    bench.run_until(lambda output: bench.filter.on_deadman(True, bench.now) or bench.filter.at_rest)
    begun = bench.now
    homing(bench, 10.0)
    assert bench.filter.homed and bench.now - begun == pytest.approx(settle, abs=0.02)


def test_only_while_inactive_and_only_from_inside_the_limits():
    bench = rig(AWAY)
    assert bench.filter.activate(True, bench.now)[0]
    assert not bench.filter.go_to_start(bench.now)[0]
    outside = rig({**AWAY, "left": np.zeros(6)})
    ok, message = outside.filter.go_to_start(outside.now)
    assert not ok and "reenter" in message


def test_a_way_that_is_not_free_is_refused_before_the_first_step():
    bench = rig(AWAY)
    motion = bench.filter._motion
    motion.seed(np.stack([AWAY["right"], AWAY["left"]]))
    way = WayToStart(bench.config, motion)
    assert way.hindrance(motion.joints, way.start) == ""
    low = way.start.copy()
    low[:, 1] = 2.9                                    # both tools through the table
    assert "would be broken by" in way.hindrance(motion.joints, low)
    way.start = low
    legs, hindrance = way.choose(motion.joints)
    assert legs == [] and "would be broken by" in hindrance


def test_where_the_straight_way_is_not_free_the_arms_are_drawn_in_first():
    """Low and turned outwards, with a workspace wall on the straight way: in and up first, then the turn."""
    bench = rig(AWAY)
    way = WayToStart(bench.config, bench.filter._motion)
    straight = way.hindrance
    way.hindrance = lambda begin, end: "straight" if np.ptp((end - begin)[:, 0]) and np.ptp((end - begin)[:, 1:]) else ""
    bench.filter._motion.seed(np.stack([AWAY["right"], AWAY["left"]]))
    legs, _ = way.choose(bench.filter._motion.joints)
    assert len(legs) == 2 and straight(bench.filter._motion.joints, legs[0]) == "" and straight(*legs) == ""
    np.testing.assert_array_equal(legs[0][:, 0], [AWAY["right"][0], AWAY["left"][0]])


def test_a_singularity_is_not_in_the_way_of_arms_that_are_led_along_their_joints():
    folded = np.array([0.0, 0.2, -0.4, 0.0, 0.3, 0.0])
    bench = rig({"right": folded, "left": folded})
    ok, message = bench.filter.go_to_start(bench.now)
    assert ok, message
    bench.filter.on_deadman(True, bench.now)
    bench.tick(20)
    assert min(margin.margin for margin in bench.output.status.margins if "singularity" in margin.name) < 0.0
    homing(bench)
    assert bench.filter.homed, bench.filter.detail
