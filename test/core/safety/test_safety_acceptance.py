"""Which proposals are accepted: well-formed ones, in order, from one publisher and epoch."""
import numpy as np
import pytest
from safety_rig import DOWN, ROBOTS, Rig

from hybridvla_core.contracts import ArmTarget, DeltaBase, Pose
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.inputs.acceptance import ProposalGate
from hybridvla_core.safety.inputs.measured_arm import DRIFT
from hybridvla_core.safety.status import Reason

pytestmark = pytest.mark.robot_computer


@pytest.mark.parametrize("spoil, words", [
    (dict(epoch=0), "epoch is 0 and sequence"),
    (dict(valid_for=float("nan")), "valid_for is nan, not a number of seconds"),
    (dict(valid_for=0.0), "valid_for"),
    (dict(observation_age=-1.0), "future"),
    (dict(observation_age=5.0), "old"),
    (dict(action_period=float("inf")), "action_period is inf, not a number of seconds"),
    (dict(chunk=2), "targets are for"),
    (dict(chunk=0), "chunk"),
    (dict(targets=()), "targets are for"),
])
def test_ill_formed_proposals_are_refused(spoil, words):
    rig = Rig().start()
    answer = rig.propose([0.5, 0.1, 0.3], **spoil)
    assert not answer.accepted and words in answer.reason


@pytest.mark.parametrize("position, quaternion, frame, name, gripper, words", [
    ([np.nan, 0, 0.3], DOWN, None, None, 1.0, "finite"),
    ([0.5, 1e30, 0.3], DOWN, None, None, 1.0, "world"),
    ([0.5, 0, 0.3], [0, 0, 0, 0], None, None, 1.0, "unit"),
    ([0.5, 0, 0.3], [0, 0, np.inf, 1], None, None, 1.0, "finite"),
    ([0.5, 0, 0.3], [0, 0, 0, 1.3], None, None, 1.0, "unit"),
    ([0.5, 0, 0.3], DOWN, "world", None, 1.0, "frame"),
    ([0.5, 0, 0.3], DOWN, None, "left", 1.0, "targets are for"),
    ([0.5, 0, 0.3], DOWN, None, None, np.nan, "gripper"),
    ([0.5, 0], DOWN, None, None, 1.0, "three numbers"),
])
def test_targets_that_are_no_poses_are_refused(position, quaternion, frame, name, gripper, words):
    rig = Rig().start()
    arm = rig.config.arms[0]
    pose = Pose(np.array(position, dtype=float), np.array(quaternion, dtype=float))
    target = ArmTarget(name or arm.name, frame or arm.base_frame, pose, rig.now, pose, DeltaBase.COMMANDED, gripper)
    answer = rig.propose([0.5, 0.0, 0.3], targets=(target,))
    assert not answer.accepted and words in answer.reason
    assert rig.tick(20).status.counters["rejected/proposal_invalid"] == 1


def test_order_epoch_and_publisher():
    rig = Rig().start()
    first = rig.proposal([0.4, 0.1, 0.4])
    assert rig.filter.on_proposal(first, rig.now).accepted
    assert not rig.filter.on_proposal(first, rig.now).accepted                                # the same again
    assert not rig.propose([0.4, 0.1, 0.4], stamp=first.stamp - 0.1).accepted                   # older observation
    rig.tick(20)
    assert not rig.propose([0.4, 0.1, 0.4], epoch=99).accepted                                  # new epoch in motion
    assert not rig.filter.on_proposal(rig.proposal([0.4, 0.1, 0.4]), rig.now, "/other").accepted
    rig.instruction = 3
    assert rig.propose([0.4, 0.1, 0.4]).accepted
    assert not rig.propose([0.4, 0.1, 0.4], instruction_sequence=2).accepted
    rig.run_until(lambda output: rig.filter.at_rest)
    rig.epoch, rig.sequence = 99, 0
    assert rig.propose([0.4, 0.0, 0.4]).accepted                                                # new epoch at rest
    assert not rig.propose([0.4, 0.0, 0.4], epoch=7, sequence=1000).accepted                    # the old epoch is gone


def test_an_action_behind_a_hold_may_be_of_an_image_from_before_it():
    rig = Rig().start()
    assert rig.propose([0.4, 0.1, 0.4]).accepted
    old = rig.now
    rig.tick(20)
    rig.instruction = 2
    assert rig.hold().accepted
    assert rig.propose([0.4, 0.1, 0.4], stamp=old + 0.03).accepted, "the first of the new task"
    assert not rig.propose([0.4, 0.1, 0.4], stamp=old).accepted, "actions keep their order"


@pytest.mark.parametrize("said", [
    dict(stamp=0.0), dict(stamp=float("nan")), dict(observation_age=-1.0), dict(observation_age=60.0),
    dict(observation_age=float("nan")), dict(stamp=0.0, observation_age=0.0), dict(seed=99)])
def test_a_hold_is_taken_whatever_it_says_of_an_observation(said):
    """The observation has no stamp, an old one, no age, or a clock that is behind the camera's."""
    rig = Rig().start()
    assert rig.propose([0.4, 0.1, 0.4]).accepted
    rig.tick(60)
    answer = rig.hold(**said)
    assert answer.accepted, answer.reason
    status = rig.tick(100).status
    assert rig.filter.at_rest and status.sequence == rig.sequence and not status.at_target
    assert status.counters["accepted"] == 2
    assert rig.propose([0.4, 0.1, 0.4]).accepted, "and nothing of it is remembered"


