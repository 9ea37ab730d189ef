"""A short seeded fuzz of every robot, and proof that the checker sees what it should."""
from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core"))
from checker import Checker, apart, rotation_vector
from run import run_chunk
from safety_rig import DOWN, ROBOTS, Rig

from hybridvla_core.safety.limits.capsules import segment_distance


@pytest.mark.parametrize("robot, chunk", [("sim_fr3", 0), ("sim_fr3", 1), ("fr3", 1), ("sim_dual", 0), ("sim_dual", 1),
                                          ("agilex", 0), ("agilex", 1)])
def test_no_proposal_gets_through(robot, chunk):
    result = run_chunk((robot, 2024, chunk, 400))
    assert result["violations"] == []
    assert result["ticks"] == 400 and result["counters"]["accepted"] > 0
    assert {"speed", "workspace", "joint_position", "acceleration"} <= set(result["margins"])


def wider(part, **changes):
    """The filter is told looser limits than the file states."""
    def tamper(config):
        def change(arm):
            inner = getattr(arm, part)
            return dataclasses.replace(arm, **{part: dataclasses.replace(inner, **{
                key: value(getattr(inner, key)) for key, value in changes.items()})})
        return dataclasses.replace(config, arms=tuple(change(arm) for arm in config.arms))
    return tamper


def scaled(factor):
    return lambda value: factor * value


def moved(amount):
    return lambda values: tuple(value + amount for value in values)


def turned(angle, axis):
    """Tool down, turned by `angle` about an axis of the base frame."""
    return (Rotation.from_rotvec(angle * np.array(axis, dtype=float)) * Rotation.from_quat(DOWN)).as_quat()


@pytest.mark.parametrize("tamper, target, quaternion, limit", [
    (wider("workspace", upper_m=moved(0.2), lower_m=moved(-0.2)), [0.5, 0.6, 0.3], DOWN, "workspace"),
    (wider("cartesian_limits", speed_m_s=scaled(1.5)), [0.5, 0.3, 0.3], DOWN, "speed"),
    (wider("cartesian_limits", acceleration_m_s2=scaled(1.5)), [0.5, 0.3, 0.3], DOWN, "acceleration"),
    (wider("cartesian_limits", rotation_speed_rad_s=scaled(1.5)), [0.31, 0.0, 0.4], turned(1.2, [0, 0, 1]),
     "rotation_speed"),
    (wider("cartesian_limits", rotation_acceleration_rad_s2=scaled(2.0), rotation_jerk_rad_s3=scaled(3.0)),
     [0.31, 0.0, 0.4], turned(1.2, [0, 0, 1]), "rotation_acceleration"),
    (wider("joint_limits", upper_rad=moved(0.2), lower_rad=moved(-0.2)), [0.3, -0.1, 0.1], DOWN,
     "joint_position"),
    (wider("joint_limits", velocity_rad_s=lambda values: tuple(2.0 * v for v in values)), [0.7, 0.0, 0.1], DOWN,
     "joint_velocity"),
    (wider("collision", above_table=lambda names: ()), [0.45, 0.0, 0.006], turned(1.0, [1, 1, 0]), "table"),
], ids=lambda value: value if isinstance(value, str) else None)
def test_a_broken_limit_is_caught(tamper, target, quaternion, limit):
    """The honest filter passes the same motion; the one that was told a looser limit is found out."""
    assert violations(None, target, quaternion) == []
    assert any(f": {limit} by" in text for text in violations(tamper, target, quaternion))


def violations(tamper, target, quaternion):
    robot = "fr3" if target[0] == 0.3 else "sim_fr3"     # the narrower joint range is reached near the base

    def change(config):
        config = dataclasses.replace(config, deadman_required=False, speed_scale=1.0)
        return tamper(config) if tamper else config

    rig, checker = Rig(robot, change=change).start(), Checker(ROBOTS / f"{robot}.yaml")
    rig.propose(target, quaternion)
    for _ in range(480):
        output = rig.tick()
        counters = rig.filter.counters
        checker.see(output.arms, counters["reseeds"], counters["reposes"])
    return checker.violations


def test_capsule_distances_agree_with_the_filters():
    rng = np.random.default_rng(3)
    for _ in range(100):
        a, b, c, d = rng.normal(0, 0.2, (4, 3))
        theirs = float(segment_distance(a, b, c, d))
        ours = apart((a, b, 0.0), (c, d, 0.0))
        assert ours <= theirs + 1e-6
        if theirs < 0.1:
            assert abs(ours - theirs) < 1e-5


def test_rotation_vector_of_the_checker():
    turn = np.array([[np.cos(0.1), -np.sin(0.1), 0], [np.sin(0.1), np.cos(0.1), 0], [0, 0, 1]])
    np.testing.assert_allclose(rotation_vector(turn), [0, 0, 0.1], atol=1e-12)
