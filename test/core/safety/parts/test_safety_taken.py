"""Which proposals are accepted, exactly at the bounds, and how long a refusal is shown."""
import dataclasses
import math

import numpy as np
import pytest
from safety_rig import DOWN, ROBOTS, Rig

from hybridvla_core.contracts import Heartbeat, PolicyState, Pose
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.inputs.acceptance import (
    AGAIN_S,
    FARTHEST_M,
    SECOND_S,
    SHORTEST_PERIOD_S,
    SHOWN_S,
    UNIT_TOLERANCE,
    ProposalGate,
)
from hybridvla_core.safety.status import Reason

pytestmark = pytest.mark.robot_computer
HERE, NEAR = [0.5, 0.05, 0.35], [0.32, 0.03, 0.48]


#: Changes of a proposal at the bounds, and whether it is accepted.
BOUNDS = [
    (dict(valid_for=30.0), True), (dict(valid_for=30.001), False), (dict(valid_for=1e-6), True), (dict(valid_for=0.0), False),
    (dict(observation_age=0.0), True), (dict(observation_age=2.0), True), (dict(observation_age=2.001), False),
    (dict(observation_age=-1e-9), False), (dict(action_period=SHORTEST_PERIOD_S), True),
    (dict(action_period=0.99 * SHORTEST_PERIOD_S), False), (dict(action_period=10.0), True), (dict(action_period=10.01), False),
    (dict(action_period=-0.1), False), (dict(sequence=0), False), (dict(epoch=-1), False), (dict(stamp=math.inf), False),
    (dict(valid_for=math.inf), False), (dict(observation_age=math.nan), False), (dict(opening=1.5), True),
    (dict(opening=1.51), False), (dict(opening=-0.5), True), (dict(opening=-0.51), False), (dict(kind=7), False),
    (dict(chunk=0, targets=()), False), (dict(position=[FARTHEST_M, 0, 0.3]), True),
    (dict(position=[0, -1.01 * FARTHEST_M, 0]), False),
    (dict(quaternion=DOWN * (1 + 0.99 * UNIT_TOLERANCE)), True), (dict(quaternion=DOWN * (1 + 1.01 * UNIT_TOLERANCE)), False),
    (dict(quaternion=DOWN * (1 - 0.99 * UNIT_TOLERANCE)), True), (dict(quaternion=DOWN * (1 - 1.01 * UNIT_TOLERANCE)), False),
    (dict(frame="/"), True), (dict(frame="not/"), False),
]


@pytest.mark.parametrize("change, taken", BOUNDS, ids=[f"{min(change)}-{index}" for index, (change, _) in enumerate(BOUNDS)])
def test_a_proposal_is_taken_up_to_its_bounds(change, taken):
    rig, change = Rig().start(), dict(change)
    rig.now += 0.09                                 # less than a pause
    if change.get("observation_age", 0.0) > 0.0:
        change["seed"] = 1
    position, quaternion = change.pop("position", HERE), change.pop("quaternion", None)
    opening, frame = change.pop("opening", 1.0), change.pop("frame", None)
    proposal = rig.proposal(position, quaternion, opening, **change)
    if frame is not None:
        targets = tuple(dataclasses.replace(target, frame=frame + target.frame.lstrip("/")) for target in proposal.targets)
        proposal = dataclasses.replace(proposal, targets=targets)
    answer = rig.filter.on_proposal(proposal, rig.now)
    assert answer.accepted is taken and bool(answer.reason) is not taken
    assert rig.filter.counters["accepted"] == int(taken)
    if not taken:
        refused = {name: count for name, count in rig.filter.counters.items() if name.startswith("rejected/")}
        assert list(refused.values()) == [1] and list(refused)[0] in ("rejected/proposal_invalid", "rejected/proposal_stale")


