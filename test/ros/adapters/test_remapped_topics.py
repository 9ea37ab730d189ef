"""Command topics that a launch file's <remap> renames: who else publishes there, and to whom they belong."""
from __future__ import annotations

import pytest
import rospy

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_ros import adapters

DUAL = load_robot(ROOT / "config" / "robots" / "sim_dual.yaml")
RIGHT, LEFT = (arm.topics["command"] for arm in DUAL.arms)


@pytest.fixture
def made(monkeypatch):
    """Makes the adapter of two arms, without a graph, under the given remapped names."""
    for kind in ("Publisher", "Subscriber"):
        monkeypatch.setattr(rospy, kind, lambda *_, **__: None)

    def make(**remapped):
        monkeypatch.setattr(rospy.names, "_resolved_mappings", {{"right": RIGHT, "left": LEFT}[arm]: name
                                                                for arm, name in remapped.items()})
        return adapters.make(DUAL, lambda state: None, None)
    return make


def beside(adapter, topic):
    return adapter.other_publishers([[(topic, [rospy.get_name(), "/marker"])], [], []])


def test_another_publisher_is_found_under_the_name_that_the_topic_has_in_the_graph(made):
    assert "is also published by /marker" in beside(made(), LEFT)
    remapped = made(left="/cell/left")
    assert beside(remapped, "/cell/left").startswith("/cell/left is also published by /marker")
    assert beside(remapped, LEFT) == "", "nothing of ours is there"
    assert beside(remapped, RIGHT)


def test_two_arms_that_are_remapped_to_one_topic_are_refused(made):
    assert made(left="/cell/left", right="/cell/right")
    with pytest.raises(ConfigurationError, match=f"{RIGHT} and {LEFT} are both /cell/pose by the launch file's <remap>"):
        made(left="/cell/pose", right="/cell/pose")
    with pytest.raises(ConfigurationError, match=f"are both {RIGHT}"):
        made(left=RIGHT)
