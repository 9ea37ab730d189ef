"""What the status says in the situations that its flags are for: measured limits, links, the other arm, singularities, starts."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.geometry import rotations
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.execution.standstill import Standstill
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"


def moving(robot="sim_fr3", change=None, target=(0.5, 0.2, 0.3)):
    rig = Rig(robot, change=change).start()
    rig.propose([target] * len(rig.config.arms))
    rig.tick(60)
    assert rig.filter.state == State.ACTIVE
    return rig


def counted(rig, name="measured_violations"):
    return rig.filter.counters[name]


def roomy(config):
    """Use a box that does not hinder, and give each arm its own clock."""
    arms = [dataclasses.replace(arm, workspace=dataclasses.replace(
        arm.workspace, lower_m=(-1.2, -1.2, -0.2), upper_m=(1.2, 1.2, 1.2))) for arm in config.arms]
    return dataclasses.replace(config, arms=tuple(arms), coupled=False)


def bulky(config):
    """Require 0.1 m between links, without a table."""
    config = roomy(config)
    arms = [dataclasses.replace(arm, collision=dataclasses.replace(arm.collision, margin_m=0.1, above_table=()))
            for arm in config.arms]
    return dataclasses.replace(config, arms=tuple(arms))


def reasons_on_the_way(rig, positions, quaternions=None, seconds=3.0):
    """Return every flag that the status shows within that time."""
    rig.propose(positions, quaternions)
    seen = Reason.NONE
    for _ in range(int(seconds / rig.config.dt)):
        seen |= rig.tick().status.reasons
    return seen


def assert_held_and_counted(rig, words):
    rig.tick(60)                                    # the filter doubts the jump itself first
    status = rig.output.status
    assert rig.filter.state == State.HOLDING and status.reasons & Reason.MEASURED_LIMIT and words in status.message
    assert counted(rig) == 1
    before = status.arms[0].push_n
    rig.tick(1200)                                  # the command that pushes the arm is drawn back, as far as its limits allow
    assert rig.filter.at_rest and counted(rig) == 1, "one violation is counted once, however long it lasts"
    assert rig.filter.state == State.HOLDING and rig.output.status.arms[0].push_n <= before + 0.1
    assert rig.filter.counters["target_violations"] == 0


@pytest.mark.parametrize("joint, end", [(6, "upper_rad"), (3, "lower_rad")])
def test_a_measured_joint_beyond_its_limit_holds_the_arm_and_is_counted(joint, end):
    rig = moving()
    limit = getattr(rig.config.arms[0].joint_limits, end)[joint]
    rig.follows = False
    rig.joints["arm"] = rig.joints["arm"].copy()
    rig.joints["arm"][joint] = limit + (0.03 if end == "upper_rad" else -0.03)
    assert_held_and_counted(rig, f"joint {joint + 1} is 0.030 rad outside its limit")


def test_a_measured_tool_outside_the_box_holds_the_arm_and_is_counted():
    rig = moving()
    rig.follows = False
    rig.joints["arm"] = rig.joints["arm"].copy()
    rig.joints["arm"][0] = 1.6                      # turned at its base, joints within their limits
    assert rig.measured_pose("arm").position[0] < rig.config.arms[0].workspace.lower_m[0] - 0.02
    assert_held_and_counted(rig, "outside the box along x")


def test_back_inside_it_goes_on_with_the_next_proposal_and_a_second_violation_counts():
    rig = moving()
    inside, rig.follows = rig.joints["arm"].copy(), False
    for violations in (1, 2):
        rig.joints["arm"] = inside + np.array([0, 0, 0, 0, 0, 0, 3.0])
        rig.tick(60)
        assert counted(rig) == violations
        rig.joints["arm"] = inside.copy()
        rig.tick(60)
        assert not rig.output.status.reasons & Reason.MEASURED_LIMIT
    assert rig.propose([0.45, 0.1, 0.3]).accepted
    rig.follows = True
    rig.tick(20)
    assert rig.filter.state == State.ACTIVE


def test_within_the_tolerance_nothing_is_said():
    rig = moving()
    rig.follows = False
    rig.joints["arm"] = rig.joints["arm"].copy()
    rig.joints["arm"][6] = rig.config.arms[0].joint_limits.upper_rad[6] + 0.008
    rig.tick(60)
    assert not rig.output.status.reasons & Reason.MEASURED_LIMIT and counted(rig) == 0


@pytest.mark.long
def test_links_and_the_table_are_named_as_a_collision():
    to_table = Rig(change=roomy).start()
    seen = reasons_on_the_way(to_table, [0.5, 0.0, -0.1])
    assert seen & Reason.COLLISION and not seen & Reason.OTHER_ARM
    assert counted(to_table, "limited/table") > 0
    to_base = Rig(change=bulky).start()
    seen = reasons_on_the_way(to_base, [0.1, 0.0, 0.3])
    assert seen & Reason.COLLISION and not seen & Reason.OTHER_ARM
    assert counted(to_base, "limited/self_collision") > 0


@pytest.mark.long
def test_arms_that_would_meet_name_each_other():
    rig = Rig("sim_dual").start()
    seen = reasons_on_the_way(rig, [[0.5, 0.40, 0.3], [0.5, -0.40, 0.3]])
    assert seen & Reason.OTHER_ARM and seen & Reason.COLLISION
    assert counted(rig, "limited/inter_arm") > 0
    apart = Rig("sim_dual").start()
    assert not reasons_on_the_way(apart, [[0.5, -0.2, 0.3], [0.5, 0.2, 0.3]]) & (Reason.OTHER_ARM | Reason.COLLISION)


@pytest.mark.long
def test_the_way_into_a_singularity_is_named():
    rig = Rig(change=roomy).start()
    seen = reasons_on_the_way(rig, [1.1, 0.0, 0.5])
    assert seen & Reason.SINGULARITY and rig.pose().position[0] < 0.95
    assert not reasons_on_the_way(Rig().start(), [0.5, 0.2, 0.3]) & Reason.SINGULARITY


def test_a_start_outside_is_named_until_the_way_back_is_done():
    rig = Rig()
    rig.joints["arm"] = rig.joints["arm"] + np.array([0, 0, 0, 0, 0, 0, 2.22])
    rig.tick(3)
    assert not rig.filter.activate(True, rig.now)[0]
    status = rig.tick().status
    assert status.state == State.INACTIVE and status.reasons == Reason.OUTSIDE_AT_START and "call reenter" in status.message
    assert rig.filter.reenter(rig.now)[0]
    status = rig.tick(10).status
    assert status.state == State.RECOVERING and status.reasons & Reason.OUTSIDE_AT_START
    rig.run_until(lambda output: rig.filter.state == State.INACTIVE, 20.0)
    assert not rig.tick(10).status.reasons & Reason.OUTSIDE_AT_START


@pytest.mark.long
def test_arms_that_only_creep_along_a_joint_limit_name_it():
    """A target's public orientation and position are beyond what joint 4 can do: the tool turns on, ever more slowly."""
    rig = Rig("fr3", change=lambda config: dataclasses.replace(config, speed_scale=1.0, ramp_s=0.0, deadman_required=False))
    rig.start().tick(20)
    rig.propose([0.5241, -0.0224, 0.4619], [-0.1229, -0.4767, -0.2467, -0.8347], valid_for=30.0)
    rig.tick(600)
    seen = [rig.tick().status for _ in range(200)][-1]
    assert not seen.at_target and rig.pose().position[0] < 0.52
    assert seen.reasons & Reason.JOINT_LIMIT and "arm/joint_4/position" in seen.message


