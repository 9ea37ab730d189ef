"""Faults of the robot and of what its driver reports."""
import dataclasses
import math

import numpy as np
import pytest
from fault_rig import Checker, FaultRig
from safety_rig import ROBOTS

from hybridvla_core.safety.status import Reason, State


def scaled_joints(rig, off):
    """Return the driver's joints, plus `off` rad on each."""
    return dict(joint_positions=rig.joints["arm"] + np.asarray(off, dtype=float))


def test_joint_states_stop():
    rig = FaultRig().begin()
    rig.silent.add("arm")
    rig.tick(42)
    rig.assert_held(Reason.JOINT_STATE)
    assert "no usable joint states" in rig.output.status.message
    rig.silent.clear()
    rig.tick(30)
    rig.assert_goes_on()


@pytest.mark.parametrize("off", [0.4, [0, 0, 0, math.nan, 0, 0, 0], [0, math.inf, 0, 0, 0, 0, 0]])
def test_one_report_that_jumps_or_is_not_finite_ends_the_motion(off):
    rig = FaultRig().begin()
    rig.changes = scaled_joints(rig, np.zeros(7) + off)
    rig.tick()
    rig.changes = {}
    assert rig.filter.state == State.HOLDING and rig.output.status.reasons & Reason.JOINT_STATE
    assert "joint" in rig.output.status.message
    rig.assert_held()
    rig.assert_goes_on()


def test_joints_that_stay_where_they_jumped_to_are_not_pulled_back_by_force():
    rig = FaultRig().begin()
    rig.joints["arm"] = rig.joints["arm"] + 0.3
    rig.follows = False
    rig.tick(120)
    rig.set_off()
    rig.tick(400)                                      # the command is drawn back within the bound on the push, and then rests
    rig.assert_held(Reason.LEASH)
    assert rig.filter.resume(rig.now) == (False, "not stopped")


def test_a_reading_told_again_stops_the_arm_but_does_not_grow_young():
    rig = FaultRig().begin()
    rig.changes = dict(stamp=rig.now, joint_positions=rig.joints["arm"].copy())
    rig.tick()
    rig.changes.update(ready=False, message="the brakes are closed")
    rig.tick()
    assert rig.filter.state == State.STOPPED and "brakes" in rig.output.status.message
    rig.tick(60)
    assert "joint states" in rig.filter.resume(rig.now)[1]


@pytest.mark.parametrize("names, words", [
    (lambda names: tuple("panda" + name[3:] for name in names), "missing"),
    (lambda names: names[:-1], "missing"),
    (lambda names: names[:-1] + names[:1], "missing"),
    (lambda names: names + names[:1], "twice"),
])
def test_wrong_joint_names(names, words):
    rig = FaultRig().begin()
    rig.changes = dict(joint_names=names(rig.config.arms[0].joint_names))
    rig.assert_held(Reason.JOINT_STATE)
    assert words in rig.output.status.message
    rig.changes = {}
    rig.tick(50)
    rig.assert_goes_on()


def test_joints_in_another_order_are_read_by_name():
    rig = FaultRig()
    names = rig.config.arms[0].joint_names
    order = [3, 1, 6, 0, 2, 5, 4]

    class Shuffled(FaultRig):
        def arm_state(self, name):
            state = super().arm_state(name)
            return dataclasses.replace(state, joint_names=tuple(names[i] for i in order),
                                       joint_positions=state.joint_positions[order])

    rig = Shuffled().begin()
    rig.run_until(lambda output: output.status.at_target)
    assert np.linalg.norm(rig.measured_pose("arm").position - rig.far()[0]) < 5e-3
    rig.assert_no_violation()


def test_stamps_of_zero_hold():
    rig = FaultRig().begin()
    rig.changes = dict(stamp=0.0)
    rig.assert_held(Reason.JOINT_STATE)
    assert "stamp" in rig.output.status.message


def test_a_relay_that_repeats_its_last_report_is_silence():
    rig = FaultRig().begin()
    rig.changes = dict(stamp=rig.now, joint_positions=rig.joints["arm"].copy())
    rig.tick(60)
    rig.assert_held(Reason.JOINT_STATE)
    assert "stand still" in rig.output.status.message


