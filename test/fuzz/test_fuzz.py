"""A short seeded fuzz of every robot, and proof that the checker sees what it should."""
from __future__ import annotations

import ast
import dataclasses
import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import run
from checker import Checker
from geometry import apart, apart_many, matrix, rotation_vectors
from safety_rig import DOWN, ROBOTS, Rig
from scipy.spatial.transform import Rotation

from hybridvla_core.paths import ROOT
from hybridvla_core.safety.limits.capsules import segment_distance

SUPPORT = ROOT / "test" / "support"
RAMP_TICKS = 300        # after activation the filter may need this time to reach full speed


@pytest.mark.parametrize("robot, chunk", [("sim_fr3", 0), ("fr3", 1), ("sim_dual", 2), ("agilex", 0), ("agilex", 2)])
def test_no_proposal_gets_through(robot, chunk):
    result = run.run_chunk((robot, 2024, chunk, "fresh", 300))
    assert result["violations"] == []
    assert result["ticks"] == 300 and result["proposals"] >= 300 and result["counters"]["accepted"] > 0
    assert {"speed", "workspace", "joint_position", "acceleration", "self_collision"} <= set(result["margins"])
    assert ("plane" in result["margins"]) == (chunk == 2)


@pytest.mark.long
@pytest.mark.parametrize("robot, chunk", [("sim_fr3", 2), ("agilex", 1), ("sim_dual", 3)])
def test_proposals_carried_to_their_end(robot, chunk):
    result = run.run_chunk((robot, 2024, chunk, "complete", 8))
    assert result["violations"] == []
    assert result["complete"] == 8


def test_checker_shares_nothing_with_the_package():
    for file in ("checker.py", "geometry.py"):
        names = {alias.name for node in ast.walk(ast.parse((SUPPORT / file).read_text(encoding="utf-8")))
                 if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in ast.walk(ast.parse((SUPPORT / file).read_text(encoding="utf-8")))
                  if isinstance(node, ast.ImportFrom)}
        assert names <= {"__future__", "math", "pathlib", "typing", "numpy", "yaml", "geometry"}


# ---- a broken limit is caught ------------------------------------------------------------------------------------


def wider(part, **changes):
    """Give the filter looser limits than the file states."""
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


def nothing(value):
    return ()


def turned(angle, axis):
    """Return the orientation of the tool pointing down, turned by `angle` about an axis of the base frame."""
    return (Rotation.from_rotvec(angle * np.array(axis, dtype=float)) * Rotation.from_quat(DOWN)).as_quat()


@pytest.mark.long
@pytest.mark.parametrize("tamper, target, quaternion, limit", [
    (wider("workspace", upper_m=moved(0.2), lower_m=moved(-0.2)), [0.5, 0.6, 0.3], DOWN, "workspace"),
    (wider("workspace", planes=nothing), [0.5, 0.3, 0.2], DOWN, "plane"),
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
    (wider("collision", above_table=nothing), [0.45, 0.0, 0.006], turned(1.0, [1, 1, 0]), "table"),
], ids=lambda value: value if isinstance(value, str) else None)
def test_a_broken_limit_is_caught(tamper, target, quaternion, limit):
    """The honest filter passes the same motion; the one with a looser limit is caught."""
    planes = limit == "plane"
    assert honest(tuple(target), tuple(quaternion), planes) == []
    assert any(f": {limit} by" in text for text in violations(tamper, target, quaternion, planes, until=limit))


@functools.lru_cache(maxsize=None)
def honest(target, quaternion, planes):
    """Two limits are tested with the same motion."""
    return violations(None, list(target), np.array(quaternion), planes)


def violations(tamper, target, quaternion, shelf, until=None):
    """Return the checker's violations; with `until`, stop at the first one about that limit."""
    planes = [{"name": "shelf", "normal": [0.0, 0.0, 1.0], "offset_m": 0.3}] if shelf else []
    robot = "fr3" if target[0] == 0.3 else "sim_fr3"     # near the base the motion reaches the narrower joint range
    data, config = run.robot_of(robot, planes=planes)
    config = dataclasses.replace(config, deadman_required=False, speed_scale=1.0)
    rig, checker = Rig(robot, change=lambda _: tamper(config) if tamper else config).start(), Checker(data)
    rig.tick(RAMP_TICKS)
    rig.propose(target, quaternion)
    for _ in range(480):
        output = rig.tick()
        counters = rig.filter.counters
        checker.see(output.arms, counters["reseeds"], counters["reposes"])
        if until is not None and any(f": {until} by" in text for text in checker.violations):
            break
    return checker.violations


@pytest.mark.long
def test_arms_told_of_no_margin_between_them_are_caught():
    def together(tamper, caught="never"):
        rig, checker = Rig("sim_dual", change=tamper).start(), Checker(ROBOTS / "sim_dual.yaml")
        rig.tick(RAMP_TICKS)
        rig.propose([[0.5, 0.26, 0.3], [0.5, -0.26, 0.3]])
        for _ in range(500):
            output = rig.tick()
            checker.see(output.arms, rig.filter.counters["reseeds"], rig.filter.counters["reposes"])
            if any(caught in text for text in checker.violations):
                break
        return checker

    honest = together(None)
    assert honest.violations == [] and honest.margins["inter_arm"] < 0.05
    careless = together(lambda config: dataclasses.replace(config, inter_arm_margin_m=0.0), caught="inter_arm by")
    assert any("inter_arm by" in text for text in careless.violations)


