"""Recorded decisions: with which instruction they are repeated, and what happens to those that cannot be repeated."""
from __future__ import annotations

import pytest
import replay_bag
import rosbag
import rospy
from replay_bag import BEGIN, INSTRUCTION
from still_policy import Still, replay, without_a_model

from hybridvla.msg import ActionProposal

OTHER = "put the red block on the green pad"
PROPOSALS = "/hybridvla/policy/proposal"
TAKEN = 1.005            # stamp of one of the images, which come at 10 Hz


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    without_a_model(monkeypatch)


@pytest.fixture(scope="module")
def recording():
    return replay_bag.Motion(4.0)


def decided(path, recording, stamps, mode="a", begin=BEGIN):
    """Write a bag with the policy's proposals for images at these stamps, s. mode "w": nothing else in the bag."""
    if mode == "a":
        replay_bag.write(path, recording)
    with rosbag.Bag(str(path), mode) as bag:
        for stamp in stamps:
            message = ActionProposal(chunk=1, action_dim=7, action=[0.0] * 6 + [1.0], instruction=INSTRUCTION,
                                     checkpoint_sha256=Still.manifest_sha256)
            message.header.stamp = rospy.Time.from_sec(begin + stamp)
            bag.write(PROPOSALS, message, rospy.Time.from_sec(max(BEGIN + stamp, BEGIN) + 0.1))
    return path


def check(result, name):
    found, = [check for check in result.checks if check.name.endswith(name)]
    return found


def test_a_given_instruction_is_asked_at_recorded_decisions_too_and_compared_with_no_proposal_for_another(recording, tmp_path):
    bag = decided(tmp_path / "run.bag", recording, [TAKEN, TAKEN + 0.5, TAKEN + 1.0])
    for given, asked, compared in (("", INSTRUCTION, 3), (INSTRUCTION, INSTRUCTION, 3), (OTHER, OTHER, 0)):
        result = replay(bag, rate=0.0, instruction=given)
        assert [row.instruction for row in result.contenders[0].evaluator.rows] == [asked] * 3
        assert result.summary["reproduction"]["of_this_checkpoint"] == compared


def test_recorded_decisions_without_their_images_are_judged_as_a_share_with_the_reason(recording, tmp_path):
    fine = replay(decided(tmp_path / "fine.bag", recording, [TAKEN + 0.1 * k for k in range(10)]), rate=0.0)
    assert (check(fine, ": decisions").outcome, check(fine, ": decisions").value) == ("pass", 0.0)
    stamps = [TAKEN, TAKEN + 0.5, TAKEN + 1.05, TAKEN + 1.55]        # half of them between two images
    result = replay(decided(tmp_path / "half.bag", recording, stamps), rate=0.0)
    found = check(result, ": decisions")
    assert (found.outcome, found.value) == ("fail", 0.5) and found.text in result.summary["reasons"]
    assert "no images with the stamps of the recorded proposal are in the bag (first at" in found.text
    observing = result.summary["bags"][0]["observing"]
    assert (observing["decisions"], observing["unmatched_proposals"]) == (4, 2)


def test_why_a_recorded_decision_cannot_be_observed_is_kept(recording, tmp_path):
    def gap(topic, now, message, stamp):
        return None if topic == replay_bag.JOINTS and 1.5 < now < 3.0 else (message, stamp)

    bag = replay_bag.write(tmp_path / "gap.bag", recording, change=gap)
    with rosbag.Bag(str(bag), "a") as more, rosbag.Bag(str(decided(tmp_path / "p.bag", recording, [2.205], "w"))) as made:
        for topic, message, when in made.read_messages():
            more.write(topic, message, when)
    problems = replay(bag, rate=0.0).summary["bags"][0]["observing"]["unmatched_problems"]
    assert len(problems) == 1 and "arm" in next(iter(problems)), problems


def test_the_image_of_a_first_decision_may_lie_just_before_the_recording(recording, tmp_path):
    result = replay(decided(tmp_path / "first.bag", recording, [-0.195, TAKEN]), rate=0.0)
    assert (check(result, ": decisions").outcome, check(result, ": decisions").value) == ("pass", 0.0)


def test_proposals_from_another_bag_fail_where_none_belongs_to_the_recordings_and_may_belong_to_any(recording, tmp_path):
    one = replay_bag.write(tmp_path / "one.bag", recording)
    other = replay_bag.write(tmp_path / "other.bag", recording, change=lambda topic, now, message, stamp: (message, stamp + 0.03))
    stamps = [TAKEN, TAKEN + 0.5, TAKEN + 0.53, TAKEN + 1.03]
    both = replay(one, other, rate=0.0, proposals_from=decided(tmp_path / "live.bag", recording, stamps, "w"))
    assert (check(both, ": decisions").outcome, check(both, ": decisions").value) == ("pass", 0.0)
    alone = replay(one, rate=0.0, proposals_from=tmp_path / "live.bag")
    assert (check(alone, ": decisions").outcome, check(alone, ": decisions").value) == ("fail", 0.5)
    nothing = replay(one, rate=2.0, proposals_from=decided(tmp_path / "foreign.bag", recording, stamps, "w", BEGIN - 3600.0))
    assert check(nothing, ": decisions").outcome == "fail"
    assert any("foreign.bag: none of its 4 proposals was made from images in the recordings" in text
               for text in nothing.summary["reasons"])
