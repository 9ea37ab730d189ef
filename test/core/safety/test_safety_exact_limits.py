"""Every limit to the last digit: each joint, arm, plane, capsule and tick, against arithmetic that shares nothing with it."""
import dataclasses

import numpy as np
import pytest
from checker import ArmLimits
from geometry import apart, matrix, rotation_vectors
from scipy.spatial.transform import Rotation

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import BatchKinematics
from hybridvla_core.robots.limits import Plane
from hybridvla_core.safety import limits
from hybridvla_core.safety.limits.capsules import reach
from hybridvla_core.safety.limits.joint_motion import lowest_bound
from hybridvla_core.safety.limits.limit import Trajectory

pytestmark = pytest.mark.robot_computer

ROBOTS = ROOT / "config" / "robots"
PLANES = (Plane("shelf", (0.0, -0.6, 0.8), 0.1), Plane("wall", (-1.0, 0.0, 0.0), -0.62))
TURN = Rotation.from_rotvec([0.3, -0.5, 0.9]).as_quat()
SLACK = 1.0 - 1e-4           # factor on every speed and acceleration limit, for rounding


def robot_of(name, turned=True):
    """Return a robot; with two arms, the second is mounted turned, has planes, and its limits differ from the first one's."""
    config = load_robot(ROBOTS / f"{name}.yaml")
    if len(config.arms) < 2 or not turned:
        return config
    first, second = config.arms
    second = dataclasses.replace(
        second, mount=dataclasses.replace(second.mount, quaternion_xyzw=tuple(TURN.tolist())),
        workspace=dataclasses.replace(second.workspace, planes=PLANES, upper_m=tuple(
            np.array(second.workspace.upper_m) - [0.02, 0.04, 0.06])),
        joint_limits=dataclasses.replace(second.joint_limits, margin_rad=0.05, velocity_rad_s=tuple(
            0.9 * np.array(second.joint_limits.velocity_rad_s)), acceleration_rad_s2=tuple(
            0.8 * np.array(second.joint_limits.acceleration_rad_s2))),
        cartesian_limits=dataclasses.replace(second.cartesian_limits, speed_m_s=0.2, acceleration_m_s2=0.9,
                                             rotation_speed_rad_s=0.7, rotation_acceleration_rad_s2=3.5),
        collision=dataclasses.replace(second.collision, margin_m=0.03, table_z_m=-0.02))
    return dataclasses.replace(config, arms=(first, second))


def plain(config):
    return [ArmLimits(plain_data(arm)) for arm in config.arms]


