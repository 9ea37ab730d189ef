"""The way back inside: never worse on the way, found around obstacles, and a sentence where there is none."""
import dataclasses

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.benchmark import reenter as counted
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety.execution import reentry, walk_out, way_out
from hybridvla_core.safety.execution.reentry import Reentry, worst_violation
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.status import Reason, State

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"


def test_activation_outside_is_refused_and_reenter_leads_back():
    rig = Rig()
    rig.joints["arm"] = rig.joints["arm"] + np.array([0, 0, 0, 0, 0, 0, 2.22])
    rig.tick(3)
    ok, message = rig.filter.activate(True, rig.now)
    assert not ok and "joint_7" in message
    ok, message = rig.filter.reenter(rig.now)
    assert ok, message
    rig.run_until(lambda output: rig.filter.state == State.INACTIVE, 20.0)
    before = np.array([output.arms[0].joint_positions[6] for output in rig.sent[3:]])
    assert np.diff(before).max() <= 1e-12
    assert rig.output.arms[0].joint_positions[6] < 3.0159 - 0.02


def test_an_arm_that_something_holds_outside_is_not_called_inside_because_its_command_is():
    rig = Rig()
    rig.joints["arm"] = rig.joints["arm"] + np.array([0, 0, 0, 0, 0, 0, 2.22])
    rig.tick(3)
    rig.follows = False
    assert rig.filter.reenter(rig.now)[0]
    rig.run_until(lambda output: rig.filter.state == State.INACTIVE, 20.0)
    status = rig.output.status
    assert status.reasons & Reason.OUTSIDE_AT_START and "joint_7" in status.message and "outside by 0.0095 rad" in status.message
    assert "the arm did not follow" in status.message and "free it" in status.message
    rig.follows = True
    rig.tick(3)
    assert rig.filter.reenter(rig.now)[0]
    rig.run_until(lambda output: rig.filter.state == State.INACTIVE, 20.0)
    assert "the arms are inside their limits" in rig.output.status.message and not rig.output.status.reasons


def test_stop_during_reenter():
    rig = Rig()
    rig.joints["arm"] = rig.joints["arm"] + np.array([0, 0, 0, 0, 0, 0, 2.22])
    rig.tick(3)
    assert rig.filter.reenter(rig.now)[0]
    rig.tick(40)
    rig.filter.stop(rig.now)
    rig.tick(80)
    rest = rig.pose().position
    rig.tick(60)
    assert rig.filter.state == State.STOPPED and rig.output.status.reasons & Reason.OPERATOR
    np.testing.assert_array_equal(rig.pose().position, rest)


def test_the_way_back_waits_while_the_drivers_tool_pose_disagrees_and_then_goes_on():
    rig = Rig()
    rig.joints["arm"] = rig.joints["arm"] + np.array([0, 0, 0, 0, 0, 0, 2.22])

    def told(off, ticks):
        for _ in range(ticks):
            pose = rig.measured_pose("arm")
            rig.changes = dict(pose=dataclasses.replace(pose, position=pose.position + [0.0, off, 0.0]))
            rig.tick()

    told(0.0, 3)
    assert rig.filter.reenter(rig.now)[0]
    told(0.0, 8)
    told(0.1, 100)
    rest = rig.output.arms[0].joint_positions
    told(0.1, 100)
    status = rig.output.status
    assert status.state == State.RECOVERING and status.reasons & Reason.TCP_MISMATCH and "100.0 mm" in status.message
    np.testing.assert_array_equal(rig.output.arms[0].joint_positions, rest)
    told(0.0, 100)
    assert not rig.output.status.reasons and np.abs(rig.output.arms[0].joint_positions - rest).max() > 0.005


def led(config, joints, scale=0.2, seconds=60.0):
    """Lead a motion back from joints (A, dof); return it, the reentry, and every commanded (A, dof)."""
    motion = Motion(config)
    motion.seed(joints)
    back, way = Reentry(config, motion), [np.array(joints)]
    for _ in range(int(seconds / config.dt)):
        assert back.step(scale)
        way.append(motion.joints.copy())
        if back.finished or back.stuck:
            break
    return motion, back, way


def positional(motion, joints):
    return {name: value for limit, values in motion.margins(joints) if limit.positional and not limit.may_lead_out
            for name, value in zip(limit.names, values)}