@pytest.mark.parametrize("jump, words", [(-3600.0, "back"), (+3600.0, "ahead")])
def test_the_drivers_clock_is_set(jump, words):
    rig = FaultRig()
    offset = 0.0

    class Stamped(FaultRig):
        def arm_state(self, name):
            return dataclasses.replace(super().arm_state(name), stamp=self.now + offset)

    rig = Stamped().begin()
    offset = jump
    rig.tick()
    assert rig.output.status.reasons & Reason.JOINT_STATE and words in rig.output.status.message
    rig.assert_held()
    rig.assert_goes_on()


@pytest.mark.parametrize("off, robot", [((0.0, 0.0, 0.06), "sim_fr3"), ((0.06, 0.0, 0.0), "fr3")])
def test_joints_and_tool_pose_disagree_in_motion(off, robot):
    rig = FaultRig(robot, change=lambda config: dataclasses.replace(config, deadman_required=False)).begin()
    rig.changes = dict(pose=rig.driver_pose("arm", off))
    for _ in range(120):
        rig.changes = dict(pose=rig.driver_pose("arm", off))
        rig.tick()
    rig.assert_held(Reason.TCP_MISMATCH)
    assert "60.0 mm" in rig.output.status.message


def test_a_small_disagreement_shows_at_rest():
    rig = FaultRig().start()
    rig.tick(200)
    rig.changes = dict(pose=rig.driver_pose("arm", (0.0, 0.002, 0.0)))
    rig.tick(200)
    rig.set_off()
    rig.tick(2)
    rig.assert_held(Reason.TCP_MISMATCH)


@pytest.mark.parametrize("message", ["reflex", "user stop", "guiding"])
def test_an_error_in_motion_stops_ends_publishing_and_reseeds(message):
    rig = FaultRig().begin()
    rig.changes = dict(ready=False, message=message, robot_mode=4)
    rig.errored = ("arm",)
    rig.tick(5)
    assert rig.filter.state == State.STOPPED and message in rig.output.status.message
    assert not any(output.arms[0].publish for output in rig.sent[-4:])
    rig.tick(100)
    assert not rig.filter.resume(rig.now)[0]
    rig.changes, rig.errored = {}, ()
    rig.joints["arm"] = rig.joints["arm"] + 0.02          # it was moved by hand meanwhile
    rig.tick(60)
    assert rig.filter.state == State.STOPPED
    done, answer = rig.filter.resume(rig.now)
    assert done, answer
    rig.tick()
    np.testing.assert_allclose(rig.pose().position, rig.measured_pose("arm").position, atol=1e-6)
    rig.assert_goes_on()
    speeds = np.linalg.norm(np.diff(rig.commanded()[-80:], axis=0), axis=1) / rig.config.dt
    assert speeds.max() < 0.6 * 0.35                      # on the ramp


def test_guiding_at_activation_is_refused_by_name():
    rig = FaultRig()
    rig.changes = dict(ready=False, message="guiding", robot_mode=3)
    rig.tick(10)
    rig.beat()
    for call in (lambda: rig.filter.activate(True, rig.now), lambda: rig.filter.reenter(rig.now)):
        done, answer = call()
        assert not done and "guiding" in answer
    rig.tick(120)
    assert rig.filter.state == State.INACTIVE
    assert not any(output.arms[0].publish for output in rig.sent)


def test_activation_of_a_moving_arm_is_refused():
    rig = FaultRig()
    rig.tick(10)
    for _ in range(20):
        rig.joints["arm"] = rig.joints["arm"] + 0.001
        rig.tick()
    done, answer = rig.filter.activate(True, rig.now)
    assert not done and "moving" in answer
    rig.tick(30)
    assert rig.filter.activate(True, rig.now)[0]


def test_the_controller_is_stopped_under_us():
    rig = FaultRig().begin()
    rig.changes = dict(controller_ready=False, message="cartesian_impedance_example_controller is stopped")
    rig.errored = ("arm",)
    rig.tick(3)
    assert rig.filter.state == State.STOPPED and rig.output.status.reasons & Reason.CONTROLLER
    assert "is stopped" in rig.output.status.message and not rig.output.arms[0].publish
    rig.assert_held(Reason.CONTROLLER, State.STOPPED)
    rig.changes, rig.errored = {}, ()
    rig.tick(10)
    assert rig.filter.resume(rig.now)[0]
    assert rig.filter.counters["reseeds"] == 2
    rig.assert_goes_on()