def resting(joints):
    """Return the command of one arm at rest at joints, as the filter would send it."""
    arm = Checker(ROBOTS / "sim_fr3.yaml").arms["arm"]
    frame = arm.frames(joints)[-1]
    pose = SimpleNamespace(position=frame[:3, 3], quaternion=Rotation.from_matrix(frame[:3, :3]).as_quat())
    return SimpleNamespace(name="arm", pose=pose, joint_positions=joints, gripper=None, publish=True)


@pytest.mark.parametrize("spoil, words", [
    (dict(pose=SimpleNamespace(position=np.array([0.4, np.nan, 0.3]), quaternion=DOWN)), "a number that is none"),
    (dict(joint_positions=np.array([0, -0.7, 0, -2.2, 0, 1.5, 0.7])), "joint_solution"),
    (dict(gripper=1.2), "gripper"),
    (dict(publish=False), None),
])
def test_what_no_motion_shows_is_seen_too(spoil, words):
    checker = Checker(ROBOTS / "sim_fr3.yaml")
    joints = np.array(checker.robot["arms"][0]["start_joints_rad"])
    for tick in range(4):
        command = resting(joints)
        for key, value in (spoil if tick == 2 else {}).items():
            setattr(command, key, value)
        checker.see([command], 1)
    assert any(words in text for text in checker.violations) if words else checker.violations == []


def test_folded_into_itself_and_a_start_away_from_the_arm_are_seen():
    checker = Checker(ROBOTS / "sim_fr3.yaml")
    folded = np.array([0.0, -1.7, 0.0, -3.0, 0.0, 0.6, 0.0])
    checker.see([resting(folded)], 1, measured={"arm": folded + 0.01})
    assert any("self_collision" in text for text in checker.violations)
    assert any("seed" in text for text in checker.violations)


# ---- a failure can be repeated ------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_seed_of_a_failure_reproduces_it():
    job = ("sim_fr3", 7, 3, "complete", 4)
    tamper = wider("cartesian_limits", speed_m_s=scaled(1.3))
    first, again = run.run_chunk(job, tamper), run.run_chunk(job, tamper)
    assert first["count"] > 0
    assert (again["violations"], again["count"], again["ticks"]) == (first["violations"], first["count"],
                                                                     first["ticks"])
    assert run.run_chunk(("sim_fr3", 8) + job[2:], tamper)["violations"] != first["violations"]


@pytest.mark.long
def test_run_writes_its_summary_and_repeats_one_chunk(tmp_path, capsys):
    file = tmp_path / "summary.json"
    assert run.main(["--chunk", "complete/3", "--robots", "sim_fr3", "--seed", "7", "--jobs", "1", "--json",
                     str(file)]) == 0
    summary = json.loads(file.read_text(encoding="utf-8"))
    assert summary["complete"] == run.PROPOSALS and summary["violations"] == 0 and summary["seed"] == 7
    assert summary["proposals"] >= summary["complete"] and summary["ticks"] > 0
    assert {"sim_fr3/speed", "sim_fr3/workspace"} <= set(summary["worst_margin"])
    assert "[##############################] 1/1" in capsys.readouterr().out


def test_chunks_of_a_run_cover_ticks_and_proposals():
    jobs = run.plan(20000, 1, ["a", "b"])
    assert sum(amount for *_, kind, amount in jobs if kind == "fresh") == 20000
    assert sum(amount for *_, kind, amount in jobs if kind == "complete") == 400
    assert {job[0] for job in jobs} == {"a", "b"}


# ---- the checker's own geometry -----------------------------------------------------------------------------------


def test_capsule_distances_agree_with_the_filters():
    rng = np.random.default_rng(3)
    ends = rng.normal(0, 0.2, (4, 300, 3))
    ends[1, :20] = ends[0, :20]                                              # points
    ends[3, 20:40] = ends[2, 20:40] + ends[1, 20:40] - ends[0, 20:40]        # parallel
    first, second = np.stack(ends[:2], axis=1), np.stack(ends[2:], axis=1)
    theirs = segment_distance(*ends)
    np.testing.assert_allclose(apart(first, second), theirs, atol=1e-9)
    bounded = apart_many(first, second, 0.1)
    assert (bounded <= theirs + 1e-9).all()
    np.testing.assert_allclose(np.where(theirs < 0.1, bounded, theirs), theirs, atol=1e-9)


def test_rotations_of_the_checker():
    rng = np.random.default_rng(1)
    vectors = np.vstack((rng.normal(0, 0.5, (50, 3)), np.zeros(3), [[1e-8, 0.0, 0.0]]))
    turns = Rotation.from_rotvec(vectors)
    np.testing.assert_allclose(rotation_vectors(turns.as_matrix()), vectors, atol=1e-9)
    np.testing.assert_allclose(matrix(turns.as_quat()), turns.as_matrix(), atol=1e-12)
