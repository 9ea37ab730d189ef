"""Flags add up: every simultaneous fault is shown, in every state, and the sentence is that of the first."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.contracts import PolicyState
from hybridvla_core.safety.inputs.watchdogs import OVERRUN_S, OVERRUNS
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer


def needs_deadman(config):
    return dataclasses.replace(config, deadman_required=True)


def rig_of_two(**changes):
    """Return a rig of two arms, active and at rest, with the dead-man pressed."""
    rig = Rig("sim_dual", change=lambda config: dataclasses.replace(needs_deadman(config), **changes))
    rig.clock = 1e9
    rig.filter.on_deadman(True, rig.now)
    return rig.start()


def wait(rig, seconds):
    """Tick for `seconds` with the dead-man pressed."""
    for _ in range(max(1, round(seconds / rig.config.dt))):
        rig.filter.on_deadman(True, rig.now + rig.config.dt)
        rig.tick()


def silent_arm(rig):
    rig.silent = {rig.config.arms[0].name}
    wait(rig, rig.config.watchdogs.joint_state_s + 0.05)


def arm_outside(rig):
    name = rig.config.arms[1].name
    rig.joints[name] = rig.joints[name].copy()
    rig.joints[name][6] = rig.config.arms[1].joint_limits.upper_rad[6] + 0.05
    rig.follows = False
    wait(rig, 0.4)                                  # the filter doubts the jump itself first


def late_ticks(rig):
    for _ in range(OVERRUNS):
        rig.now += rig.config.dt                    # one tick is missed each time
        wait(rig, 0.0)


def second_policy(rig):
    assert not rig.filter.on_proposal(rig.proposal([[0.5, 0.0, 0.3]] * 2), rig.now, "/other").accepted


#: Fault, flag, and words of its sentence; first the faults that last, then those that are noticed at one moment.
FAULTS = {
    "joint states": (silent_arm, Reason.JOINT_STATE, "no usable joint states"),
    "measured": (arm_outside, Reason.MEASURED_LIMIT, "joint 7 is 0.050 rad outside its limit"),
    "outside": (lambda rig: rig.filter.hold_for(Reason.OPERATOR, "nobody hears"), Reason.OPERATOR, "nobody hears"),
    "fault": (lambda rig: rig.beat(state=PolicyState.FAULT, message="out of memory"), Reason.HEARTBEAT_LOST,
              "the policy reports a fault: out of memory"),
    "late": (late_ticks, Reason.TICK_OVERRUN, ""),
    "second": (second_policy, Reason.SECOND_PUBLISHER, "'/other' speaks while '' is in charge"),
    "parameter": (lambda rig: rig.filter.refuse_parameter("speed_scale is 3", rig.now), Reason.CONFIGURATION, "speed_scale is 3"),
    "clock": (lambda rig: setattr(rig, "clock", rig.clock + 5.0), Reason.CLOCK_JUMP, "the clock was set ahead by 5.0 s"),
    "deadman": (lambda rig: rig.filter.on_deadman(False, rig.now), Reason.DEADMAN, "the deadman is released or silent"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_alone_is_the_only_flag_and_is_said(name):
    rig = rig_of_two()
    go_wrong, flag, words = FAULTS[name]
    go_wrong(rig)
    rig.beating = False
    status = rig.tick().status
    besides = {"late": Reason.PROPOSAL_STALE, "parameter": Reason.PROPOSAL_STALE, "measured": Reason.LEASH}
    assert status.reasons == flag | besides.get(name, Reason.NONE) and words in status.message
    assert rig.filter.state == State.HOLDING


def test_everything_that_is_wrong_at_once_is_shown():
    rig = rig_of_two()
    rig.beating = False
    everything = Reason.NONE
    for name, (go_wrong, flag, _) in FAULTS.items():
        if name == "fault":
            rig.beat()                              # it has been silent meanwhile
        go_wrong(rig)
        everything |= flag
    status = rig.tick().status
    assert status.reasons & everything == everything
    assert "no usable joint states" in status.message, "the first of them"


def test_a_refused_proposal_adds_its_flag_to_what_is_wrong_already():
    rig = rig_of_two()
    rig.filter.on_deadman(False, rig.now)
    rig.propose([[0.5, 0.0, 0.3]] * 2, valid_for=-1.0)
    status = rig.tick().status
    assert status.reasons == Reason.DEADMAN | Reason.PROPOSAL_INVALID
    rig.tick(120)
    assert rig.output.status.reasons == Reason.DEADMAN, "for half a second"


def test_an_operator_who_ends_a_motion_is_named_beside_what_is_wrong():
    rig = rig_of_two()
    rig.propose([[0.45, 0.0, 0.4], [0.45, 0.0, 0.4]])
    wait(rig, 0.3)
    assert rig.filter.state == State.ACTIVE and not rig.filter.at_rest
    rig.filter.on_deadman(False, rig.now)
    assert rig.filter.activate(False, rig.now) == (True, "braking, then inactive")
    status = rig.tick().status
    assert status.state == State.HOLDING and status.reasons == Reason.DEADMAN | Reason.OPERATOR
    rig.run_until(lambda output: output.status.state == State.INACTIVE, 1.0)


def test_while_inactive_what_would_refuse_is_shown_and_what_would_not_is_not():
    rig = Rig("sim_dual", change=needs_deadman)
    rig.beating = False
    assert rig.tick().status.reasons == Reason.DEADMAN | Reason.HEARTBEAT_LOST
    rig.beat()
    rig.changes = dict(ready=False, message="reflex")
    rig.propose([[0.5, 0.0, 0.3]] * 2, valid_for=-1.0)
    status = rig.tick().status
    assert status.reasons == Reason.DEADMAN | Reason.ROBOT_MODE and "reflex" in status.message
    rig.filter.on_deadman(True, rig.now)
    rig.changes = {}
    assert rig.tick().status.reasons == Reason.NONE


def test_a_second_thing_that_stops_is_added_to_the_first():
    rig = rig_of_two()
    rig.changes = dict(controller_ready=False)
    wait(rig, 0.0)
    assert rig.filter.state == State.STOPPED and rig.output.status.reasons == Reason.CONTROLLER
    rig.changes = dict(ready=False, message="reflex")
    wait(rig, 0.0)
    assert rig.output.status.reasons == Reason.CONTROLLER | Reason.ROBOT_MODE
    rig.filter.stop(rig.now, Reason.OPERATOR, "by hand")
    assert rig.output.status.counters["stops"] == 1 and rig.filter.detail == "by hand"
    assert rig.tick().status.reasons == Reason.CONTROLLER | Reason.ROBOT_MODE | Reason.OPERATOR
    assert rig.tick().status.counters["stops"] == 1, "one stop, whoever joins in"


@pytest.mark.parametrize("late, within_s, shown", [(OVERRUNS, 0.95, True), (OVERRUNS - 1, 0.5, False), (OVERRUNS, 1.04, False)])
def test_late_ticks_are_said_when_there_are_many_within_a_second(late, within_s, shown):
    rig = Rig().start()
    begun = rig.now
    for k in range(late):
        while rig.now < begun + within_s * k / (late - 1) - 1e-9:
            rig.tick()
        rig.now += rig.config.dt
        rig.tick()
    assert bool(rig.output.status.reasons & Reason.TICK_OVERRUN) == shown
    assert rig.filter.counters["overruns"] == late
    rig.tick(round(OVERRUN_S / rig.config.dt) + 2)
    assert not rig.output.status.reasons & Reason.TICK_OVERRUN


def test_a_tick_that_is_a_little_late_is_none_that_comes_too_late():
    rig = Rig().start()
    for share, count in ((1.4, 0), (1.6, 1)):
        rig.now += (share - 1.0) * rig.config.dt
        rig.tick()
        assert rig.filter.counters.get("overruns", 0) == count
    rig.now -= 3 * rig.config.dt
    assert rig.tick().status.reasons & Reason.CLOCK_JUMP and "the filter's clock went back" in rig.output.status.message
    assert rig.filter.counters["overruns"] == 2


def test_after_a_pause_what_waited_is_refused_for_a_moment_and_not_longer():
    rig = Rig().start()
    gap = rig.config.watchdogs.clock_gap_s
    rig.tick()
    rig.now += gap + 0.05
    answer = rig.propose([0.5, 0.0, 0.3])
    assert answer.accepted is False and answer.reason == "it waited while the filter stood still"
    rig.tick()
    assert f"the filter was paused for {gap + 0.05 + rig.config.dt:.2f} s" in rig.output.status.message
    resumed = rig.now
    while rig.now < resumed + 0.14:
        rig.tick()
    assert not rig.propose([0.5, 0.0, 0.3]).accepted
    while rig.now < resumed + 0.151:
        rig.tick()
    rig.beat()
    assert rig.propose([0.5, 0.0, 0.3]).accepted
    assert np.isfinite(rig.output.arms[0].pose.position).all()


def exact(config):
    """Make all times sums of powers of two, so that a moment can be hit exactly."""
    return dataclasses.replace(config, deadman_required=True, tick_hz=128.0, status_hz=16.0, watchdogs=dataclasses.replace(
        config.watchdogs, heartbeat_s=0.25, joint_state_s=0.5, deadman_s=0.125, clock_gap_s=0.0625))


@pytest.mark.parametrize("after, shown", [
    (0.125, Reason.NONE), (0.1328125, Reason.DEADMAN), (0.25, Reason.DEADMAN),
    (0.2578125, Reason.DEADMAN | Reason.HEARTBEAT_LOST), (0.5, Reason.DEADMAN | Reason.HEARTBEAT_LOST),
    (0.5078125, Reason.DEADMAN | Reason.HEARTBEAT_LOST | Reason.JOINT_STATE)])
def test_each_time_is_over_after_its_very_last_moment(after, shown):
    rig = Rig("sim_dual", change=exact)
    rig.now = 64.0
    rig.filter.on_deadman(True, rig.now)
    rig.start()
    last = rig.now
    rig.filter.on_deadman(True, last)
    rig.beat()
    for index in range(2):
        rig.filter.update_arm_state(rig.arm_state(rig.config.arms[index].name), last)
    rig.silent, rig.beating = {arm.name for arm in rig.config.arms}, False
    while rig.now < last + after:
        rig.tick()
    assert rig.now == last + after and rig.output.status.reasons & ~Reason.PROPOSAL_STALE == shown


@pytest.mark.parametrize("gap, paused", [(0.0625, False), (0.0703125, True)])
def test_a_gap_is_a_pause_after_its_very_last_moment(gap, paused):
    rig = Rig("sim_dual", change=exact)
    rig.now = 64.0
    rig.filter.on_deadman(True, rig.now)
    rig.start()
    at = rig.tick()
    rig.filter.on_deadman(True, rig.now)
    rig.now += gap
    assert rig.propose([[0.32, 0.0, 0.48]] * 2).accepted is not paused and at is not None
    rig.now -= rig.config.dt
    assert bool(rig.tick().status.reasons & Reason.CLOCK_JUMP) is paused
