"""Robot files: read whole, refused by name."""
from pathlib import Path

import pytest

from hybridvla_core.configuration import from_mapping, read_mapping
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.safety.config import RobotConfig, load_robot

ROBOTS = Path(__file__).resolve().parents[2] / "config" / "robots"


@pytest.mark.parametrize("path", sorted(ROBOTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_robot_is_read(path):
    robot = load_robot(path)
    assert robot.name == path.stem
    for arm in robot.arms:
        for lower, start, upper in zip(arm.joint_limits.lower_rad, arm.start_joints_rad, arm.joint_limits.upper_rad):
            assert lower + arm.joint_limits.margin_rad < start < upper - arm.joint_limits.margin_rad


@pytest.mark.parametrize("change, words", [
    (lambda d: d.update(tick_rate=3), "tick_rate"),
    (lambda d: d.pop("watchdogs"), "watchdogs"),
    (lambda d: d.update(speed_scale=1.5), "speed_scale"),
    (lambda d: d.update(door="window"), "door"),
    (lambda d: d["arms"][0]["joint_limits"].update(lower_rad=[3.0] * 7), "joint 1"),
    (lambda d: d["arms"][0]["workspace"].update(lower_m=[0.0, 0.0]), "lower_m"),
    (lambda d: d["arms"][0]["cartesian_limits"].update(speed_m_s=float("nan")), "speed_m_s"),
    (lambda d: d["arms"][0]["tool"].update(quaternion_xyzw=[0.0, 0.0, 0.0, 0.5]), "quaternion"),
    (lambda d: d["arms"][0]["collision"].update(pairs=[["base", "tail"]]), "tail"),
])
def test_wrong_key_or_value_is_named(change, words):
    data = dict(read_mapping(ROBOTS / "sim_fr3.yaml"))
    change(data)
    with pytest.raises(ConfigurationError, match=words):
        from_mapping(RobotConfig, data, "robot.yaml")