def plain_data(value):
    """Return a frozen configuration as the YAML holds it."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain_data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain_data(part) for part in value]
    return dict(value) if isinstance(value, dict) else value


def paths(config, count, ticks, step_rad, seed=0, near_stops=False):
    """Return random joints (A, ticks, dof) within the limits, with at most `step_rad` per tick."""
    rng = np.random.default_rng(seed)
    lower = np.array([arm.joint_limits.lower_rad for arm in config.arms])
    upper = np.array([arm.joint_limits.upper_rad for arm in config.arms])
    for _ in range(count):
        share = rng.uniform(0.0, 1.0, lower.shape)
        if near_stops:
            share = np.where(share < 0.5, 0.05 * share, 1.0 - 0.05 * (1.0 - share))
        begin = lower + share * (upper - lower)
        steps = rng.uniform(-step_rad, step_rad, (len(lower), ticks - 1, lower.shape[1]))
        yield begin[:, None] + np.concatenate((np.zeros((len(lower), 1, lower.shape[1])), steps.cumsum(axis=1)), axis=1)


def margins(config, name, joints, built=None):
    limit = built or next(limit for limit in limits.build(config) if limit.name == name)
    return dict(zip(limit.names, limit.margins(Trajectory(joints, config.dt, BatchKinematics(config.arms)))))


def near(found, expected, atol=1e-9):
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), [expected[name] for name in found], atol=atol)


def tools(config, joints):
    """Return tool positions (A, m, 3) and rotations (A, m, 3, 3)."""
    frames = [arm.frames(q)[-1] for arm, q in zip(plain(config), joints)]
    return np.array([frame[:, :3, 3] for frame in frames]), np.array([frame[:, :3, :3] for frame in frames])


@pytest.mark.parametrize("name", ["sim_fr3", "sim_dual", "agilex"])
def test_joint_positions_speeds_and_accelerations(name):
    config = robot_of(name)
    for joints in paths(config, 6, 7, 0.01):
        position, velocity, acceleration = {}, {}, {}
        for arm, q in zip(config.arms, joints):
            rules, v = arm.joint_limits, np.diff(q, axis=0) / config.dt
            for joint in range(arm.dof):
                label, ahead = f"{arm.name}/joint_{joint + 1}", q[2:, joint]
                position[f"{label}/position"] = min(ahead.min() - rules.lower_rad[joint] - rules.margin_rad,
                                                    rules.upper_rad[joint] - rules.margin_rad - ahead.max())
                velocity[f"{label}/velocity"] = rules.velocity_rad_s[joint] * SLACK - np.abs(v[1:, joint]).max()
                acceleration[f"{label}/acceleration"] = (rules.acceleration_rad_s2[joint] * SLACK
                                                         - np.abs(np.diff(v[:, joint])).max() / config.dt)
                velocity[f"{label}/velocity"] = min(velocity[f"{label}/velocity"], by_position(rules, joint, q, v))
        near(margins(config, "joint_position", joints), position)
        near(margins(config, "joint_velocity", joints), velocity)
        near(margins(config, "joint_acceleration", joints), acceleration, 1e-6)


def by_position(rules, joint, q, v):
    """Return libfranka's bound at the joints where each step begins, minus 1 mrad/s, and never below rest."""
    table = rules.position_dependent
    if table is None:
        return np.inf
    room = np.inf
    for tick in range(1, len(v)):
        up = np.sqrt(max(0.0, table.gain_rad_s2[joint] * (table.upper_rad[joint] - q[tick, joint]))) - table.offset_rad_s[joint]
        down = np.sqrt(max(0.0, table.gain_rad_s2[joint] * (table.lower_rad[joint] + q[tick, joint]))) - table.offset_rad_s[joint]
        top = table.velocity_rad_s[joint]
        room = min(room, max(0.0, min(top, up) - 1e-3) - v[tick, joint], v[tick, joint] + max(0.0, min(top, down) - 1e-3))
    return room


def wide(config):
    """Set the joint limits 0.05 rad before those of the table."""
    arms = []
    for arm in config.arms:
        table = arm.joint_limits.position_dependent
        arms.append(dataclasses.replace(arm, joint_limits=dataclasses.replace(
            arm.joint_limits, lower_rad=tuple(0.05 - low for low in table.lower_rad),
            upper_rad=tuple(high - 0.05 for high in table.upper_rad))))
    return dataclasses.replace(config, arms=tuple(arms))


@pytest.mark.parametrize("name", ["fr3", "sim_dual"])
def test_speeds_that_shrink_towards_the_stops_bind_where_a_step_begins(name):
    """Joint limits reach as far as the robot's own stops: within the shipped limits the flat bounds are lower."""
    config, bound = wide(robot_of(name)), 0
    limit = next(limit for limit in limits.build(config) if limit.name == "joint_velocity")
    for arm in config.arms:
        table, slowest = arm.joint_limits.position_dependent, lowest_bound(arm)
        assert slowest == pytest.approx(min(np.sqrt(0.05 * np.array(table.gain_rad_s2)) - table.offset_rad_s) - 1e-3, abs=1e-9)
        assert slowest > 0.1
    for joints in paths(config, 40, 4, 0.008, near_stops=True):
        joints = np.concatenate((joints[:, :1], joints[:, :1], joints[:, 1:]), axis=1)
        found = margins(config, "", joints, limit)
        for arm, q in zip(config.arms, joints):
            v = np.diff(q, axis=0) / config.dt
            for joint in range(arm.dof):
                flat = arm.joint_limits.velocity_rad_s[joint] * SLACK - np.abs(v[1:, joint]).max()
                expected = by_position(arm.joint_limits, joint, q, v)
                margin = found[f"{arm.name}/joint_{joint + 1}/velocity"]
                if min(flat, expected) < 0.0:
                    assert margin == pytest.approx(min(flat, expected), abs=1e-9)
                else:                    # below the bound at the stops themselves, the table is not used
                    assert margin >= 0.0
                bound += expected < min(flat, 0.0)
    assert bound > 20, "steps that only this bound refuses"


