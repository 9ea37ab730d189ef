"""Between a dry run and a real one: what was never sent does not count as sent, and an arm without commands is never led."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.contracts import GripperState
from hybridvla_core.safety.status import NOT_DRY, Reason, State

pytestmark = pytest.mark.robot_computer


def free(config):
    return dataclasses.replace(config, deadman_required=False, ramp_s=0.0, speed_scale=1.0)


def moved_virtually(robot, metres=0.03):
    """Return a rig after a dry run that led the virtual arms a little away from the real ones; it is INACTIVE again."""
    rig = Rig(robot, dry_run=True, change=free).start()
    rig.tick()
    begin = np.stack([np.array(rig.pose(index).position) for index in range(len(rig.config.arms))])
    turns = np.stack([np.array(rig.pose(index).quaternion) for index in range(len(rig.config.arms))])
    rig.propose(begin + [0.0, 0.0, metres], turns, opening=0.0)
    rig.run_until(lambda output: rig.filter._execution.done, 8.0)
    assert np.linalg.norm(np.array(rig.pose().position) - begin[0]) > 0.8 * metres
    assert not any(command.publish for output in rig.sent for command in output.arms)
    assert rig.filter.activate(False, rig.now)[0]
    rig.run_until(lambda output: output.status.state == State.INACTIVE, 2.0)
    return rig


@pytest.mark.parametrize("robot", ["sim_fr3", "agilex", "agilex_pos_cmd"])
def test_the_first_command_after_a_dry_run_is_where_the_arms_are(robot):
    rig = moved_virtually(robot)
    rig.filter.set_dry_run(False)
    rig.beat()
    assert rig.filter.activate(True, rig.now)[0]
    first = rig.tick()
    for arm, command in zip(rig.config.arms, first.arms):
        assert command.publish and command.gripper is None
        np.testing.assert_allclose(command.joint_positions, arm.start_joints_rad, atol=1e-6)
        np.testing.assert_allclose(command.pose.position, rig.measured_pose(arm.name).position, atol=1e-5)


def test_the_first_virtual_command_of_a_dry_run_is_where_the_arms_are():
    rig = Rig(change=free).start()
    rig.tick(20)
    rig.filter.activate(False, rig.now)
    rig.tick(5)
    rig.joints["arm"] = rig.joints["arm"] + 0.004 * np.eye(7)[1]
    rig.tick(5)
    rig.filter.set_dry_run(True)
    rig.beat()
    assert rig.filter.activate(True, rig.now)[0]
    np.testing.assert_allclose(rig.tick().arms[0].joint_positions, rig.joints["arm"], atol=1e-9)


@pytest.mark.parametrize("call", ["reenter", "go_to_start"])
def test_nothing_leads_the_arms_in_a_dry_run_and_nothing_says_so(call):
    rig = Rig(dry_run=True, change=free)
    rig.joints["arm"] = rig.joints["arm"] + np.array([0.0, 0, 0, 0, 0, 0, 2.22])
    rig.tick(3)
    rig.beat()
    done, message = rig.filter.activate(True, rig.now)
    assert not done and "launch with armed:=true and call reenter" in message
    assert getattr(rig.filter, call)(rig.now) == (False, NOT_DRY)
    rig.tick(200)
    assert rig.output.status.state == State.INACTIVE and rig.output.status.reasons & Reason.OUTSIDE_AT_START
    rig.filter.set_dry_run(False)
    assert rig.filter.reenter(rig.now)[0], "armed it leads them"


def test_a_gripper_that_failed_before_is_no_matter_to_a_dry_run():
    rig = Rig(dry_run=True, change=free).start()
    rig.changes = dict(gripper_state=GripperState.FAILED)
    rig.tick(2)
    rig.propose(rig.pose().position, rig.pose().quaternion, opening=0.0)
    rig.run_until(lambda output: rig.filter._execution.done, 4.0)


@pytest.mark.parametrize("before, virtual, first", [(None, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0)])
def test_the_first_real_command_of_a_gripper_does_not_hang_on_what_a_dry_run_decided(before, virtual, first):
    """Between the two thresholds, an opening becomes the last one really sent, or the nearer end if none was sent."""
    rig = Rig(dry_run=before is None, change=free).start()

    def asked(opening):
        rig.tick()
        sent = len(rig.sent)
        rig.propose(rig.pose().position, rig.pose().quaternion, opening=opening)
        rig.run_until(lambda output: rig.filter._execution.done, 4.0)
        return [output.arms[0].gripper for output in rig.sent[sent:] if output.arms[0].gripper is not None]

    def anew(dry_run):
        rig.filter.activate(False, rig.now)
        rig.tick(5)
        rig.filter.set_dry_run(dry_run)
        rig.beat()
        assert rig.filter.activate(True, rig.now)[0]

    if before is not None:
        assert asked(before) == [before]
        anew(True)
    assert asked(virtual) == []
    anew(False)
    assert asked(0.55) == [first]
