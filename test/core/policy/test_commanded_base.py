"""Policies whose deltas add to the last command, and whose state is the last command: the released loop."""
from __future__ import annotations

import numpy as np
import pytest
from test_proposer import IMAGES, Desk

from hybridvla_core.contracts import Mode, Pose, Prediction

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
FIRST = (0.3, 0.1, 0.4, 0.0, 0.0, 0.0, 1.0)


def command(desk, x, sequence, epoch=5, active=True):
    """Send a filter status: the tool is commanded to x, and proposal `sequence` was executed last."""
    desk.proposer.on_commands({"arm": Pose(np.array([x, 0.0, 0.4]), DOWN)}, desk.now, epoch, sequence, active)


def predicted(desk, seconds=0.2):
    """Return the proposal for the next image, and the state that the policy saw."""
    seen, predict = [], desk.policy.predict
    desk.policy.predict = lambda observation, **options: seen.append(observation.state) or predict(observation, **options)
    desk.now += seconds
    desk.state(0.3)
    proposal = desk.step()
    desk.policy.predict = predict
    return proposal, seen[0]


def test_deltas_add_to_the_last_command_and_to_the_measured_pose_before_there_is_one():
    desk = Desk(delta_base="commanded")
    desk.proposer.set_instruction("go")
    proposal, _ = predicted(desk)
    assert np.allclose(proposal.targets[0].target.position, [0.31, 0.0, 0.4])
    command(desk, 0.5, proposal.sequence)           # the arm lags behind, at 0.3
    proposal, _ = predicted(desk)
    assert np.allclose(proposal.targets[0].target.position, [0.51, 0.0, 0.4])


def test_commands_of_an_activation_that_ended_are_no_base():
    desk = Desk(delta_base="commanded")
    desk.proposer.set_instruction("go")
    predicted(desk)
    command(desk, 0.5, 1)
    command(desk, 0.5, 1, active=False)             # somebody moves the arm by hand meanwhile
    proposal, _ = predicted(desk)
    assert np.allclose(proposal.targets[0].target.position, [0.31, 0.0, 0.4])
    command(desk, 0.3, 0, epoch=0)                  # active again, seeded where the arm is
    proposal, _ = predicted(desk)
    assert np.allclose(proposal.targets[0].target.position, [0.31, 0.0, 0.4])


def test_the_state_is_the_last_command_with_its_gripper_and_a_fixed_one_at_first():
    desk = Desk(state_source="last_command", first_state=FIRST)
    desk.proposer.set_instruction("go")
    command(desk, 0.3, 0, epoch=0)                  # active, nothing executed yet
    proposal, state = predicted(desk)
    assert np.allclose(state, FIRST) and proposal.targets[0].gripper == 1.0
    command(desk, 0.45, proposal.sequence)
    desk.proposer.commands.proposed(5, proposal.sequence, [("arm", 0.25)])       # the opening that it asked for
    command(desk, 0.46, proposal.sequence)
    _, state = predicted(desk)
    assert state[0] == pytest.approx(0.46) and state[6] == pytest.approx(0.25), "commanded, not the measured 1.0"
    command(desk, 0.46, proposal.sequence, active=False)
    _, state = predicted(desk)
    assert np.allclose(state, FIRST)


def test_the_gripper_of_a_command_that_no_proposal_is_known_for_is_the_measured_one():
    desk = Desk(state_source="last_command", first_state=FIRST)
    desk.proposer.set_instruction("go")
    command(desk, 0.45, 3, epoch=77)                # from an earlier policy
    _, state = predicted(desk)
    assert state[0] == pytest.approx(0.45) and state[6] == 1.0


def test_the_gripper_of_a_chunk_is_that_of_the_row_that_is_being_executed():
    desk = Desk(state_source="last_command", first_state=FIRST, action_period_s=0.5)
    grips = np.zeros((4, 7))
    grips[:, 6] = [1.0, 0.75, 0.25, 0.0]
    desk.policy.predict = lambda observation, **options: Prediction(grips, Mode.DIFFUSION, False, diffusion=grips)
    desk.proposer.set_instruction("go")
    proposal, _ = predicted(desk)
    seen = []
    for _ in range(12):         # a status every 0.21 s, with a picture at the same moment
        desk.now += 0.21
        command(desk, 0.3, proposal.sequence)
        desk.state(0.3)
        seen.append(desk.proposer.begin(IMAGES, int(desk.now * 1e9), 0.0).observation.state[6])
    assert seen == pytest.approx([1.0] * 3 + [0.75] * 2 + [0.25] * 3 + [0.0] * 4, abs=1e-6)


def test_a_hold_leaves_the_grippers_as_they_were_told():
    desk = Desk(state_source="last_command", first_state=FIRST)
    desk.proposer.set_instruction("go")
    desk.proposer.commands.proposed(5, 9, [("arm", 0.25)])
    command(desk, 0.3, 9)
    command(desk, 0.3, 10)                          # a HOLD
    _, state = predicted(desk)
    assert state[6] == pytest.approx(0.25)
    command(desk, 0.3, 10, active=False)
    command(desk, 0.3, 11)
    _, state = predicted(desk)
    assert state[6] == 1.0, "of an activation before"


def test_the_gripper_of_a_chunk_of_keyframes_is_the_last_ones():
    desk = Desk(state_source="last_command", first_state=FIRST)
    desk.proposer.set_instruction("go")
    desk.proposer.commands.proposed(5, 9, [("arm", 1.0), ("arm", 0.25)])
    command(desk, 0.3, 9)
    _, state = predicted(desk)
    assert state[6] == 0.25