class Slowed:
    """A motion along x and about z at given speeds, whose steps a limit shapes."""

    def __init__(self, name="joint_step", share=1.0, at_rest=False):
        self.positions, self.rotations, self.joints = np.zeros((1, 3)), np.eye(3)[None], np.zeros((1, 7))
        self.name, self.share, self.at_rest, self.ticks = name, share, at_rest, 0
        self.limits, self.limited = (Named("table", Reason.COLLISION), Named("workspace", Reason.NONE)), set()

    def go(self, metres, radians=0.0):
        self.ticks += 1
        self.positions = self.positions + [metres, 0.0, 0.0]
        self.rotations = rotations.exp(np.array([0.0, 0.0, radians])) @ self.rotations
        self.limited = {self.name} if self.ticks % 10 < 10 * self.share else set()

    def margins(self, joints):
        return [(limit, np.array([limit.margin])) for limit in self.limits]


class Named:
    positional = True

    def __init__(self, name, reason, margin=1.0):
        self.name, self.reason, self.margin, self.names = name, reason, margin, (f"arm/{name}",)


class Asked:
    outside = np.zeros(1)


def looked(motion, metres, radians=0.0, ticks=130, scale=1.0, plan=Asked):
    """Return flags and sentence after `ticks` ticks with this motion per tick; an FR3's limits at 200 Hz."""
    still = Standstill(load_robot(ROBOTS / "fr3.yaml"), motion)
    for _ in range(ticks):
        motion.go(metres, radians)
        found = still.look(plan, scale)
    return found


