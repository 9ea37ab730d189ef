"""`target_violations`: sent commands are compared with the configuration once more, and a broken filter is counted."""
import dataclasses

import numpy as np
import pytest
from safety_rig import ROBOTS, Rig

from hybridvla_core.contracts import Pose
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety.execution import plan
from hybridvla_core.safety.limits.workspace import WorkspaceLimit
from hybridvla_core.safety.motion.last_check import ArmCheck
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.outputs.audit import CommandAudit
from hybridvla_core.safety.status import ArmCommand, State

pytestmark = pytest.mark.robot_computer

CONFIG = load_robot(ROBOTS / "sim_fr3.yaml")
ARM = CONFIG.arms[0]
START = np.array(ARM.start_joints_rad)


def count(rig):
    return rig.output.status.counters["target_violations"]


def command(position=(0.4, 0.0, 0.3), joints=START, publish=True):
    return [ArmCommand("arm", Pose(np.array(position), np.array([1.0, 0, 0, 0])), np.array(joints), None, publish)]


@pytest.mark.long
@pytest.mark.parametrize("robot", ["sim_fr3", "sim_dual", "agilex"])
def test_a_sound_filter_counts_nothing_towards_walls_between_arms_and_after_new_starts(robot):
    rig = Rig(robot, change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
    begin = [rig.measured_pose(arm.name) for arm in rig.config.arms]
    for way in ([0.6, 0.1, 0.0], [0.1, 0.9, 0.0], [0.1, 0.3, -0.9]):
        rig.propose([pose.position + way for pose in begin], [pose.quaternion for pose in begin])
        rig.tick(300)
    rig.filter.stop(rig.now)
    rig.tick(100)
    name, rig.follows, reseeds = rig.config.arms[0].name, False, rig.filter.counters["reseeds"]
    rig.joints[name] = np.array(rig.config.arms[0].start_joints_rad)                        # moved by hand
    rig.tick(60)
    ok, message = rig.filter.resume(rig.now)
    assert ok, message
    rig.tick(60)
    assert rig.filter.counters["reseeds"] == reseeds + 1 and rig.output.arms[0].publish
    assert len({tuple(output.arms[0].joint_positions) for output in rig.sent}) > 200 and count(rig) == 0


def test_the_way_back_inside_counts_nothing():
    rig = Rig()
    rig.joints["arm"] = rig.joints["arm"] + np.array([0, 0, 0, 0, 0, 0, 2.22])
    rig.tick(3)
    assert rig.filter.reenter(rig.now)[0]
    assert rig.tick(20).arms[0].publish
    rig.run_until(lambda output: rig.filter.state == State.INACTIVE, 20.0)
    assert count(rig) == 0


@pytest.mark.long
def test_a_filter_whose_box_is_broken_is_counted(monkeypatch):
    monkeypatch.setattr(plan, "WALL_M", -1.0)
    monkeypatch.setattr(WorkspaceLimit, "margins", lambda self, trajectory: np.ones(len(self.names)))
    monkeypatch.setattr(ArmCheck, "objection", lambda *_: "")
    rig = Rig().start()
    rig.propose([0.5, 0.0, 0.3])
    rig.tick(200)
    assert count(rig) == 0
    rig.propose([0.4, 0.55, 0.3])
    rig.tick(600)
    beyond = (rig.commanded()[:, 1] > 0.45 + 1e-6).sum()
    assert beyond > 50 and rig.filter.counters["target_violations"] == beyond


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_command_that_jumps_is_counted_where_it_is_sent(monkeypatch, dry_run):
    rig = Rig(dry_run=dry_run).start()
    rig.propose([0.5, 0.0, 0.3])
    rig.tick(50)
    real = Motion.step

    def jumping(motion, *arguments, **others):
        moved = real(motion, *arguments, **others)
        motion.seed(motion.joints + np.array([0.011, 0, 0, 0, 0, 0, 0]))      # 2.2 rad/s where 2.0 are allowed
        return moved
    monkeypatch.setattr(Motion, "step", jumping)
    rig.tick(1)
    monkeypatch.setattr(Motion, "step", real)
    rig.tick(20)
    assert count(rig) == (0 if dry_run else 1)


def step(joint, share):
    moved = START.copy()
    moved[joint] += share * ARM.joint_limits.velocity_rad_s[joint] * CONFIG.dt
    return moved


def at(joint, value):
    moved = START.copy()
    moved[joint] = value
    return moved


EDGE = ARM.joint_limits.upper_rad[6] - ARM.joint_limits.margin_rad


@pytest.mark.parametrize("bad, good", [
    (command((0.751, 0.0, 0.3)), command((0.75, 0.0, 0.3))), (command((0.4, 0.0, 0.004)), command((0.4, 0.0, 0.005))),
    (command((0.4, 0.21, 0.3)), command((0.4, 0.2, 0.3))), (command((np.nan, 0.0, 0.3)), command()),
    (command(joints=at(6, EDGE + 1e-3)), command(joints=at(6, EDGE))), (command(joints=at(2, np.nan)), command())])
def test_box_plane_and_joints(bad, good):
    workspace = dataclasses.replace(ARM.workspace, planes=(Plane("wall", (0.0, -1.0, 0.0), -0.2),))
    config = dataclasses.replace(CONFIG, arms=(dataclasses.replace(ARM, workspace=workspace),))
    assert CommandAudit(config).violations(bad, anew=False, relaxed=False) == 1
    assert CommandAudit(config).violations(good, anew=False, relaxed=False) == 0
    hidden = [dataclasses.replace(bad[0], publish=False)]
    assert CommandAudit(config).violations(hidden, anew=False, relaxed=False) == 0


@pytest.mark.parametrize("anew, relaxed, share, expected", [
    (False, False, 1.01, 1), (False, False, -1.01, 1), (False, False, 1.0, 0), (True, False, 1.01, 0), (False, True, 1.01, 1)])
def test_steps(anew, relaxed, share, expected):
    look = CommandAudit(CONFIG)
    assert look.violations(command(), anew=True, relaxed=False) == 0
    assert look.violations(command(joints=step(3, share)), anew, relaxed) == expected


def test_re_entering_leaves_positions_alone_and_silence_ends_the_comparison_of_steps():
    look = CommandAudit(CONFIG)
    assert look.violations(command((0.9, 0.0, 0.3)), anew=False, relaxed=True) == 0
    look.violations(command(publish=False), anew=False, relaxed=False)
    assert look.violations(command(joints=step(3, 5.0)), anew=False, relaxed=False) == 0