@pytest.mark.parametrize("name", ["sim_dual", "agilex", "fr3"])
def test_box_and_planes_are_those_of_the_arm(name):
    config = robot_of(name)
    several = len(config.arms) > 1
    for joints in paths(config, 6, 6, 0.05):
        expected, (positions, _) = {}, tools(config, joints)
        for end, sign in (("min", 1.0), ("max", -1.0)):
            for arm, p in zip(config.arms, positions[:, 2:]):
                for axis, low, high in zip("xyz", arm.workspace.lower_m, arm.workspace.upper_m):
                    values = p[:, "xyz".index(axis)]
                    label = f"{arm.name}/workspace/{axis}_{end}" if several else f"workspace/{axis}_{end}"
                    expected[label] = (sign * (values - (low if end == "min" else high))).min()
        for arm, p in zip(config.arms, positions[:, 2:]):
            for plane in arm.workspace.planes:
                expected[f"{arm.name}/workspace/{plane.name}"] = (p @ np.array(plane.normal)).min() - plane.offset_m
        near(margins(config, "workspace", joints), expected)
    assert not several or "shelf" in str(list(expected))


@pytest.mark.parametrize("name", ["sim_dual", "agilex"])
def test_speeds_and_accelerations_of_each_tool(name):
    config = robot_of(name)
    for joints in paths(config, 6, 6, 0.004):
        speed, acceleration, turning, turned = {}, {}, {}, {}
        positions, rotations = tools(config, joints)
        for arm, p, r in zip(config.arms, positions, rotations):
            rules, v = arm.cartesian_limits, np.diff(p, axis=0) / config.dt
            speed[f"{arm.name}/tool/speed"] = rules.speed_m_s * SLACK - np.linalg.norm(v[1:], axis=1).max()
            acceleration[f"{arm.name}/tool/acceleration"] = (
                rules.acceleration_m_s2 * SLACK - np.linalg.norm(np.diff(v, axis=0), axis=1).max() / config.dt)
            w = rotation_vectors(r[1:] @ r[:-1].transpose(0, 2, 1)) / config.dt
            turning[f"{arm.name}/tool/rotation_speed"] = rules.rotation_speed_rad_s * SLACK - np.linalg.norm(w[1:], axis=1).max()
            axes = np.linalg.norm(np.diff(r, n=2, axis=0), axis=(1, 2)).max() / config.dt ** 2
            turned[f"{arm.name}/tool/rotation_acceleration"] = rules.rotation_acceleration_rad_s2 * SLACK - axes / np.sqrt(2.0)
        near(margins(config, "cartesian_speed", joints), speed)
        near(margins(config, "cartesian_acceleration", joints), acceleration, 1e-6)
        near(margins(config, "rotation_speed", joints), turning, 1e-3)       # chord and arc
        near(margins(config, "rotation_acceleration", joints), turned, 1e-6)


def clearances(config, joints):
    """Return every clearance from the table, between links and between arms, (m,) each, by name."""
    arms, found = plain(config), {}
    segments = [arm.segments(arm.frames(q)) for arm, q in zip(arms, joints)]
    for arm, at in zip(arms, segments):
        rules = arm.arm["collision"]
        for place in arm.above_table:
            found[f"{arm.name}/{arm.capsules[place]['name']}/table"] = (
                at[:, place, :, 2].min(axis=1) - arm.radii[place] - rules["table_z_m"] - rules["margin_m"])
        for (first, second), names in zip(arm.pairs, rules["pairs"]):
            found[f"{arm.name}/{names[0]}-{names[1]}"] = (apart(at[:, first], at[:, second]) - arm.radii[first]
                                                          - arm.radii[second] - rules["margin_m"])
    if len(arms) > 1:
        world = [at @ matrix(np.array(arm.arm["mount"]["quaternion_xyzw"], dtype=float)).T
                 + np.array(arm.arm["mount"]["position_m"]) for arm, at in zip(arms, segments)]
        found["inter_arm"] = np.min([apart(world[0][:, i], world[1][:, j]) - arms[0].radii[i] - arms[1].radii[j]
                                     for i in range(len(arms[0].radii)) for j in range(len(arms[1].radii))],
                                    axis=0) - config.inter_arm_margin_m
    return found