def per_tick(share):
    limits = load_robot(ROBOTS / "fr3.yaml")
    return share * limits.arms[0].cartesian_limits.speed_m_s * limits.dt, \
        share * limits.arms[0].cartesian_limits.rotation_speed_rad_s * limits.dt


@pytest.mark.parametrize("share, flags", [(0.09, Reason.JOINT_LIMIT), (0.11, Reason.NONE)])
def test_slower_than_a_tenth_of_what_was_asked_is_a_creep(share, flags):
    metres, radians = per_tick(share)
    assert looked(Slowed(), metres)[0] == looked(Slowed(), 0.0, radians)[0] == flags
    assert looked(Slowed(), 0.5 * metres, scale=0.5)[0] == flags, "of the speed that was asked for"
    assert looked(Slowed(), metres, ticks=59)[0] == Reason.NONE, "not before a window is over"


def test_a_creep_needs_a_limit_that_shapes_most_steps_and_the_sentence_names_it():
    metres, _ = per_tick(0.05)
    assert looked(Slowed(share=0.5), metres)[0] == Reason.NONE and looked(Slowed(share=0.6), metres)[0] == Reason.JOINT_LIMIT
    assert looked(Slowed("table"), metres) == (Reason.COLLISION, "the arms hardly move before the target at table; choose "
                                                                 "another target")
    near = Slowed("table")
    near.limits = (Named("table", Reason.COLLISION, 0.0049), Named("elbow", Reason.COLLISION, 0.0051))
    assert "at arm/table; " in looked(near, metres)[1]


def test_standing_still_names_joints_workspace_and_links_each_by_its_flag():
    for name, flag in (("joint_position", Reason.JOINT_LIMIT), ("joint_step", Reason.JOINT_LIMIT), ("table", Reason.COLLISION),
                       ("workspace", Reason.WORKSPACE), ("unheard of", Reason.SOLVER)):
        flags, text = looked(Slowed(name), 0.0, ticks=60)
        assert flags == flag and text == f"the arms stand still before the target at {name}; choose another target"
    assert looked(Slowed(share=0.0), 0.0)[0] == Reason.NONE, "nothing shaped a step, and it moves on"
    assert looked(Slowed(share=0.0, at_rest=True), 0.0) == (
        Reason.SOLVER, "the arms stand still before the target at no joint step; choose another target")
    beyond = type("Beyond", (), {"outside": np.array([0.0009])})
    assert looked(Slowed(), 0.01, plan=beyond) == (
        Reason.WORKSPACE, "arm: the target lies 0.9 mm outside the workspace; ask for one inside")
    beyond.outside = np.array([0.0008])
    assert looked(Slowed(), 0.01, plan=beyond) == (Reason.NONE, "")


FREE = [0.5, 0.1, 0.35]
FOLDED, BEYOND = [0.21, 0.0, 0.05], [0.5, 0.6, 0.3]     # beyond what joint 4 can reach; outside the box


def held_before(target):
    """Let a limit hold the arm short of a keyframe, so that the policy is asked again."""
    rig = Rig(change=lambda config: dataclasses.replace(config, ramp_s=0.0)).start()
    rig.propose(target)
    rig.run_until(lambda output: output.status.waiting and output.status.sequence == rig.sequence, 8.0)
    return rig


@pytest.mark.parametrize("between", ["nothing", "hold", "activation"])
def test_what_held_the_last_keyframe_does_not_end_the_next_one(between):
    rig = held_before(FOLDED)
    if between == "hold":
        rig.hold()
        rig.tick(10)
    elif between == "activation":
        rig.filter.activate(False, rig.now)
        rig.tick(20)
        rig.beat()
        assert rig.filter.activate(True, rig.now)[0]
    assert rig.propose(FREE).accepted
    begun = len(rig.sent)
    rig.run_until(lambda output: output.status.at_target)
    on_the_way = [output.status for output in rig.sent[begun:]]
    assert {status.sequence for status in on_the_way} == {rig.sequence}
    assert not any(status.waiting or status.reasons for status in on_the_way)


def test_a_keyframe_that_is_held_too_is_called_held_only_after_a_look_of_its_own():
    rig = held_before(FOLDED)
    assert rig.propose(FOLDED).accepted
    assert 0.25 < rig.run_until(lambda output: output.status.waiting) < 0.35


def test_a_stream_against_a_wall_goes_on_to_stand_still():
    rig = held_before(BEYOND)
    for _ in range(10):
        assert rig.propose(BEYOND, action_period=0.15, valid_for=0.25).accepted
        states = [rig.tick().status for _ in range(30)]
        assert all(status.state == State.HOLDING and status.reasons & Reason.WORKSPACE for status in states)