def slow_ticks(config, planes=None):
    """Use 50 Hz, so that a way takes fewer ticks; planes: planes of the first arm."""
    arms = list(config.arms)
    if planes is not None:
        arms[0] = dataclasses.replace(arms[0], workspace=dataclasses.replace(arms[0].workspace, planes=planes))
    return dataclasses.replace(config, tick_hz=50.0, status_hz=20.0, arms=tuple(arms))


@pytest.mark.parametrize("robot, joints", [
    ("fr3", [[1.25, 0.40, 0.0, -1.40, 0.0, 1.75, 0.785]]),                              # beside the box
    ("sim_fr3", [[0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 3.005]]),                       # a joint beyond its margin
    ("agilex", [[0.0, 0.1, -0.1, 0.0, 0.3, 0.0], [0.3, 1.5, -1.4, -0.1, 0.8, 2.15]]),   # nearly folded; turned too far
])
def test_the_way_back_ends_inside_and_nothing_gets_worse_on_it(robot, joints):
    config = slow_ticks(load_robot(ROBOTS / f"{robot}.yaml"))
    motion, back, way = led(config, np.array(joints))
    assert back.finished and worst_violation(motion) == "" and motion.at_rest
    begin = positional(motion, way[0])
    assert min(begin.values()) < -1e-3
    for place in way[::5]:
        for name, margin in positional(motion, place).items():
            assert margin >= min(0.0, begin[name]) - 1e-6, name


def test_a_tool_beyond_a_plane_comes_back_straight_and_to_just_inside():
    config = load_robot(ROBOTS / "sim_fr3.yaml")
    normal = np.array([0.6, 0.0, -0.8])
    start = Motion(config).positions[0]
    offset = float(normal @ start) + 0.03
    config = slow_ticks(config, (Plane("shelf", tuple(normal), offset),))
    motion, back, way = led(config, np.array([config.arms[0].start_joints_rad]))
    assert back.finished
    end = motion.positions[0]
    assert 0.0 <= normal @ end - offset < 0.006
    assert np.linalg.norm(np.cross(end - start, normal)) < 2e-3, "along the plane's normal"


@pytest.mark.long
def test_where_there_is_no_way_the_end_says_so(monkeypatch):
    monkeypatch.setattr(way_out, "PIECES", 3)
    monkeypatch.setattr(walk_out, "MOST_STEPS", 3)
    monkeypatch.setattr(reentry, "LOOKS", 1)
    rig = Rig(change=lambda config: dataclasses.replace(slow_ticks(config, (Plane("far", (1.0, 0.0, 0.0), 2.0),)),
                                                        reenter_scale=0.5))
    rig.tick(30)
    assert rig.filter.reenter(rig.now)[0]
    rig.run_until(lambda output: rig.filter.state == State.INACTIVE, 60.0)
    status = rig.output.status
    assert status.reasons & Reason.OUTSIDE_AT_START and "no way back inside was found" in status.message
    assert "move the arm by hand" in status.message and "far" in status.message


def search(out, here, seed=0):
    return ended(out.find(here, seed))


def ended(looking):
    """Return what a search has found, and in how many pieces."""
    pieces = 0
    while True:
        try:
            next(looking)
            pieces += 1
        except StopIteration as end:
            return end.value, pieces


@pytest.fixture
def out():
    config = load_robot(ROBOTS / "sim_fr3.yaml")
    return way_out.WayOut(config, Motion(config))


def test_a_free_way_to_the_start_is_taken_as_it_is(out):
    here = np.array([[0.3, 0.0, 0.0, -2.0, 0.0, 2.0, 0.785]])
    legs, pieces = search(out, here)
    np.testing.assert_array_equal(legs, [out.start])
    assert pieces == 0


def test_around_what_is_in_the_way_a_tree_finds_another(out):
    """A wall at joint 1 stands between here and the start, except where the forearm is drawn in."""
    here = np.array([[1.0, -0.785, 0.0, -1.6, 0.0, 1.571, 0.785]])

    def margins(begin, end):
        share = np.linspace(0.0, 1.0, 30)[:, None]
        path = begin[0] + share * (end - begin)[0]
        wall = np.where(np.abs(path[:, 0] - 0.5) < 0.1, -2.5 - path[:, 3], 1.0)     # joint 4 below -2.5 passes
        yield Named("wall"), np.array([wall.min()])
        yield Named("goal"), np.array([min(0.0, 0.2 - path[:, 0].max(), 0.2 - path[-1, 0])])     # inside is beyond it

    out._margins = margins
    out._limits = []
    legs, pieces = search(out, here, seed=3)
    assert legs and pieces > 3
    begin = here
    for leg in legs:
        assert next(margins(begin, leg))[1][0] >= -1e-9, "through the gap"
        begin = leg
    assert begin[0, 0] <= 0.2 + 1e-9 or np.allclose(begin, out.start)


