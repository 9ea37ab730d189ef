"""Reported names, marks and shares: what was mended, what was refused, what slows, and tolerances of a place."""
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from safety_rig import ROBOTS, Rig

from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.inputs.measured_limits import NEARER_M, OUTSIDE_M, OUTSIDE_RAD, MeasuredLimits
from hybridvla_core.safety.motion.motion import ATTEMPTS, Motion
from hybridvla_core.safety.motion.solver import StepSolver
from hybridvla_core.safety.status import Reason

pytestmark = pytest.mark.robot_computer
FR3, DUAL = (load_robot(ROBOTS / f"{name}.yaml") for name in ("sim_fr3", "sim_dual"))


def free(config):
    return dataclasses.replace(config, deadman_required=False, ramp_s=0.0, speed_scale=1.0)


@pytest.mark.parametrize("index", [0, 1])
def test_only_the_arm_whose_target_was_outside_has_a_mended_one(index):
    rig = Rig("sim_dual", change=free).start()
    rig.tick(2)
    assert [arm.mended for arm in rig.output.status.arms] == [False, False]
    wanted = np.array([rig.pose(arm).position for arm in range(2)])
    wanted[index, 2] += 5.0
    rig.propose(wanted, [rig.pose(arm).quaternion for arm in range(2)])
    rig.tick(2)
    status = rig.output.status
    assert [arm.mended for arm in status.arms] == [index == 0, index == 1]
    np.testing.assert_array_equal(status.arms[index].asked.position, wanted[index])


@pytest.mark.parametrize("positional, broken, factor", [
    (True, 0, 0.5 * 1.02 + 0.001), (True, 1, 0.5 * 0.8), (True, 2, 0.5 * 0.8 ** 2), (True, 3, 0.5 * 0.8 ** 3),
    (False, 1, 0.5), (False, 2, 0.5), (False, 3, 0.5 * 0.8)])
def test_what_a_limit_in_the_way_takes_from_the_speed(positional, broken, factor, monkeypatch):
    motion, left, tried = Motion(FR3), [broken], []
    motion.factor = 0.5
    limit = SimpleNamespace(name="told", positional=positional, reason=Reason.WORKSPACE)

    def first_broken(previous, joints, candidate, bend):
        tried.append(np.linalg.norm(candidate - joints))
        left[0] -= 1
        return (limit if left[0] >= 0 else None), np.zeros((1, 0, 7))
    monkeypatch.setattr(motion._judge, "first_broken", first_broken)
    assert motion._attempt(motion.joints + 1e-5, np.zeros((1, 7))) is True
    assert motion.factor == pytest.approx(factor) and motion.limited == ({"told"} if broken else set())
    assert motion.reasons == (Reason.WORKSPACE if broken else Reason.NONE)
    np.testing.assert_allclose(tried, np.array(ATTEMPTS[:min(broken + 1, 3)]) * tried[0])
    assert motion.at_rest is (broken == 3)


def test_the_last_check_is_named_with_what_it_objects_to(monkeypatch):
    rig = Rig(change=free).start()
    rig.tick(2)
    check = rig.filter._motion._last_check
    monkeypatch.setattr(check, "passes", lambda *_: False)
    check.objection = "told"
    rig.tick()
    assert rig.output.status.reasons & Reason.LAST_CHECK and rig.filter._motion.limited == {"last_check/told"}
    assert rig.filter.counters["limited/last_check/told"] == 1 and rig.filter.counters["last_check_refusals"] == 1
    assert rig.output.arms[0].publish is False


@pytest.mark.parametrize("name, tolerance", [("workspace", OUTSIDE_M), ("joint_position", None), ("table", NEARER_M)])
def test_a_measured_arm_may_be_so_far_beyond_a_place_and_no_further(name, tolerance):
    limits = MeasuredLimits(DUAL)
    if tolerance is None:
        tolerance = max(arm.joint_limits.margin_rad for arm in DUAL.arms) + OUTSIDE_RAD
    told = SimpleNamespace(name=name, reason=Reason.WORKSPACE, unit="m", names=("one", "other"), of_place=True,
                           certainly_kept=lambda trajectory: False, margins=lambda trajectory: np.array(margins))
    limits._limits = (told,)
    joints = np.array([arm.start_joints_rad for arm in DUAL.arms])
    for margins, worst in (((1.0, -0.99 * tolerance), None), ((-1.01 * tolerance, 0.5), "one"),
                           ((-1.01 * tolerance, -1.02 * tolerance), "other")):
        reason, text = limits.breach(joints)
        assert reason == (Reason.MEASURED_LIMIT | Reason.WORKSPACE if worst else Reason.NONE)
        assert text == (f"{worst} is broken by the measured arm, by {-min(margins):.3f} m; see what moved it" if worst else "")
    assert limits.relaxed is False
    limits.relax(joints)                                # the way back begins at these violated margins
    assert limits.relaxed is True and limits.breach(joints) == (Reason.NONE, "")
    margins = (-1.01 * tolerance, -2.03 * tolerance)
    assert limits.breach(joints)[1].startswith("other is broken")
    limits.relax(None)
    assert limits.relaxed is False and limits.breach(joints)[0] & Reason.MEASURED_LIMIT
    assert [(margin.name, margin.margin, margin.unit) for margin in limits.margins(joints)] == [
        ("measured/one", margins[0], "m"), ("measured/other", margins[1], "m")]


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_where_a_bound_binds_the_null_space_is_gone_as_far_as_it_lets(sign, share):
    arm = FR3.arms[0]
    jacobian = ArmKinematics(arm).jacobian(np.array(arm.start_joints_rad))
    along = sign * np.linalg.svd(jacobian)[2][-1]                   # a joint motion that moves no tool
    posture, bound = 0.01 * along, np.full(7, 1.0)
    joint = int(np.argmax(np.abs(along)))
    lower, upper = -bound, bound.copy()
    if along[joint] > 0.0:
        upper[joint] = share * posture[joint]
    else:
        lower[joint] = share * posture[joint]
    step, kept, _ = StepSolver(arm, FR3.dt).step(jacobian, np.zeros(6), np.zeros(6), posture, lower, upper)
    np.testing.assert_allclose(step, share * posture, atol=2e-4)
    assert np.abs(jacobian @ step).max() < 2e-4 and kept >= 0.0
