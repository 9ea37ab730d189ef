"""Faults of the policy: whatever it does or stops doing, the arm comes to rest inside every limit."""
import dataclasses

import numpy as np
import pytest
from fault_rig import FaultRig
from safety_rig import DOWN

from hybridvla_core.contracts import PolicyState
from hybridvla_core.safety.status import Reason, State


def test_killed_policy_is_silent_and_the_arm_holds():
    rig = FaultRig().begin()
    rig.beating = False
    rig.tick(int(0.3 * 200) + 2)
    rig.assert_held(Reason.HEARTBEAT_LOST)
    rig.beating = True
    rig.assert_goes_on()


def test_frozen_policy_that_wakes_does_not_continue_the_old_target():
    rig = FaultRig().begin()
    rig.beating = False
    rig.tick(200)
    rig.beating = True                   # SIGCONT: it sends heartbeats again, but no new proposal
    rig.assert_held(Reason.PROPOSAL_STALE)


def test_heartbeat_alive_and_proposals_frozen():
    rig = FaultRig().begin(ticks=1)
    rig.set_off(valid_for=0.4)
    rig.tick(80)
    rig.assert_held(Reason.PROPOSAL_STALE)
    rig.assert_goes_on()


def test_policy_that_reports_a_fault():
    rig = FaultRig().begin()
    rig.beating = False
    for _ in range(60):
        rig.beat(state=PolicyState.FAULT, message="inference has taken 5 s")
        rig.tick(2)
    assert "inference has taken 5 s" in rig.output.status.message
    assert rig.filter.state == State.HOLDING and rig.speed() == 0.0
    rig.assert_no_violation()


def test_the_same_message_again_and_again_ends_when_its_validity_does():
    rig = FaultRig().begin(ticks=1)
    message = rig.proposal(rig.far()[0], valid_for=0.4)
    assert rig.filter.on_proposal(message, rig.now).accepted
    for _ in range(60):
        rig.tick(4)
        assert not rig.filter.on_proposal(message, rig.now).accepted
    assert rig.output.status.reasons & Reason.PROPOSAL_ORDER and rig.filter.state == State.HOLDING
    rig.assert_held(Reason.PROPOSAL_STALE)


@pytest.mark.long
def test_new_proposals_from_one_frozen_image_are_refused_once_it_is_old():
    rig = FaultRig().begin(ticks=1)
    frozen = rig.now
    answers = []
    for index in range(30):
        rig.tick(20)
        target = np.array(rig.far()[0]) + [0.0, 0.0, 0.004 * index]
        answers.append(rig.propose(target, stamp=frozen, valid_for=0.3, observation_age=0.1))
    assert answers[0].accepted and not answers[-1].accepted
    assert "old" in answers[-1].reason and rig.output.status.reasons & Reason.PROPOSAL_STALE
    rig.assert_held(Reason.PROPOSAL_STALE)
    rig.assert_goes_on()


@pytest.mark.long
def test_identical_targets_lead_to_the_target_and_no_further():
    rig = FaultRig().begin(ticks=1)
    for _ in range(40):
        assert rig.propose(rig.far()[0], action_period=0.1, valid_for=0.2).accepted
        rig.tick(20)
    assert np.linalg.norm(rig.pose().position - rig.far()[0]) < 1e-3
    rig.assert_held(Reason.PROPOSAL_STALE)


def test_restart_with_another_epoch_while_moving():
    rig = FaultRig().begin()
    rig.epoch, rig.sequence, rig.instruction = 99, 0, 1
    answer = rig.propose([0.3, -0.3, 0.5])
    assert not answer.accepted and "rest" in answer.reason
    rig.tick(20)
    assert rig.output.status.reasons & Reason.PROPOSAL_ORDER
    rig.assert_held(state=State.HOLDING)          # the old epoch's heartbeat is lost
    rig.assert_goes_on()
    assert rig.output.status.epoch == 99


@pytest.mark.parametrize("beats", [False, True])
def test_two_publishers_hold_the_arm_until_one_is_left(beats):
    rig = FaultRig().begin()
    for index in range(60):
        other = rig.proposal([0.3, -0.3, 0.5], epoch=55, sequence=index + 1)
        rig.sequence -= 1
        if beats:
            heartbeat = dataclasses.replace(rig.last_beat(), epoch=55)
            rig.filter.on_heartbeat(heartbeat, rig.now, "/other")
        else:
            assert not rig.filter.on_proposal(other, rig.now, "/other").accepted
        rig.tick(4)
        rig.set_off()
    assert rig.filter.state == State.HOLDING and rig.speed() == 0.0
    assert rig.output.status.reasons & Reason.SECOND_PUBLISHER and "/other" in rig.output.status.message
    rig.tick(70)
    rig.assert_goes_on()


@pytest.mark.long
@pytest.mark.parametrize("robot, count", [("sim_fr3", 0), ("sim_fr3", 2), ("sim_dual", 0), ("sim_dual", 1),
                                          ("sim_dual", 3)])
def test_wrong_number_of_arms(robot, count):
    rig = FaultRig(robot).begin()
    whole = rig.proposal(rig.far(), [DOWN] * len(rig.config.arms))
    spoilt = dataclasses.replace(whole, targets=(whole.targets * 3)[:count])
    answer = rig.filter.on_proposal(spoilt, rig.now)
    assert not answer.accepted and "targets are for" in answer.reason
    rig.tick()
    assert rig.output.status.reasons & Reason.PROPOSAL_INVALID and "targets are for" in rig.output.status.message
    rig.assert_held(Reason.PROPOSAL_STALE)
    rig.assert_goes_on()


def test_a_number_that_is_none_in_the_middle_of_a_stream_holds():
    rig = FaultRig().begin()
    assert not rig.propose([0.5, np.nan, 0.3]).accepted
    rig.assert_held(Reason.PROPOSAL_STALE)


def test_a_flood_at_one_kilohertz_moves_the_arm_no_faster():
    rig = FaultRig().begin(ticks=1)
    rng = np.random.default_rng(5)
    for _ in range(200):
        for _ in range(5):
            rig.propose(rng.uniform([0.3, -0.4, 0.1], [0.6, 0.4, 0.6]), action_period=0.02, valid_for=0.2)
        rig.tick()
    rig.assert_held(Reason.PROPOSAL_STALE)


def test_a_newer_instruction_drops_the_old_target_at_once():
    rig = FaultRig().begin()
    rig.instruction = 2
    rig.beat()
    rig.assert_held(Reason.PROPOSAL_STALE)
    assert not rig.propose(rig.far(), instruction_sequence=1).accepted
    rig.assert_goes_on()