def test_a_way_from_where_the_arms_began_leads_back_to_there_and_leaves_out_what_it_can(out):
    """A wall at joint 1 stands between here and the start. Only an arm with its forearm drawn in passes, as it did at first."""
    drawn_in, gone = np.array([[1.0, -0.785, 0.0, -2.7, 0.0, 1.571, 0.785]]), []
    out.start = out._ways.start = np.array([[0.0, -0.785, 0.0, -2.7, 0.0, 1.571, 0.785]])
    for joint_4 in (-2.7, -2.4, -2.1, -1.8):
        gone.append(drawn_in.copy())
        gone[-1][0, 3] = joint_4
    here = gone[-1] + np.array([[0.0, 0.0, 0.0, 0.04, 0.0, 0.0, 0.0]])

    def margins(begin, end):
        path = begin[0] + np.linspace(0.0, 1.0, 30)[:, None] * (end - begin)[0]
        yield Named("wall"), np.array([np.where(np.abs(path[:, 0] - 0.5) < 0.1, -2.65 - path[:, 3], 1.0).min()])

    out._margins, out._limits = margins, []
    assert all(next(margins(begin, out.start))[1] < 0.0 for begin in (here, *gone[1:]))
    legs, _ = ended(out.find_back(here, gone))
    assert len(legs) < len(gone) and all(next(margins(begin, end))[1] >= 0.0 for begin, end in zip([here, *legs], legs))
    np.testing.assert_allclose(legs[-2:], [gone[0], out.start])


@pytest.mark.long
def test_an_arm_that_went_straight_into_a_corner_goes_back_and_another_way(monkeypatch):
    """The tool's straight way leads the joints to their limits, beside the box, and no way is found from there."""
    monkeypatch.setattr(way_out.WayOut, "find", lambda self, here, seed: iter(()))
    config = slow_ticks(load_robot(ROBOTS / "fr3.yaml"))
    motion, back, way = led(config, np.array([[1.9235, -0.9276, 2.2898, -1.6504, 0.3454, 2.0987, 0.1038]]), 0.5, 120.0)
    assert back.finished and worst_violation(motion) == "", worst_violation(motion)
    assert back._looked == reentry.BACK, "looked for once from the corner"
    begin = positional(motion, way[0])
    for place in way[::5]:
        for name, margin in positional(motion, place).items():
            assert margin >= min(0.0, begin[name]) - 1e-6, name


CORNERS = [     # behind the box, where random pieces alone found no way
    ("fr3", [[-1.7454, -0.4085, -1.5295, -0.6217, 1.9892, 3.5362, -2.4447]]),
    ("agilex", [[0.1187, 1.7503, -1.1273, 0.8446, 0.5167, 1.7613], [2.533, -0.0698, -0.836, 1.2965, 0.1897, -1.5615]])]


@pytest.mark.parametrize("robot, joints", CORNERS, ids=["fr3", "agilex"])
def test_at_a_corner_of_the_box_a_walk_in_small_steps_leads_inside_and_breaks_nothing_further(robot, joints):
    config, here = load_robot(ROBOTS / f"{robot}.yaml"), np.array(joints)
    out = way_out.WayOut(config, Motion(config))
    legs, parts = search(out, here, seed=1)
    assert legs and parts < 1500
    motion, begin = Motion(config), here
    floor = {limit.name: np.minimum(values, 0.0) - 1e-8 for limit, values in motion.places(here)}
    for leg in legs:
        for share in np.linspace(0.0, 1.0, 9):
            for limit, values in motion.places(begin + share * (leg - begin)):
                assert (values >= floor[limit.name]).all(), f"{limit.name} is broken further"
        begin = leg
    assert all(values.min(initial=1.0) >= 0.0 for _, values in motion.places(begin))
    np.testing.assert_array_equal(legs, search(out, here, seed=1)[0], "the same seed gives the same way")


class Named:
    def __init__(self, name):
        self.name = name


@pytest.mark.long
@pytest.mark.parametrize("robot, count, least", [("fr3", 2, 2)])
def test_of_random_poses_most_come_back(robot, count, least):
    result = counted.measure(load_robot(ROBOTS / f"{robot}.yaml"), count, 1)
    assert result["poses"] == count and result["back"] >= least, counted.table([result])
    assert len(result["failed"]) == count - result["back"]