def test_a_chunk_is_as_long_as_allowed_and_names_its_arms_in_order():
    rig = Rig("sim_dual", change=lambda config: dataclasses.replace(
        config, proposals=dataclasses.replace(config.proposals, max_chunk=3))).start()
    one = rig.proposal([HERE, HERE]).targets
    for chunk, taken in ((1, True), (3, True), (4, False)):
        answer = rig.propose([HERE, HERE], targets=one * chunk, chunk=chunk, action_period=0.1)
        assert answer.accepted is taken
    assert answer.reason == "chunk is 4; 1 to 3 is allowed"
    assert rig.propose([HERE, HERE], targets=one[::-1]).reason == (
        "targets are for ['left', 'right']; ['right', 'left'] are needed, 1 times")
    assert rig.propose([HERE, HERE], targets=one * 3, chunk=2, action_period=0.1).reason == (
        "targets are for ['right', 'left', 'right', 'left']; ['right', 'left'] are needed, 2 times"), "four of them are enough"
    far = dataclasses.replace(one[1], target=Pose(np.array([0, 0, math.nan]), DOWN))
    assert rig.propose([HERE, HERE], targets=(one[0], far)).reason == "left: a pose is not finite", "every arm is looked at"


def test_order_is_kept_by_sequence_stamp_and_instruction_and_each_is_said():
    rig = Rig().start()
    rig.tick()
    first = rig.proposal(HERE, instruction_sequence=3)
    assert rig.filter.on_proposal(first, rig.now).accepted is True

    def answer(**changes):
        given = dataclasses.replace(first, **{"sequence": first.sequence + 1, **changes})
        return rig.filter.on_proposal(given, rig.now).reason
    assert answer(sequence=first.sequence) == f"sequence {first.sequence} is not above {first.sequence}"
    assert answer(stamp=first.stamp - 1e-3).startswith(f"stamp {first.stamp - 1e-3:.6f} lies before the last, {first.stamp:.6f}")
    assert answer(instruction_sequence=2) == "instruction 2 was replaced by 3"
    assert answer(seed=7) == f"it was made under seed 7, and the arms were seeded anew since ({rig.output.status.seed})"
    assert answer(observation_age=2.5) == "its observation was 2.50 s old"
    assert answer() == "" and answer(sequence=first.sequence + 2, instruction_sequence=4) == ""
    rig.now += 1e-3
    assert rig.hold(stamp=rig.now, sequence=60, instruction_sequence=4).accepted, "the same instruction again"


def test_an_observation_from_before_the_arms_were_seeded_is_refused_and_one_from_after_is_not():
    rig = Rig().start()
    seeded = rig.now
    rig.tick(20)
    old, new = seeded - 1e-3, seeded + 1e-3
    assert rig.propose(HERE, stamp=old, observation_age=rig.now - old).reason == (
        "its observation is from before the arms were seeded anew")
    assert rig.propose(HERE, stamp=new, observation_age=rig.now - new).accepted
    assert rig.propose(HERE, seed=1).accepted and rig.hold(seed=9).accepted, "a hold is never too old"


def test_an_observation_that_comes_again_grows_old_by_our_own_clock():
    rig = Rig().start()
    rig.tick()
    stamp = rig.now
    assert rig.propose(NEAR, stamp=stamp, observation_age=0.5, seed=1).accepted
    for wait, taken in ((1.4, True), (1.6, False)):
        while rig.now < stamp + wait:
            rig.tick()
        assert rig.propose(NEAR, stamp=stamp, observation_age=0.5, seed=1).accepted is taken
    assert rig.propose(NEAR, stamp=rig.now, observation_age=0.5, seed=1).accepted


def test_a_refusal_is_shown_for_a_while():
    rig = Rig().start()
    rig.propose(HERE, valid_for=0.0)
    begun = rig.now
    rig.run_until(lambda output: not output.status.reasons & Reason.PROPOSAL_INVALID, 2.0)
    assert rig.now - begun == pytest.approx(SHOWN_S, abs=2 * rig.config.dt)
    rig.filter.refuse_parameter("no", rig.now)
    begun = rig.now
    rig.run_until(lambda output: not output.status.reasons & Reason.CONFIGURATION, 2.0)
    assert rig.now - begun == pytest.approx(1.0, abs=2 * rig.config.dt)
    assert rig.filter.counters["rejected/configuration"] == 1


