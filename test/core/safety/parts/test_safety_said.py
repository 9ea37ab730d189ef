"""Exact words and numbers of what the filter answers and reports: answers to calls, refusals, the status."""
import dataclasses
import math

import numpy as np
import pytest
from safety_rig import DOWN, Rig

from hybridvla_core.contracts import GripperState, Kind
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.geometry import rotations
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer
HERE = [0.5, 0.05, 0.35]


def is_answer(answer, done, text):
    """Whether it is a bool and a sentence, as a service's response needs."""
    return answer[0] is done and answer[1] == text


def test_what_an_operator_is_answered_in_each_state():
    rig = Rig(change=lambda config: dataclasses.replace(config, deadman_required=True))
    call = rig.filter
    assert is_answer(call.activate(True, rig.now), False, "arm: no joint states yet; check the driver")
    assert is_answer(call.reenter(rig.now), False, "arm: no joint states yet; check the driver")
    assert is_answer(call.resume(rig.now), False, "not stopped")
    rig.tick(3)
    assert is_answer(call.activate(False, rig.now), True, "inactive")
    assert is_answer(call.reenter(rig.now), False, "every arm is inside its limits: call activate")
    assert is_answer(call.activate(True, rig.now), True, "active, but holding: press the dead-man")
    call.on_deadman(True, rig.now)
    assert is_answer(call.activate(True, rig.now), True, "already active")
    assert is_answer(call.reenter(rig.now), False, "only while inactive")
    assert is_answer(call.go_to_start(rig.now), False, "only while inactive")
    assert is_answer(call.resume(rig.now), False, "not stopped")
    rig.propose(HERE)
    for _ in range(40):
        call.on_deadman(True, rig.now)
        rig.tick()
    assert is_answer(call.activate(False, rig.now), True, "braking, then inactive")
    assert is_answer(call.activate(True, rig.now), False, "braking: wait until inactive")
    assert is_answer(call.stop(rig.now), True, "stopped")
    assert is_answer(call.activate(True, rig.now), False, "stopped: call resume first")
    assert is_answer(call.activate(False, rig.now), False, "still braking: try again")
    assert is_answer(call.resume(rig.now), False, "still braking: try again")
    rig.tick(100)
    assert is_answer(call.resume(rig.now), True, "inactive")
    call.on_deadman(True, rig.now)
    assert is_answer(call.activate(True, rig.now), True, "active")
    assert is_answer(call.stop(rig.now), True, "stopped")
    assert is_answer(call.resume(rig.now), True, "holding until the next proposal")
    call.stop(rig.now)
    assert is_answer(call.activate(False, rig.now), True,
                     "stopped, and nothing is commanded any more: resume leads to inactive")
    assert not rig.tick().arms[0].publish and rig.filter.state == State.STOPPED
    assert is_answer(call.resume(rig.now), True, "inactive")
    rig.changes = dict(ready=False, message="reflex")
    rig.tick()
    assert is_answer(call.activate(True, rig.now), False, "arm: reflex; recover it first")
    rig.changes = dict(ready=False)
    rig.tick()
    assert is_answer(call.activate(True, rig.now), False, "arm: the robot does not accept commands; recover it first")


def test_while_led_nothing_else_begins():
    rig = Rig(change=lambda config: dataclasses.replace(config, deadman_required=False))
    rig.joints["arm"] = rig.joints["arm"] + np.array([0, 0, 0, 0, 0, 0, 2.22])
    rig.tick(3)
    done, text = rig.filter.activate(True, rig.now)
    assert done is False and text.startswith("arm/joint_7/position is outside by 0.") and text.endswith(" rad; call reenter")
    done, text = rig.filter.go_to_start(rig.now)
    assert done is False and text.endswith(" rad; call reenter")
    assert rig.filter.reenter(rig.now)[0] is True
    assert is_answer(rig.filter.activate(True, rig.now), False,
                     "the arms are being led: wait until they are inactive again, or call stop")
    assert rig.filter.homed is False


