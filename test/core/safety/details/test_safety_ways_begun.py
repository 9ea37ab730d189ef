"""How slow and fast ways begin: what is forgiven, where joints are led, and that a way is checked over its whole length."""
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from safety_rig import ROBOTS, Rig

from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.execution.reentry import INSIDE_RAD, Reentry
from hybridvla_core.safety.execution.way_to_start import worsening
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.status import State

pytestmark = pytest.mark.robot_computer
FR3 = load_robot(ROBOTS / "sim_fr3.yaml")
ARM = FR3.arms[0]
START = np.array([ARM.start_joints_rad])


def free(config):
    return dataclasses.replace(config, deadman_required=False, ramp_s=0.0, speed_scale=1.0)


def test_an_arm_that_follows_a_policy_is_forgiven_nothing(monkeypatch):
    """This holds after a start, and after a start that follows an interrupted way back inside."""
    rig = Rig(change=free)
    rig.joints["arm"] = START[0] + [0, 0, 0, 0, 0, 0, 2.22]
    rig.tick(3)
    motion, seen = rig.filter._motion, []
    assert rig.filter.reenter(rig.now)[0] and rig.tick().status.state == State.RECOVERING and motion.relaxed is True
    rig.filter.stop(rig.now)
    rig.tick(100)
    assert rig.filter.resume(rig.now) == (True, "inactive")
    rig.joints["arm"] = START[0].copy()
    rig.tick(100)
    passes = motion._last_check.passes
    monkeypatch.setattr(motion._last_check, "passes", lambda *told: seen.append(told[-1]) or passes(*told))
    rig.beat()
    assert rig.filter.activate(True, rig.now) == (True, "active") and motion.relaxed is False
    rig.tick(3)
    assert seen == [False, False, False]


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_joint_beyond_a_limit_is_led_a_little_inside_it(joint, side):
    limits, asked = ARM.joint_limits, []
    low, high = np.array(limits.lower_rad), np.array(limits.upper_rad)
    joints = START.copy()
    joints[0, joint] = (high if side > 0.0 else low)[joint] + 0.1 * side
    motion = SimpleNamespace(joints=joints, relaxed=False, at_rest=True, factor=1.0, limits=(), positions=np.zeros((1, 3)),
                             rotations=np.eye(3)[None], step_joints=lambda goal, scale: asked.append((goal, scale)) or True,
                             forgive=lambda joints: None,
                             places=lambda joints: [(SimpleNamespace(name="joint_position"), np.array([-0.1]))])
    assert Reentry(FR3, motion).step(0.3) is True and motion.relaxed is True
    (goal, scale), = asked
    inside = limits.margin_rad + INSIDE_RAD
    expected = joints.copy()
    expected[0, joint] = high[joint] - inside if side > 0.0 else low[joint] + inside
    np.testing.assert_allclose(goal, expected)
    assert scale == 0.3


@pytest.mark.parametrize("at, found", [(0.5, True), (0.98, True), (0.05, True), (1.5, False)])
def test_a_way_is_looked_at_between_its_points(at, found):
    def margins_at(joints):
        share = float(joints[0, 0] - START[0, 0]) / 0.6
        return [(SimpleNamespace(positional=True, names=("wall",)), np.array([-0.02 if abs(share - at) < 0.03 else 0.1])),
                (SimpleNamespace(positional=False, names=("speed",)), np.array([-1.0]))]
    points = [START + np.array([0.3, 0, 0, 0, 0, 0, 0]), START + np.array([0.6, 0, 0, 0, 0, 0, 0])]
    judge = SimpleNamespace(margins_at=margins_at)
    assert worsening(judge, START, points) == ("wall would be broken by 0.020" if found else "")


def test_what_is_broken_at_the_begin_may_be_broken_as_far_and_no_further():
    motion = Motion(FR3)
    for further, word in ((0.0, ""), (-0.05, ""), (0.05, "joint_7")):
        begin = START.copy()
        begin[0, 6] = ARM.joint_limits.upper_rad[6] + 0.1
        end = begin.copy()
        end[0, 6] += further
        said = worsening(motion._judge, begin, [end])
        assert (word in said and bool(said)) if word else said == ""
