"""Faults of the filter itself, its operator, its clock and its graph."""
import dataclasses
import math

import numpy as np
import pytest
from fault_rig import Checker, FaultRig
from safety_rig import ROBOTS

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.motion.solver import StepSolver
from hybridvla_core.safety.status import Reason, State


@pytest.mark.long
def test_killed_and_restarted_in_motion_the_arm_does_not_jump():
    rig = FaultRig().begin()
    last = rig.pose().position
    rig.assert_no_violation()
    rig.filter = SafetyFilter(rig.config)                  # a new process, which remembers nothing
    rig.checker = Checker(ROBOTS / "sim_fr3.yaml")
    rig.tick(5)
    assert rig.filter.state == State.INACTIVE and not rig.output.arms[0].publish
    rig.set_off()                                          # the policy keeps sending
    rig.tick(5)
    assert not rig.output.arms[0].publish
    for _ in range(30):                                    # the impedance controller settles on the last target
        rig.joints["arm"] = rig.joints["arm"] + 0.05 * (rig.sent[-45].arms[0].joint_positions - rig.joints["arm"])
        rig.tick()
    rig.tick(30)
    assert rig.filter.activate(True, rig.now)[0]
    rig.tick()
    np.testing.assert_allclose(rig.pose().position, rig.measured_pose("arm").position, atol=1e-6)
    assert np.linalg.norm(rig.pose().position - last) < 0.03
    rig.tick(220)
    rig.assert_goes_on()


@pytest.mark.parametrize("seconds", [0.15, 0.5, 30.0])
def test_a_pause_of_the_filter_is_never_caught_up(seconds):
    rig = FaultRig().begin()
    before, step = rig.pose().position, rig.speed() * rig.config.dt
    rig.now += seconds
    rig.tick()
    assert np.linalg.norm(rig.pose().position - before) <= step + 1e-9
    assert rig.output.status.reasons & Reason.CLOCK_JUMP and "paused" in rig.output.status.message
    rig.assert_held()
    rig.assert_goes_on()


def test_what_waited_in_queues_during_a_pause_is_not_carried_out():
    rig = FaultRig().begin()
    rig.now += 2.0                                         # between SIGSTOP and SIGCONT; the policy died meanwhile
    rig.beating = False
    answers = []
    for _ in range(10):
        rig.beat()
        answers.append(rig.propose([0.3, -0.3, 0.5]))
        rig.tick()
        rig.beat()
        answers.append(rig.propose([0.3, -0.3, 0.5]))
    assert not any(answer.accepted for answer in answers)
    rig.assert_held(Reason.HEARTBEAT_LOST)


@pytest.mark.parametrize("jump", [-5.0, 5.0])
def test_the_wall_clock_is_set(jump):
    rig = FaultRig()
    rig.clock = 1e9
    rig.begin()
    rig.clock += jump
    rig.tick()
    assert rig.output.status.reasons & Reason.CLOCK_JUMP and "was set" in rig.output.status.message
    rig.assert_held()
    rig.tick(10)
    answer = rig.propose(rig.far(), stamp=rig.now + jump)   # stamps start again
    assert answer.accepted, answer.reason
    rig.tick(40)
    assert rig.filter.state == State.ACTIVE and rig.speed() > 0.01
    rig.assert_no_violation()


@pytest.mark.parametrize("advance, words", [(0.0, "stood still"), (-20.0, "back"), (20.0, "ahead")])
def test_simulated_time_stops_or_jumps(advance, words):
    rig = FaultRig()
    rig.filter = SafetyFilter(rig.config, simulated_time=True)
    rig.clock = 0.0
    rig.begin()
    if advance:
        rig.clock += advance
        rig.tick()
        assert rig.output.status.reasons & Reason.CLOCK_JUMP and words in rig.output.status.message
        rig.assert_held()
    else:
        stopped = rig.now
        for _ in range(220):
            rig.clock = stopped - rig.now - rig.config.dt
            rig.tick()
        assert rig.output.status.reasons & Reason.CLOCK_JUMP and words in rig.output.status.message
        assert rig.filter.state == State.HOLDING and rig.speed() == 0.0
        rig.clock = stopped - rig.now - 1e-4
    rig.tick(5)
    rig.assert_goes_on()