def test_the_status_says_what_is_carried_out_since_when_and_how_far_it_is():
    rig = Rig("sim_dual", change=lambda config: dataclasses.replace(config, ramp_s=0.0, speed_scale=0.6)).start()
    rig.tick(4)
    idle = rig.output.status
    assert (idle.epoch, idle.sequence, idle.instruction_sequence, idle.seed) == (0, 0, 0, 1)
    assert math.isnan(idle.proposal_age) and math.isnan(idle.observation_age) and idle.dry_run is False
    assert all(arm.asked is None and math.isnan(arm.position_error) and math.isnan(arm.rotation_error) and arm.mended is False
               for arm in idle.arms)
    begin = [np.array(rig.pose(index).position) for index in range(2)]
    turned = rotations.to_quaternion(rotations.exp(np.array([0.0, 0.0, 0.4])) @ rotations.to_matrix(DOWN))
    goals = [begin[0] + [0.05, 0.0, 0.02], begin[1] + [0.0, 0.03, 0.05]]
    received = rig.now
    assert rig.propose(goals, [turned, DOWN], epoch=11, instruction_sequence=5, observation_age=0.3, seed=1).accepted
    rig.epoch, rig.instruction = 11, 5
    rig.beat()
    rig.tick(40)
    rig.changes = dict(gripper_state=GripperState.MOVING, robot_mode=3)
    rig.run_until(lambda output: output.status.arms[0].robot_mode == 3, 1.0)
    status = rig.output.status
    assert (status.epoch, status.sequence, status.instruction_sequence) == (11, rig.sequence, 5)
    assert status.proposal_age == pytest.approx(rig.now - received) and status.observation_age == status.proposal_age + 0.3
    assert status.speed_scale == 0.6 and status.applied_scale == pytest.approx(0.6)
    assert 0.0 < status.tick_cpu_ms < 1e3 and 0.0 < status.tick_wall_ms < 1e3 and status.at_target is False
    for index, arm in enumerate(status.arms):
        sent, name = rig.pose(index), rig.config.arms[index].name
        assert arm.name == name and arm.gripper_state == GripperState.MOVING and arm.joint_state_age == 0.0
        np.testing.assert_array_equal(arm.target.position, sent.position)
        np.testing.assert_array_equal(arm.target.quaternion, sent.quaternion)
        np.testing.assert_array_equal(arm.asked.position, goals[index])
        assert abs(arm.asked.quaternion @ (turned, DOWN)[index]) == pytest.approx(1.0)
        away = np.linalg.norm(goals[index] - sent.position)
        assert arm.position_error == pytest.approx(away) and away > 1e-3
        here = rotations.to_matrix(sent.quaternion)
        assert arm.rotation_error == pytest.approx(np.linalg.norm(rotations.log(
            rotations.to_matrix((turned, DOWN)[index]) @ here.T)), abs=1e-9)
        stiffness = rig.config.arms[index].leash.stiffness_n_m
        assert arm.push_n == pytest.approx(stiffness * np.linalg.norm(sent.position - arm.measured.position))
        assert arm.mended is False and arm.at_target is False and arm.push_n > 0.1


def test_the_status_comes_at_its_rate_and_at_once_when_something_changes():
    rig = Rig().start()
    rig.tick(20)
    statuses = [rig.tick() for _ in range(200)]
    new = [output for before, output in zip(statuses, statuses[1:]) if output.status is not before.status]
    assert len(new) in (19, 20, 21) and not any(output.status_changed for output in statuses)
    rig.propose(HERE)
    assert rig.tick().status_changed is True and rig.output.status.sequence == rig.sequence
    assert rig.tick().status_changed is False
    rig.filter.stop(rig.now)
    assert rig.tick().status_changed is True and rig.output.status.state == State.STOPPED
    rig.tick(3)
    rig.filter.hold_for(Reason.OPERATOR, "x")
    rig.now -= 0.05
    assert rig.tick().status.reasons & Reason.OPERATOR