POSITIONAL = ("table", "self_collision", "inter_arm")


@pytest.mark.parametrize("name", ["sim_dual", "agilex", "fr3"])
def test_clearances_of_table_links_and_arms(name):
    config = robot_of(name)
    built = {limit.name: limit for limit in limits.build(config)}
    for joints in paths(config, 5, 4, 0.05):
        found = {}
        for kind in POSITIONAL:
            found.update(margins(config, kind, joints, built[kind]))
        near(found, {key: values[2:].min() for key, values in clearances(config, joints).items()}, 1e-7)


@pytest.mark.parametrize("name", ["sim_dual", "agilex", "fr3"])
def test_clearances_that_are_measured_now_and_then_are_never_overstated(name):
    """A long trajectory is measured at every sixth tick: what may happen in between is subtracted, and not much more."""
    config = robot_of(name)
    built = {limit.name: limit for limit in limits.build(config)}
    for joints in paths(config, 8, 21, 0.02, seed=3):
        found, truth = {}, clearances(config, joints)
        for kind in POSITIONAL:
            found.update(margins(config, kind, joints, built[kind]))
        for key, value in found.items():
            assert truth[key][2:].min() - 0.35 < value <= truth[key][2:].min() + 1e-7, key


@pytest.mark.parametrize("name", ["sim_dual", "agilex", "fr3"])
def test_a_clearance_is_taken_for_granted_only_where_it_is_kept(name):
    config, granted = robot_of(name, turned=False), dict.fromkeys(POSITIONAL, 0)
    built = {limit.name: limit for limit in limits.build(config)}
    batch = BatchKinematics(config.arms)
    for index, joints in enumerate(paths(config, 24, 9, 0.004, seed=5)):
        truth = clearances(config, joints)
        resting = np.repeat(joints[:, :1], 3, axis=1)
        for kind in POSITIONAL:
            limit = built[kind]
            if not limit.names:
                continue
            names = limit.names
            limit.margins(Trajectory(resting, config.dt, batch))
            if limit.certainly_kept(Trajectory(joints, config.dt, batch)):
                granted[kind] += 1
                assert min(truth[key][2:].min() for key in names) >= -1e-9, (kind, index)
    assert granted["table"] > 5 and granted["self_collision"] > 5


@pytest.mark.parametrize("name", ["sim_dual", "agilex", "fr3"])
def test_no_point_of_a_capsule_moves_further_than_its_reach(name):
    """A turn of a joint moves a point by its distance from the joint's axis."""
    config, rng = robot_of(name), np.random.default_rng(1)
    for arm, table in zip(config.arms, plain(config)):
        frames = table.frames(rng.uniform(-np.pi, np.pi, (1000, arm.dof)))
        for capsule, ends in zip(arm.collision.capsules, np.moveaxis(table.segments(frames), 1, 0)):
            for beyond in (0, max(0, capsule.link - 2)):
                bounds = reach(arm, capsule, beyond)
                assert (bounds[:beyond] == 0.0).all() and (bounds[capsule.link:] == 0.0).all()
                for joint in range(beyond, capsule.link):
                    frame = frames[joint + 1]
                    away = ends - frame[:, None, :3, 3]
                    moved = np.linalg.norm(np.cross(frame[:, None, :3, 2], away), axis=2).max()
                    assert moved <= bounds[joint] + 1e-9


def test_the_reach_of_the_hand_is_the_sum_of_the_links_before_it():
    arm = robot_of("fr3").arms[0]
    hand = next(capsule for capsule in arm.collision.capsules if capsule.name == "hand")
    extent = np.linalg.norm([0.0353553, 0.0353553, 0.147])
    lengths = [0.0, 0.316, 0.0825, 0.0825 + 0.384, 0.0, 0.088]          # of the links after joints 1 to 6
    expected = [extent + sum(lengths[joint:]) for joint in range(6)] + [extent]
    np.testing.assert_allclose(reach(arm, hand), expected, atol=1e-9)
    np.testing.assert_allclose(reach(arm, hand, 4), [0.0] * 4 + expected[4:], atol=1e-9)
