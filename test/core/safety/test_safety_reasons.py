"""What the status says in the situations its flags are for: measured limits, links, the other arm, singularities, starts."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer


def moving(robot="sim_fr3", change=None, target=(0.5, 0.2, 0.3)):
    rig = Rig(robot, change=change).start()
    rig.propose([target] * len(rig.config.arms))
    rig.tick(60)
    assert rig.filter.state == State.ACTIVE
    return rig


def counted(rig, name="measured_violations"):
    return rig.filter.counters[name]


def roomy(config):
    """A box that is no hindrance, and one arm's clock for itself."""
    arms = [dataclasses.replace(arm, workspace=dataclasses.replace(
        arm.workspace, lower_m=(-1.2, -1.2, -0.2), upper_m=(1.2, 1.2, 1.2))) for arm in config.arms]
    return dataclasses.replace(config, arms=tuple(arms), coupled=False)


def bulky(config):
    """Links that must keep 0.1 m apart, and no table."""
    config = roomy(config)
    arms = [dataclasses.replace(arm, collision=dataclasses.replace(arm.collision, margin_m=0.1, above_table=()))
            for arm in config.arms]
    return dataclasses.replace(config, arms=tuple(arms))


def reasons_on_the_way(rig, positions, quaternions=None, seconds=3.0):
    """Every flag of the status within that time."""
    rig.propose(positions, quaternions)
    seen = Reason.NONE
    for _ in range(int(seconds / rig.config.dt)):
        seen |= rig.tick().status.reasons
    return seen


def assert_held_and_counted(rig, words):
    rig.tick(60)                                    # the jump itself is doubted first
    status = rig.output.status
    assert rig.filter.state == State.HOLDING and status.reasons & Reason.MEASURED_LIMIT and words in status.message
    assert counted(rig) == 1
    before = status.arms[0].push_n
    rig.tick(1200)                                  # what pushes the arm is drawn back, as far as the command's limits let it
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