@pytest.mark.parametrize("controller", ["impedance 400 N/m", "position_joint_trajectory_controller"])
def test_stiffness_or_controller_changed_in_motion(controller):
    rig = FaultRig()
    rig.changes = dict(controller="impedance 200 N/m")
    rig.begin()
    rig.changes = dict(controller=controller)
    rig.assert_held(Reason.CONTROLLER, State.STOPPED)
    assert controller in rig.output.status.message and rig.output.arms[0].publish
    assert rig.filter.resume(rig.now)[0]
    rig.assert_goes_on()


@pytest.mark.long
def test_a_blocked_arm_is_not_wound_up_and_goes_on_when_free():
    rig = FaultRig().begin()
    rig.follows = False
    rig.tick(300)
    away = np.linalg.norm(rig.pose().position - rig.measured_pose("arm").position)
    assert away <= rig.config.arms[0].leash.distance_m
    rig.assert_held(Reason.LEASH)
    rig.follows = True
    rig.run_until(lambda output: output.status.at_target)
    rig.assert_no_violation()


def test_one_driver_dies_while_both_arms_hold_one_object():
    rig = FaultRig("sim_dual").begin()
    rig.tick(20)
    begun = [rig.pose(arm).position for arm in (0, 1)]
    rig.silent.add(rig.config.arms[1].name)
    rig.assert_held(Reason.JOINT_STATE)
    assert rig.config.arms[1].name in rig.output.status.message
    shares = [np.linalg.norm(rig.pose(arm).position - begun[arm]) / np.linalg.norm(np.array(rig.far()[arm]) - begun[arm])
              for arm in (0, 1)]
    assert shares[0] > 0.01 and shares[0] == pytest.approx(shares[1], abs=0.02), "both brake on one time scale"
    assert not any(command.gripper for output in rig.sent[-180:] for command in output.arms if command.gripper is not None)


def test_one_arm_in_reflex_stops_the_other_by_braking():
    rig = FaultRig("sim_dual").begin()
    first, second = (arm.name for arm in rig.config.arms)
    original = rig.arm_state
    rig.arm_state = lambda name: dataclasses.replace(original(name), ready=name != first, message="reflex")
    rig.errored = (first,)
    rig.tick()
    assert [command.publish for command in rig.output.arms] == [False, True]
    rig.assert_held(Reason.ROBOT_MODE, State.STOPPED)
    assert [command.publish for command in rig.output.arms] == [False, True]
    bend = np.diff(rig.commanded(1)[-250:], n=2, axis=0) / rig.config.dt ** 2
    assert np.linalg.norm(bend, axis=1).max() <= rig.config.arms[1].cartesian_limits.acceleration_m_s2 + 1e-6
    rig.arm_state = original
    rig.tick(10)
    assert rig.filter.resume(rig.now)[0]
    rig.errored, rig.checker = (), Checker(ROBOTS / "sim_dual.yaml")
    rig.tick(60)
    rig.assert_goes_on()


def test_the_arm_that_stops_the_others_is_named_also_where_another_is_unusable_in_the_same_tick():
    rig = FaultRig("sim_dual").begin()
    second, original = rig.config.arms[1].name, rig.arm_state
    rig.arm_state = lambda name: (dataclasses.replace(original(name), ready=False, message="reflex") if name == second else
                                  dataclasses.replace(original(name), joint_positions=np.full(7, np.nan)))
    rig.errored = (second,)
    rig.tick(20)
    assert rig.filter.state == State.STOPPED and f"{second}: reflex" in rig.output.status.message


def test_far_from_the_last_target_at_restart():
    rig = FaultRig().begin()
    before = rig.pose().position
    again = FaultRig()
    again.joints["arm"] = rig.joints["arm"] + 0.25
    again.start()
    again.tick()
    assert np.linalg.norm(again.pose().position - before) > 0.05
    np.testing.assert_allclose(again.pose().position, again.measured_pose("arm").position, atol=1e-6)
    again.tick(20)
    assert again.speed() == 0.0
    assert again.propose(before).accepted
    again.run_until(lambda output: output.status.at_target)
    again.assert_no_violation()