@pytest.mark.parametrize("solution, state", [
    (None, State.ACTIVE), (RuntimeError("daqp"), State.STOPPED), (ZeroDivisionError("division"), State.STOPPED)])
def test_a_solver_that_fails_leaves_the_stored_braking(solution, state, monkeypatch):
    rig = FaultRig().begin()

    def step(self, *_arguments):
        if solution is not None:
            raise solution
        return None, 0.0, np.zeros(7)

    with monkeypatch.context() as broken:
        broken.setattr(StepSolver, "step", step)
        rig.assert_held(Reason.SOLVER, state)
        if solution is not None:
            assert str(solution) in rig.output.status.message
            assert rig.filter.counters["internal_errors"] == 1
    if solution is not None:
        assert rig.filter.resume(rig.now)[0]
    rig.assert_goes_on()


@pytest.mark.long
@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, math.nan, math.inf, "fast", None, True])
def test_an_illegal_parameter_at_run_time_changes_nothing_and_holds(scale):
    rig = FaultRig().begin()
    before = rig.output.status.speed_scale
    with pytest.raises(ConfigurationError, match="speed_scale") as refusal:
        rig.filter.set_speed_scale(scale)
    rig.filter.refuse_parameter(str(refusal.value), rig.now)
    rig.tick()
    assert rig.output.status.reasons & Reason.CONFIGURATION and "speed_scale" in rig.output.status.message
    rig.assert_held()
    assert rig.output.status.speed_scale == before
    rig.assert_goes_on()


def test_a_larger_speed_scale_in_motion_keeps_the_limits():
    rig = FaultRig()
    rig.filter.set_speed_scale(0.1)
    rig.start().tick(220)
    rig.set_off()
    rig.tick(100)
    rig.filter.set_speed_scale(1.0)
    rig.tick(100)
    assert rig.speed() > 0.1
    rig.assert_no_violation()


def test_dry_run_cannot_be_switched_in_motion():
    rig = FaultRig().begin()
    with pytest.raises(ConfigurationError, match="inactive"):
        rig.filter.set_dry_run(True)
    rig.tick(10)
    assert rig.output.arms[0].publish


def test_stopped_is_left_by_resume_alone_also_after_deactivation():
    rig = FaultRig().begin()
    rig.tick(10)
    rig.filter.stop(rig.now)
    done, answer = rig.filter.activate(False, rig.now)
    assert not done and "braking" in answer and rig.output.arms[0].publish      # a motion is not cut off
    rig.run_until(lambda output: rig.filter.at_rest, 2.0)
    done, answer = rig.filter.activate(False, rig.now)
    assert done and "resume" in answer and rig.filter.state == State.STOPPED
    for call in (lambda: rig.filter.activate(True, rig.now), lambda: rig.filter.reenter(rig.now),
                 lambda: rig.filter.go_to_start(rig.now)):
        assert not call()[0] and rig.filter.state == State.STOPPED
    rig.tick(5)
    assert not rig.output.arms[0].publish
    assert rig.filter.resume(rig.now) == (True, "inactive") and rig.filter.state == State.INACTIVE
    rig.tick(100)                                                               # the arm settles
    assert rig.filter.activate(True, rig.now) == (True, "active") and rig.filter.state == State.HOLDING
    rig.assert_no_violation()


def test_stopped_on_the_way_to_inactive_resume_leads_to_inactive():
    rig = FaultRig().begin()
    rig.tick(10)
    assert rig.filter.activate(False, rig.now) == (True, "braking, then inactive")
    rig.tick(1)
    assert rig.filter.stop(rig.now)[0] and rig.output.arms[0].publish           # a motion is not cut off
    rig.run_until(lambda output: rig.filter.at_rest, 2.0)
    assert rig.filter.state == State.STOPPED and rig.output.arms[0].publish
    assert rig.filter.resume(rig.now) == (True, "inactive") and rig.filter.state == State.INACTIVE
    rig.tick(5)
    assert rig.filter.state == State.INACTIVE and not rig.output.arms[0].publish
    rig.assert_no_violation()


