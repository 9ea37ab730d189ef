"""Faults of robots in the field: arms that are held, pushed or moved without the filter, and drivers that fall silent."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.contracts import Heartbeat, PolicyState
from hybridvla_core.geometry import rotations
from hybridvla_core.safety.execution.way_to_start import WayToStart
from hybridvla_core.safety.status import Reason, State

AWAY = np.array([0.0, 0, 0, 0, 0, 0, 2.22])          # beyond the last joint's limit


@pytest.mark.long
def test_measured_arms_that_come_too_near_hold_and_their_margins_stand_in_the_status():
    rig = Rig("sim_dual", change=lambda config: dataclasses.replace(config, deadman_required=False))
    for name in rig.joints:
        rig.joints[name] = np.array([0.0, 0.15, 0.0, -2.0, 0.0, 2.15, 0.785])
    rig.start().tick(50)
    rig.follows = False
    for _ in range(300):
        rig.joints["right"] = rig.joints["right"] + np.array([0.86 / 300, 0, 0, 0, 0, 0, 0])
        rig.joints["left"] = rig.joints["left"] - np.array([0.86 / 300, 0, 0, 0, 0, 0, 0])
        rig.tick(2)
    status = rig.tick(20).status
    assert status.state == State.HOLDING and status.reasons & Reason.MEASURED_LIMIT and status.reasons & Reason.OTHER_ARM
    assert "inter_arm is broken by the measured arm" in status.message
    assert {margin.name: margin.margin for margin in status.margins}["measured/inter_arm"] < -0.05
    assert rig.filter.counters["measured_violations"] == 1


def test_nothing_is_sent_to_an_arm_that_moved_while_its_driver_was_silent():
    rig = Rig("agilex", change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
    rig.tick(100)
    rig.silent.add("right")
    rig.tick(200)
    assert not rig.output.arms[0].publish, "nobody knows where it is"
    rig.follows = False
    rig.joints["right"] = np.array([-0.4, 1.6, -1.3, 0.2, 0.7, 0.3])
    rig.silent.discard("right")
    for _ in range(300):
        assert not rig.tick().arms[0].publish
    status = rig.output.status
    assert status.state == State.STOPPED and status.reasons & Reason.JOINT_STATE and "not where it was" in status.message
    seed = status.seed
    assert rig.filter.resume(rig.now)[0]
    command = rig.tick().arms[0]
    assert command.publish and rig.output.status.seed == seed + 1
    np.testing.assert_allclose(command.joint_positions, rig.joints["right"], atol=1e-6)


def test_a_silence_in_which_the_arm_stayed_goes_on_by_itself():
    rig = Rig().start()
    rig.tick(50)
    rig.silent.add("arm")
    rig.tick(200)
    rig.silent.clear()
    rig.tick(60)
    rig.propose(rig.pose().position + [0.0, 0.05, 0.0])
    rig.tick(60)
    assert rig.filter.state == State.ACTIVE and rig.output.arms[0].publish


def test_joint_states_that_come_ever_later_are_too_old_by_their_own_stamps():
    rig = Rig().start()
    offset, late = 1.7e9, 0.0
    for _ in range(400):
        rig.changes = dict(stamp=rig.now + rig.config.dt + offset - late)
        rig.tick()
        late += 0.001
    status = rig.output.status
    assert status.reasons & Reason.JOINT_STATE and "later than they did, by their own stamps" in status.message
    assert status.arms[0].joint_state_age == pytest.approx(0.4, abs=0.02)


def test_a_proposal_carries_the_seed_it_was_made_under():
    rig = Rig().start()
    rig.tick(20)
    seed = rig.output.status.seed
    here = rig.pose().position
    assert seed == 1 and rig.filter.on_proposal(rig.proposal(here, seed=seed), rig.now).accepted
    rig.filter.activate(False, rig.now)
    rig.tick(20)
    rig.beat()
    assert rig.filter.activate(True, rig.now)[0]
    assert rig.tick().status.seed == seed + 1
    answer = rig.filter.on_proposal(rig.proposal(here, seed=seed), rig.now)
    assert not answer.accepted and "seed 1" in answer.reason
    old = rig.filter.on_proposal(rig.proposal(here, observation_age=0.5), rig.now)
    assert not old.accepted and "seeded anew" in old.reason, "no seed stated: judged by when it was seen"
    assert rig.filter.on_proposal(rig.proposal(here, seed=seed + 1), rig.now).accepted


def test_a_proposal_that_builds_on_another_place_is_refused():
    rig = Rig().start()
    rig.tick(20)
    answer = rig.filter.on_proposal(rig.proposal(rig.pose().position + [0.0, 0.34, 0.0], seed=1), rig.now)
    assert not answer.accepted and "its base lies 340 mm" in answer.reason


@pytest.mark.parametrize("how", ["go_to_start", "reenter"])
def test_only_activate_leads_to_following(how):
    rig = Rig("agilex" if how == "go_to_start" else "sim_fr3",
              change=lambda config: dataclasses.replace(config, deadman_required=False))
    name = rig.config.arms[0].name
    rig.joints[name] = rig.joints[name] + (np.array([0.5, 0, 0, 0, 0, 0]) if how == "go_to_start" else AWAY)
    rig.tick(60)
    assert getattr(rig.filter, how)(rig.now)[0]
    rig.tick(8)
    done, answer = rig.filter.activate(True, rig.now)
    assert not done and "being led" in answer and rig.filter.state == State.RECOVERING
    rig.filter.stop(rig.now)
    rig.tick(200)
    assert rig.filter.resume(rig.now) == (True, "inactive")
    assert rig.filter.state == State.INACTIVE and not rig.tick().arms[0].publish


@pytest.mark.long
def test_a_target_a_little_outside_freezes_neither_arm():
    rig = Rig("sim_dual", change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
    rig.tick(20)
    turns = [arm.pose.quaternion for arm in rig.output.arms]
    rig.propose([[0.5, 0.1, 0.0045], rig.pose(1).position], turns)
    rig.tick(1200)
    before = rig.pose(1).position
    rig.propose([[0.5, 0.1, 0.0045], before + [0.1, 0.1, -0.1]], turns)
    rig.tick(1200)
    assert np.linalg.norm(rig.pose(1).position - before) == pytest.approx(0.1732, abs=1e-3)
    status = rig.output.status
    assert not status.at_target and status.reasons & Reason.WORKSPACE and status.arms[0].mended and not status.arms[1].mended


def test_an_arm_that_is_held_short_of_its_target_has_not_arrived_and_the_gripper_waits():
    rig = Rig("fr3", change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
    rig.tick(250)
    rig.follows = False
    rig.propose(rig.pose().position + [0.0, 0.045, 0.0], opening=0.0)
    rig.tick(800)
    status = rig.output.status
    assert not status.at_target and rig.opening["arm"] == 1.0
    assert status.reasons & Reason.LEASH and "45 mm from its target" in status.message


def test_a_tool_that_does_not_turn_with_its_target_has_not_arrived():
    rig = Rig(change=lambda config: dataclasses.replace(config, ramp_s=0.0)).start()
    rig.tick(2)
    rig.follows = False
    matrix = rig.filter.commanded_rotations[0] @ rotations.exp(np.array([0.0, 0.0, 0.2]))
    rig.propose(rig.pose().position, rotations.to_quaternion(matrix))
    rig.tick(600)
    status = rig.output.status
    assert not status.at_target and status.reasons & Reason.LEASH
    assert "the tool is turned by 11 degrees from its target" in status.message


def test_impossible_readings_are_refused_by_name():
    rig = Rig()
    rig.joints["arm"] = np.degrees(rig.joints["arm"])
    rig.tick(60)
    for call in (lambda: rig.filter.activate(True, rig.now), lambda: rig.filter.reenter(rig.now)):
        done, answer = call()
        assert not done and "degrees" in answer and "reenter" not in answer


def test_late_ticks_are_said():
    rig = Rig().start()
    for _ in range(60):
        rig.now += 0.007
        rig.tick()
    assert rig.output.status.reasons & Reason.TICK_OVERRUN


def test_inactive_says_what_would_refuse():
    rig = Rig("fr3")
    rig.beating, rig.changes = False, dict(ready=False, message="reflex")
    status = rig.tick(100).status
    assert status.state == State.INACTIVE and status.reasons & Reason.ROBOT_MODE and "reflex" in status.message
    assert status.reasons & Reason.DEADMAN and status.reasons & Reason.HEARTBEAT_LOST


def test_activate_without_the_dead_man_says_that_it_holds():
    rig = Rig("fr3")
    rig.tick(20)
    assert rig.filter.activate(True, rig.now) == (True, "active, but holding: press the dead-man")


def test_a_gripper_remembers_across_a_reseed_what_it_had_decided():
    rig = Rig("fr3", change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
    rig.propose(rig.tick(5).arms[0].pose.position, opening=0.0)
    rig.tick(300)
    assert rig.opening["arm"] == 0.0
    rig.filter.activate(False, rig.now)
    rig.tick(30)
    rig.beat()
    assert rig.filter.activate(True, rig.now)[0]
    rig.tick(5)
    rig.propose(rig.pose().position, opening=0.55)
    rig.tick(300)
    assert rig.opening["arm"] == 0.0


def test_a_second_publisher_that_speaks_now_and_then_stops_motion_once():
    rig = Rig().start()
    rig.tick(20)
    spells, moving = 0, False
    for k in range(1600):
        if k % 100 == 0:
            rig.filter.on_heartbeat(Heartbeat(99, 1, 1, PolicyState.INFERRING), rig.now, "/other")
        if k % 30 == 0:
            rig.propose([0.45, 0.3 if (k // 300) % 2 else -0.3, 0.4], action_period=0.15, valid_for=0.25)
        before = rig.pose().position
        rig.tick()
        now = np.linalg.norm(rig.pose().position - before) > 1e-6
        spells, moving = spells + (now and not moving), now
    assert spells <= 1


@pytest.mark.parametrize("refused", ["", "reenter", "go_to_start"])
def test_a_sag_below_the_leash_does_not_lower_the_arm_at_each_activation(refused, monkeypatch):
    """A refused way back in between does not lower it either, be it because every arm is inside or because no way is free."""
    monkeypatch.setattr(WayToStart, "choose", lambda self, here: ([], "a post"))
    rig = Rig().start()
    rig.tick(20)
    sag = np.array([0.0, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0])
    rig.follows, heights = False, []
    for _ in range(3):
        rig.joints["arm"] = rig.output.arms[0].joint_positions + sag
        rig.tick(100)
        heights.append(rig.pose().position[2])
        rig.filter.activate(False, rig.now)
        rig.tick(60)
        if refused:
            reseeds = rig.filter.counters["reseeds"]
            assert not getattr(rig.filter, refused)(rig.now)[0] and rig.filter.counters["reseeds"] == reseeds
        rig.beat()
        assert rig.filter.activate(True, rig.now)[0]
        rig.tick(5)
    assert np.ptp(heights) < 1e-6


def test_a_load_that_pulls_the_arm_beyond_the_leash_is_named_and_up_stays_allowed():
    rig = Rig("fr3", change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
    rig.tick(60)
    rig.follows = False
    sag = np.array([0.0, 0.17, 0.0, 0.0, 0.0, 0.0, 0.0])
    start = rig.joints["arm"].copy()
    for k in range(60):
        rig.joints["arm"] = start + sag * (k + 1) / 60
        rig.tick(2)
    rig.propose(rig.pose().position + [0.0, 0.1, 0.0])
    rig.tick(100)
    status = rig.output.status
    assert 20.0 < status.arms[0].push_n < 30.0 and status.reasons & Reason.LEASH and "payload" in status.message
    before = rig.pose().position
    rig.propose(before + [0.0, 0.0, 0.1])
    for _ in range(300):
        rig.tick()
        rig.joints["arm"] = rig.output.arms[0].joint_positions + sag
    assert rig.pose().position[2] - before[2] > 0.08