def test_margins_are_those_of_the_command_and_of_the_measured_arm_and_say_which_shaped_the_step():
    rig = Rig().start()
    rig.propose([0.5, 1.5, 0.3])
    rig.tick(60)
    margins = {margin.name: margin for margin in rig.output.status.margins}
    box = rig.config.arms[0].workspace
    position, measured = rig.output.status.arms[0].target.position, rig.output.status.arms[0].measured.position
    assert margins["workspace/y_max"].margin == pytest.approx(box.upper_m[1] - position[1], abs=1e-3)
    assert margins["workspace/y_max"].unit == "m" and margins["arm/joint_2/position"].unit == "rad"
    assert margins["measured/workspace/y_max"].margin == pytest.approx(box.upper_m[1] - measured[1], abs=1e-3)
    assert {name[len("measured/"):] for name in margins if name.startswith("measured/")} < set(margins)
    assert not any(margin.active for name, margin in margins.items() if name.startswith("measured/"))
    joints = rig.joints["arm"]
    limits = rig.config.arms[0].joint_limits
    room = min(joints[3] - limits.lower_rad[3], limits.upper_rad[3] - joints[3]) - limits.margin_rad
    assert margins["measured/arm/joint_4/position"].margin == pytest.approx(room, abs=0.03)


@pytest.mark.parametrize("value, taken", [(1.0, True), (0.01, True), (1, True), (0.0, False), (0.0099, False), (-0.5, False),
                                          (1.001, False), (True, False), ("1", False), (math.nan, False), (None, False)])
def test_a_speed_scale_is_a_number_from_a_hundredth_to_1(value, taken):
    rig = Rig().start()
    if taken:
        rig.filter.set_speed_scale(value)
    else:
        with pytest.raises(ConfigurationError, match="speed_scale is "):
            rig.filter.set_speed_scale(value)
    rig.tick(20)
    assert rig.output.status.speed_scale == (float(value) if taken else rig.config.speed_scale)


def test_a_dry_run_begins_and_ends_while_inactive_only():
    rig = Rig()
    rig.filter.set_dry_run(True)
    assert rig.filter.dry_run is True
    rig.start()
    rig.filter.set_dry_run(True)
    with pytest.raises(ConfigurationError, match="deactivate first"):
        rig.filter.set_dry_run(False)
    assert rig.filter.dry_run is True
    rig.tick(20)
    assert rig.output.status.dry_run is True and not rig.output.arms[0].publish


def test_a_proposal_that_begins_a_motion_from_rest_says_so_and_none_else():
    rig = Rig().start()
    rig.tick()
    assert rig.propose(HERE).at_once is True
    rig.tick(10)
    assert rig.propose(HERE).at_once is False and rig.hold().at_once is False
    assert rig.filter.moving(rig.now) is True
    rig.run_until(lambda output: rig.filter.at_rest)
    assert rig.propose(HERE).at_once is True
    rig.filter.stop(rig.now)
    rig.tick(100)
    assert rig.filter.moving(rig.now) is False and rig.propose(HERE).at_once is False and rig.hold().accepted is True


def test_a_report_that_cannot_be_used_is_counted():
    rig = Rig().start()
    rig.filter.update_arm_state(dataclasses.replace(rig.arm_state("arm"), name="leg"), rig.now)
    rig.filter.update_arm_state(dataclasses.replace(rig.arm_state("arm"), joint_positions=np.zeros(3)), rig.now)
    assert rig.filter.counters["rejected/arm_state"] == 2
    assert rig.proposal(HERE).kind == Kind.ACTION


def test_an_early_tick_changes_nothing_and_one_that_is_a_little_early_counts():
    rig = Rig().start()
    rig.propose(HERE)
    rig.tick(20)
    before = rig.pose().position.copy()
    for share, moves in ((0.39, False), (0.41, True)):
        output = rig.filter.tick(rig.now + share * rig.config.dt)
        assert np.array_equal(output.arms[0].pose.position, before) is not moves
