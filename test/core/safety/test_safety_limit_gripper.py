"""A streamed opening: every step keeps range, speed and acceleration, whatever is asked for."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.contracts import GripperState
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.execution.gripper import GripperSequencer
from hybridvla_core.safety.execution.gripper_stream import GripperRamp

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"
ROBOT = load_robot(ROBOTS / "agilex.yaml")
GRIPPER, DT = ROBOT.arms[0].gripper, ROBOT.dt
SPEED = GRIPPER.speed_m_s / GRIPPER.max_width_m * DT
CHANGE = GRIPPER.acceleration_m_s2 / GRIPPER.max_width_m * DT ** 2


def assert_kept(openings):
    steps = np.diff(openings)
    assert min(openings) >= 0.0 and max(openings) <= 1.0
    assert np.abs(steps).max() <= SPEED + 1e-12
    assert np.abs(np.diff(np.append(0.0, steps))).max() <= CHANGE + 1e-12


@pytest.mark.parametrize("begin, wanted", [(0.0, 1.0), (1.0, 0.3), (0.5, 0.5005), (0.2, 0.2), (0.0, 5.0), (1.0, -3.0)])
def test_arrives_exactly_and_near_the_fastest_way(begin, wanted):
    limit = GripperRamp(GRIPPER, DT)
    limit.restart(begin)
    openings = [begin]
    while len(openings) < 400 and (len(openings) < 3 or limit.moving):
        openings.append(limit.advance(wanted))
    goal = min(max(wanted, 0.0), 1.0)
    assert openings[-1] == goal
    assert_kept(openings)
    left = abs(goal - begin)
    ideal = left / SPEED + SPEED / CHANGE if left > SPEED ** 2 / CHANGE else 2.0 * (left / CHANGE) ** 0.5
    assert len(openings) <= ideal + 6


def test_changing_its_mind_keeps_the_limits():
    rng = np.random.default_rng(6)
    limit = GripperRamp(GRIPPER, DT)
    limit.restart(0.5)
    openings, wanted = [0.5], None
    for _ in range(4000):
        if rng.random() < 0.05:
            wanted = rng.choice([None, 0.0, 1.0, rng.random(), openings[-1] + rng.normal(0, 1e-3)])
        openings.append(limit.advance(wanted))
    assert_kept(openings)
    assert np.ptp(openings) > 0.5


def test_an_unknown_opening_begins_where_it_is_told():
    limit = GripperRamp(GRIPPER, DT)
    limit.restart(None)
    assert limit.advance(None) is None
    assert limit.advance(0.7) == 0.7


def test_the_sequencer_streams_within_them_and_comes_to_rest_when_the_wish_is_dropped():
    gripper = GripperSequencer(GRIPPER, DT)
    gripper.restart(0.0)
    gripper.want(1.0)
    sent = [0.0] + [gripper.tick(tick * DT, GripperState.DONE) for tick in range(60)]
    gripper.cancel()
    rest = [gripper.tick((60 + tick) * DT, GripperState.DONE) for tick in range(60)]
    sent += [opening for opening in rest if opening is not None]
    assert_kept(sent)
    assert rest[-1] is None and 0.0 < sent[-1] < 1.0
    gripper.want(1.0)
    while gripper.busy:
        opening = gripper.tick(10.0 + len(sent) * DT, GripperState.DONE)
        sent += [opening] if opening is not None else [sent[-1]]
    assert sent[-1] == 1.0


def test_its_numbers_must_be_positive():
    with pytest.raises(ConfigurationError, match="acceleration_m_s2"):
        dataclasses.replace(GRIPPER, acceleration_m_s2=0.0)


def test_a_proposal_begins_at_once_only_where_arms_and_grippers_rest():
    rig = Rig("agilex", change=lambda robot: dataclasses.replace(robot, deadman_required=False)).start()
    rig.tick(2)
    here = [rig.pose(index).position for index in range(2)]
    turns = [rig.pose(index).quaternion for index in range(2)]
    assert rig.propose(here, turns, opening=0.0).at_once
    rig.run_until(lambda output: output.arms[0].gripper is not None)
    assert rig.filter.at_rest and not rig.propose(here, turns, opening=0.5).at_once, "a gripper is on its way"
    rig.run_until(lambda output: output.arms[0].gripper is None)
    moved = [position + [0.0, 0.0, 0.05] for position in here]
    assert rig.propose(moved, turns, opening=0.5).at_once
    rig.run_until(lambda output: not rig.filter.at_rest)
    assert not rig.propose(here, turns, opening=0.5).at_once, "an arm moves"
    rig.filter.stop(rig.now)
    assert not rig.propose(here, turns, opening=0.5).at_once
    assert not Rig("agilex").propose(here, turns).at_once, "inactive"


@pytest.mark.parametrize("off", [0.0, -0.015, 0.015])
@pytest.mark.parametrize("rows", ["of one proposal", "of two"])
def test_an_opening_near_the_one_that_a_moving_gripper_passes_is_gone_to(off, rows):
    """Dense rows ask for closing, and then for an opening within the deadband of where the command is at that moment."""
    def run(second):
        rig = Rig("agilex", change=lambda robot: dataclasses.replace(robot, deadman_required=False, ramp_s=0.0)).start()
        rig.tick(2)
        here = [rig.pose(index).position for index in range(2)], [rig.pose(index).quaternion for index in range(2)]
        first, then = rig.proposal(*here, opening=0.0), rig.proposal(*here, opening=second)
        if rows == "of two":
            assert rig.filter.on_proposal(dataclasses.replace(first, action_period=0.1), rig.now).accepted
            rig.tick(20)
            passing = rig.output.arms[0].gripper
            then = dataclasses.replace(then, stamp=rig.now)
            assert rig.filter.on_proposal(dataclasses.replace(then, action_period=0.1), rig.now).accepted
        else:
            both = dataclasses.replace(first, targets=first.targets + then.targets, chunk=2, action_period=0.1)
            assert rig.filter.on_proposal(both, rig.now).accepted
            rig.tick(20)
            passing = rig.output.arms[0].gripper
        rig.run_until(lambda output: output.status.at_target, 6.0)
        rig.tick(100)
        return passing, rig.opening["right"], rig.output.status.at_target

    passing, _, _ = run(0.5)
    assert 0.7 < passing < 0.95 and abs(off) < GRIPPER.deadband
    _, stands, there = run(passing + off)
    assert there and stands == pytest.approx(passing + off, abs=1e-9)


def test_the_last_wish_counts_also_where_it_is_the_present_opening():
    gripper = GripperSequencer(GRIPPER, DT)
    gripper.restart(0.9)
    gripper.want(0.0)
    gripper.want(0.9)
    assert gripper.tick(DT, GripperState.DONE) is None and not gripper.busy