def test_a_second_publisher_counts_for_a_moment_and_one_that_comes_again_for_longer():
    rig = Rig().start()

    def shown_for():
        begun = rig.now
        assert rig.filter.on_proposal(rig.proposal(HERE), rig.now, "/other").reason == "'/other' speaks while '' is in charge"
        rig.run_until(lambda output: not output.status.reasons & Reason.SECOND_PUBLISHER, 5.0)
        return rig.now - begun
    assert shown_for() == pytest.approx(max(SECOND_S, SHOWN_S), abs=2 * rig.config.dt)
    assert shown_for() == pytest.approx(AGAIN_S, abs=2 * rig.config.dt)


def test_each_time_of_a_second_publisher_ends_after_its_very_last_moment():
    def said(*times):
        """Return whether another publisher that has sent at these times is reported, at moments after the last of them."""
        gate = ProposalGate(load_robot(ROBOTS / "sim_fr3.yaml"))
        gate.on_heartbeat(Heartbeat(7, 1, 1, PolicyState.INFERRING), 0.0, "/one", True)
        for at in times:
            assert gate.on_heartbeat(Heartbeat(7, 1, 1, PolicyState.INFERRING), at, "/other", False)[0] == Reason.SECOND_PUBLISHER
        return [bool(gate.second_publisher(times[-1] + after)) for after in (0.0, SECOND_S - 1e-9, SECOND_S + 0.1, AGAIN_S - 1e-9,
                                                                             AGAIN_S + 0.1)]
    moment, longer = [True, True, False, False, False], [True, True, True, True, False]
    assert said(0.0) == moment
    assert said(0.0, SECOND_S) == moment, "it has not stopped speaking"
    assert said(0.0, SECOND_S + 1e-6) == longer and said(0.0, AGAIN_S) == longer, "it has, and speaks again"
    assert said(0.0, AGAIN_S + 1e-6) == moment, "that was long ago"
    assert said(0.0, 1.0, 1.0 + SECOND_S) == longer, "one that counts for longer goes on to"
    assert said(0.0, 1.0, 1.0 + AGAIN_S + 1e-6) == moment


def test_a_new_epoch_begins_to_count_anew_and_the_old_one_is_over():
    rig = Rig().start()
    assert rig.propose(HERE, sequence=50, instruction_sequence=9, stamp=rig.now + 5.0).accepted
    assert rig.hold(sequence=51, instruction_sequence=9, stamp=rig.now + 5.0).accepted
    rig.beating = False
    assert rig.propose(HERE, epoch=8, sequence=1, instruction_sequence=1, stamp=rig.now).accepted
    assert rig.propose(HERE, epoch=7, sequence=99).reason == "epoch 7 has been replaced"
    assert rig.filter.counters["rejected/proposal_order"] == 1
    rig.tick(2)
    assert rig.output.status.reasons & Reason.HEARTBEAT_LOST, "the new policy has not been heard yet"


def test_a_policy_that_was_started_again_goes_on_in_its_epoch_at_rest_once_the_first_is_silent():
    config = load_robot(ROBOTS / "sim_fr3.yaml")
    gate, beat = ProposalGate(config), Heartbeat(7, 1, 1, PolicyState.INFERRING)
    lost = config.watchdogs.heartbeat_s + 0.01
    assert gate.on_heartbeat(beat, 0.0, "/one", True)[0] == Reason.NONE
    assert gate.on_heartbeat(beat, lost, "/two", False)[0] == Reason.SECOND_PUBLISHER, "not while the arms move"
    for at in (lost, lost + 0.1, lost + 0.2):
        assert gate.on_heartbeat(beat, at, "/two", True)[0] == Reason.NONE and gate.publisher == "/two"
    assert gate.on_heartbeat(dataclasses.replace(beat, epoch=8), lost + 0.3, "/two", True)[0] == Reason.NONE
    assert gate.on_heartbeat(beat, lost + 0.4, "/two", True) == (Reason.PROPOSAL_ORDER, "epoch 7 has been replaced")
