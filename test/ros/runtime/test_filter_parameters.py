"""Dynamic reconfiguration of the filter's node, without a graph: every value allowed in a robot's file is allowed at run time."""
from __future__ import annotations

import dataclasses

import pytest
import rospy
from dynamic_reconfigure.server import Server

from hybridvla.cfg import SafetyConfig
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_ros.safety_parameters import SafetyParameters

ROBOT = load_robot(ROOT / "config" / "robots" / "sim_fr3.yaml")


@pytest.fixture
def node(monkeypatch):
    """Makes the parameters of a filter whose robot file has a `speed_scale`; returns filter, parameters and refusals."""
    monkeypatch.setattr(rospy, "set_param", lambda *_: None)
    monkeypatch.setattr(Server, "__init__", lambda *_: None)
    monkeypatch.setattr(Server, "update_configuration", lambda _self, values: values)

    def of(scale):
        safety, refused = SafetyFilter(dataclasses.replace(ROBOT, speed_scale=scale)), []

        def apply(speed_scale, dry_run):
            safety.set_dry_run(dry_run)
            safety.set_speed_scale(speed_scale)
        return safety, SafetyParameters(scale, False, apply, refused.append), refused
    return of


@pytest.mark.parametrize("scale", [0.01, 0.005, 1.0])
def test_a_scale_that_a_launch_takes_refuses_no_later_change_of_another_parameter(node, scale):
    if scale < SafetyConfig.min["speed_scale"]:
        with pytest.raises(ConfigurationError, match="speed_scale must lie between 0.01 and 1"):
            node(scale)
        return
    safety, parameters, refused = node(scale)
    assert parameters.update_configuration({"dry_run": True}) == {"speed_scale": scale, "dry_run": True}
    assert safety.dry_run and not refused
    parameters.update_configuration({"speed_scale": 0.005})
    assert len(refused) == 1 and "use a number from 0.01 to 1" in refused[0]
