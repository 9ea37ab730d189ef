"""Grippers: what is held stays held when the filter begins anew, and a gripper that did not obey is no arrival."""
import dataclasses

import pytest
from safety_rig import Rig

from hybridvla_core.contracts import GripperState
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer
HELD = 0.4        # opening at which the fingers touch the object that they hold


def free(config):
    return dataclasses.replace(config, deadman_required=False, ramp_s=0.0, speed_scale=1.0)


class Holding(Rig):
    """A rig whose closing fingers stop at an object between them."""

    def tick(self, count=1):
        for _ in range(count):
            super().tick()
            for name, opening in self.opening.items():
                self.opening[name] = max(opening, HELD)
        return self.output


def here(rig):
    arms = range(len(rig.config.arms))
    return [rig.pose(index).position for index in arms], [rig.pose(index).quaternion for index in arms]


def holding():
    rig = Holding("agilex", change=free).start()
    rig.tick()
    rig.propose(*here(rig), opening=0.0)
    rig.run_until(lambda output: rig.filter._execution.done and output.arms[0].gripper is None, 6.0)
    assert [command.gripper for output in rig.sent for command in output.arms if command.gripper is not None][-1] == 0.0
    assert set(rig.opening.values()) == {HELD}
    return rig


def activated_anew(rig, meanwhile=lambda: None):
    """Deactivate, let `meanwhile` happen, and activate again; return the number of commands sent before."""
    rig.filter.activate(False, rig.now)
    rig.tick(40)
    meanwhile()
    rig.tick(2)
    rig.beat()
    assert rig.filter.activate(True, rig.now)[0]
    return len(rig.sent)


def openings_after(rig, sent):
    return [command.gripper for output in rig.sent[sent:] for command in output.arms if command.gripper is not None]


def test_a_streamed_gripper_keeps_what_it_holds_over_a_new_activation():
    rig = holding()
    sent = activated_anew(rig)
    rig.propose(*here(rig), opening=0.0)
    rig.tick(200)
    assert rig.filter._execution.done and max(openings_after(rig, sent), default=0.0) == 0.0
    rig.propose(*here(rig), opening=1.0)
    rig.tick(400)
    opened = openings_after(rig, sent)
    assert opened[-1] == 1.0 and opened[0] < 0.05, "it opens from what it was told last"


def test_fingers_that_were_moved_meanwhile_are_taken_from_where_they_are():
    rig = holding()
    rig.filter.activate(False, rig.now)
    rig.tick(40)
    rig.opening = dict.fromkeys(rig.opening, 0.9)
    rig.tick(2)
    rig.beat()
    assert rig.filter.activate(True, rig.now)[0]
    sent = len(rig.sent)
    rig.propose(*here(rig), opening=0.0)
    rig.tick(400)
    closed = openings_after(rig, sent)
    assert 0.8 < closed[0] < 0.9 and closed[-1] == 0.0


def test_what_a_dry_run_made_of_the_gripper_was_never_sent():
    rig = Rig("agilex", dry_run=True, change=free).start()
    rig.tick()
    rig.propose(*here(rig), opening=0.0)
    rig.run_until(lambda output: rig.filter._execution.done, 6.0)
    sent = activated_anew(rig, lambda: rig.filter.set_dry_run(False))
    rig.propose(*here(rig), opening=0.0)
    rig.tick(300)
    closed = openings_after(rig, sent)
    assert closed[0] > 0.9 and closed[-1] == 0.0, "the real one is still open"


def test_a_target_is_not_reached_where_a_gripper_failed_and_the_policy_is_asked_again():
    rig = Rig(change=free).start()
    rig.tick(2)
    rig.changes = dict(gripper_state=GripperState.FAILED)
    rig.propose(*here(rig), opening=0.0)
    rig.run_until(lambda output: output.status.reasons & Reason.GRIPPER, 2.0)
    rig.tick(50)
    status = rig.output.status
    assert not status.at_target and status.state == State.HOLDING and status.waiting
    sent = len(rig.sent)
    rig.propose(*here(rig), opening=0.0)
    rig.tick(5)
    assert openings_after(rig, sent) == [0.0], "asked again, it is told again"
    rig.changes = dict(gripper_state=GripperState.DONE)
    rig.run_until(lambda output: output.status.at_target, 2.0)
    assert not rig.output.status.reasons & Reason.GRIPPER


def test_a_chunk_of_keyframes_does_not_go_on_behind_a_grasp_that_failed():
    rig = Rig(change=free).start()
    rig.tick(2)
    rig.changes = dict(gripper_state=GripperState.FAILED)
    positions, turns = here(rig)
    first = rig.proposal(positions, turns, opening=0.0)
    second = rig.proposal([positions[0] + [0.0, 0.0, 0.05]], turns, opening=0.0)
    rig.filter.on_proposal(dataclasses.replace(second, targets=first.targets + second.targets, chunk=2), rig.now)
    rig.tick(300)
    assert rig.filter._execution.plan.row == 0 and abs(rig.pose().position[2] - positions[0][2]) < 1e-6


def test_a_dry_run_between_does_not_change_what_a_gripper_was_told_last():
    rig = holding()
    for dry, opening in ((True, 1.0), (False, 0.0)):
        sent = activated_anew(rig, lambda dry=dry: rig.filter.set_dry_run(dry))
        rig.propose(*here(rig), opening=opening)
        rig.tick(300)
        assert max(openings_after(rig, sent), default=0.0) == 0.0
