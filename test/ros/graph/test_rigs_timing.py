"""Time from stamp to target, as an observer measures it, whichever message comes first."""
from __future__ import annotations

import pytest
import rospy

from hybridvla.msg import ActionProposal, SafetyStatus
from hybridvla_ros.benchmarks.stamp_to_target import StampToTarget


def proposal(sequence, at, age=0.0, stages=()):
    made = ActionProposal(epoch=7, sequence=sequence, observation_age=rospy.Duration.from_sec(age), stage_ms=list(stages))
    made.header.stamp = rospy.Time.from_sec(at)
    return made


def status(sequence, at):
    sent = SafetyStatus(epoch=7, sequence=sequence)
    sent.header.stamp = rospy.Time.from_sec(at)
    return sent


@pytest.mark.parametrize("status_first", [False, True])
def test_a_proposal_and_the_first_status_with_it_are_paired(status_first):
    timing = StampToTarget()
    calls = [lambda: timing.on_proposal(proposal(3, 100.0, age=0.030, stages=[15.0, 5.0])),
             lambda: timing.on_status(status(3, 100.040))]
    for call in reversed(calls) if status_first else calls:
        call()
    timing.on_status(status(3, 100.060))            # the same proposal, still being executed
    result = timing.result()
    assert result["executed"] == 1 and result["whole_ms"]["median"] == pytest.approx(40.0, abs=1e-3)
    assert result["stamp_to_target_ms"]["median"] == pytest.approx(20.0, abs=1e-3)
    assert result["stamp_to_proposal_ms"]["median"] == pytest.approx(10.0, abs=1e-3)


def test_a_proposal_that_was_never_executed_counts_nowhere():
    timing = StampToTarget()
    timing.on_proposal(proposal(1, 100.0, age=5.0))
    timing.on_proposal(proposal(2, 101.0, age=0.004))
    timing.on_status(status(2, 101.006))
    result = timing.result()
    assert result["executed"] == 1 and result["stamp_to_proposal_ms"]["median"] == pytest.approx(4.0, abs=1e-3)
