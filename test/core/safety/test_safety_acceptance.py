"""Which proposals are accepted: well-formed ones, in order, from one publisher and epoch."""
import numpy as np
import pytest
from safety_rig import DOWN, Rig

from hybridvla_core.contracts import ArmTarget, DeltaBase, Pose

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