def test_a_hold_keeps_the_order_of_epochs_sequences_and_instructions():
    rig = Rig().start()
    rig.instruction = 2
    assert rig.propose([0.4, 0.1, 0.4]).accepted
    rig.tick(60)
    for said in (dict(sequence=rig.sequence), dict(instruction_sequence=1), dict(epoch=99), dict(epoch=0), dict(valid_for=0.0)):
        assert not rig.hold(**said).accepted, said


AHEAD_S = 5.0e6       # what the policy's clock is ahead of ours
AGE_S = 0.2


class Sender:
    """A policy on another computer: its clock is not ours, and its proposals may be held up on their way to the gate."""

    def __init__(self, watch_delay=True):
        self.rig = Rig()
        self.gate = ProposalGate(load_robot(ROBOTS / "sim_fr3.yaml"), watch_delay)
        self.now, self.clock, self.arrived = 100.0, AHEAD_S, -np.inf

    def send(self, after=0.1, held_up=0.0, said=AGE_S):
        """Publish a proposal `after` s; return the gate's verdict when it arrives."""
        self.now += after
        proposal = self.rig.proposal([0.5, 0.0, 0.3], stamp=self.now + self.clock - AGE_S, observation_age=said)
        self.arrived = max(self.arrived, self.now + held_up)
        return self.gate.on_proposal(proposal, self.arrived, "", True)

    def taken(self, **keys):
        return not self.send(**keys)[0]


def test_a_proposal_that_waited_on_its_way_is_as_old_as_it_is():
    rig = Rig().start()

    def propose(waited):
        made = rig.proposal([0.5, 0.1, 0.3], stamp=rig.now - waited - AGE_S + AHEAD_S, observation_age=AGE_S, seed=1)
        return rig.filter.on_proposal(made, rig.now)
    assert propose(0.0).accepted
    rig.tick(700)
    refused = propose(3.0)
    assert not refused.accepted and refused.reason.startswith("its observation was 3.20 s old: it came 3.00 s later than others")
    assert "restart the policy if its clock was set back" in refused.reason
    status = rig.tick().status
    assert status.reasons & Reason.PROPOSAL_STALE and status.counters["rejected/proposal_stale"] == 1
    assert propose(1.0).accepted, "not too old yet"
    status = rig.tick(20).status
    assert status.observation_age - status.proposal_age == pytest.approx(1.0 + AGE_S, abs=0.01), "the status counts it"
    assert propose(0.0).accepted


def test_a_queue_that_empties_late_is_refused_until_what_comes_is_new():
    sender = Sender()
    assert sender.taken()
    verdicts = [sender.taken(held_up=max(0.0, 5.0 - 0.1 * step)) for step in range(80)]      # all arrive at one moment
    late = int((5.0 - (2.0 - AGE_S)) / 0.1)
    assert not any(verdicts[:late - 1]) and all(verdicts[late + 1:])


def test_clocks_that_drift_apart_do_not_look_like_a_delay():
    sender = Sender()
    for _ in range(3600):
        sender.clock -= 0.5 * DRIFT
        assert sender.taken(after=1.0)


@pytest.mark.parametrize("step", [7.05, -7.05])
def test_a_senders_clock_that_is_set_refuses_for_as_long_as_its_stamps_are_old_and_no_longer(step):
    sender = Sender()
    assert all(sender.taken() for _ in range(10))
    sender.clock += step
    verdicts = [sender.send()[0] for _ in range(90)]
    old = [verdict for verdict in verdicts if verdict]
    assert len(old) == pytest.approx(max(0.0, -step) / 0.1, abs=1) and set(old) <= {Reason.PROPOSAL_ORDER}
    assert not any(verdicts[len(old):])
    assert sender.send(held_up=3.0)[0] == Reason.PROPOSAL_STALE, "and a delay is still seen"


def test_a_step_back_that_hides_between_two_keyframes_is_refused_with_what_to_do_and_a_restart_ends_it():
    sender = Sender()
    assert sender.taken()
    sender.clock -= 4.0
    reason, text = sender.send(after=8.0)
    assert reason == Reason.PROPOSAL_STALE and "restart the policy if its clock was set back" in text
    sender.rig.epoch, sender.rig.sequence = 8, 0
    assert sender.taken() and sender.taken()


def test_what_is_refused_for_its_own_age_makes_nothing_after_it_late():
    sender = Sender()
    assert sender.taken() and not sender.taken(said=60.0)
    assert sender.taken()


def test_after_our_own_clock_was_set_and_with_simulated_time_a_delay_says_nothing():
    sender = Sender()
    assert sender.taken()
    sender.gate.forget_stamp()
    assert sender.taken(held_up=5.0)
    paused = Sender(watch_delay=False)
    assert paused.taken() and paused.taken(held_up=5.0)
    rig = Rig()
    rig.filter = SafetyFilter(rig.config, simulated_time=True)
    rig.start()
    assert rig.propose([0.5, 0.1, 0.3]).accepted
    rig.tick(600)
    assert rig.propose([0.5, 0.1, 0.3], stamp=rig.now - 2.9).accepted, "/clock runs at another pace"