@pytest.mark.parametrize("end", ["stop", "deadman", "joint_states", "pause", "deactivate"])
def test_reenter_is_slow_and_can_be_ended(end):
    rig = FaultRig(change=lambda config: dataclasses.replace(config, deadman_required=end == "deadman"))
    rig.joints["arm"] = rig.joints["arm"] + np.array([0, 0, 0, 0, 0, 0, 2.22])
    press = (lambda: rig.filter.on_deadman(True, rig.now)) if end == "deadman" else (lambda: None)
    rig.tick(3)
    assert rig.filter.reenter(rig.now)[0]
    for _ in range(8):
        press()
        rig.tick()
    assert rig.filter.state == State.RECOVERING
    joints = np.array([output.arms[0].joint_positions for output in rig.sent[3:]])
    assert 0.0 < np.abs(np.diff(joints[:, 6])).max() <= 0.1 * 3.0 * rig.config.dt + 1e-9     # a tenth of the limit
    rig.outside = True
    if end == "stop":
        rig.filter.stop(rig.now)
        rig.assert_held(Reason.OPERATOR, State.STOPPED)
        assert not rig.filter.reenter(rig.now)[0]
        done, answer = rig.filter.resume(rig.now)
        assert done and answer == "inactive" and rig.filter.state == State.INACTIVE
        assert "reenter" in rig.filter.activate(True, rig.now)[1]
    elif end == "deactivate":
        rig.filter.activate(False, rig.now)
        rig.assert_held(state=State.INACTIVE)
    elif end == "joint_states":
        rig.changes = dict(joint_names=("panda_joint1",))
        rig.assert_held(Reason.JOINT_STATE, State.RECOVERING)
    elif end == "deadman":
        rig.filter.on_deadman(False, rig.now)
        rig.assert_held(Reason.DEADMAN, State.RECOVERING)
    else:
        before = rig.pose().position
        rig.now += 1.0
        rig.tick()
        assert np.linalg.norm(rig.pose().position - before) < 1e-3
        assert rig.output.status.reasons & Reason.CLOCK_JUMP
        rig.run_until(lambda output: rig.filter.state == State.INACTIVE, 20.0)
        rig.tick(100)
    rig.assert_no_violation()


def test_deadman_released_silent_and_pressed_again():
    rig = FaultRig(change=lambda config: dataclasses.replace(config, deadman_required=True))
    held = True

    def tick(count):
        for _ in range(count):
            if held:
                rig.filter.on_deadman(True, rig.now)
            rig.tick()

    tick(5)
    rig.beat()
    assert rig.filter.activate(True, rig.now)[0]
    tick(220)
    rig.set_off()
    tick(100)
    assert rig.speed() > 0.02
    held = False
    rig.filter.on_deadman(False, rig.now)
    rig.assert_held(Reason.DEADMAN)
    held = True
    tick(20)
    rig.assert_held()                        # pressing the switch alone starts nothing: the old target is gone


def test_a_graph_that_is_split_holds_until_it_is_whole():
    rig = FaultRig().begin()
    rig.filter.hold_for(Reason.OPERATOR, "the ROS master does not answer; start it again")
    rig.set_off()
    rig.assert_held(Reason.OPERATOR)
    assert "master" in rig.output.status.message
    rig.filter.hold_for(Reason.OPERATOR, "")
    rig.tick()
    assert rig.filter.state == State.HOLDING
    rig.assert_goes_on()


@pytest.mark.long
@pytest.mark.parametrize("robot", ["sim_fr3", "sim_dual"])
def test_speed_grows_after_activation_and_after_resume(robot):
    rig = FaultRig(robot).start()
    rig.tick()
    for again in range(2):
        rig.set_off()
        rig.tick(40)
        first = rig.speed()
        rig.tick(180)
        assert 0.0 < first < 0.4 * 0.35
        if not again:
            rig.filter.stop(rig.now)
            rig.assert_held(Reason.OPERATOR, State.STOPPED)
            assert rig.filter.resume(rig.now)[0]
    rig.assert_no_violation()
