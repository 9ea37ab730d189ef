"""Every topic, type and field that a layout names exists in the running system's own classes, not in a copy of their names."""
from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree

import genpy
import pytest
import roslib.message
import yaml

from hybridvla_core.configuration import load_file
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_ros.console.view.node import MARKERS
from hybridvla_ros.console.view.scene import WORLD

RVIZ = sorted((ROOT / "config/rviz").glob("*.rviz"))
FOXGLOVE = sorted((ROOT / "config/layouts").glob("foxglove_*.json"))
PLOTJUGGLER = sorted((ROOT / "config/layouts").glob("plotjuggler_*.xml"))
OURS = {"/hybridvla/safety/status": "hybridvla/SafetyStatus", "/hybridvla/policy/proposal": "hybridvla/ActionProposal",
        "/hybridvla/policy/heartbeat": "hybridvla/PolicyHeartbeat", MARKERS: "visualization_msgs/MarkerArray"}
#: Display of RViz -> its topic property and message type.
TAKES = {"rviz/Image": ("Image Topic", "sensor_msgs/Image"),
         "rviz/MarkerArray": ("Marker Topic", "visualization_msgs/MarkerArray")}


def topics(path):
    """Return topic -> type for the rig that a layout is for."""
    cameras = load_file(PolicyConfig, ROOT / f"config/policies/{'agilex' if 'agilex' in path.name else 'fr3'}.yaml").cameras
    return {**OURS, **{camera.image_topic: "sensor_msgs/Image" for camera in cameras}}


def type_at(name, fields):
    """Return the type of a field, followed through messages and lists."""
    for field in fields:
        field, _, index = field.partition("[")
        cls = roslib.message.get_message_class(name)
        assert cls is not None and field in cls.__slots__, f"{name} has no {field}"
        name = cls._slot_types[cls.__slots__.index(field)]
        assert bool(index) == name.endswith("]"), f"{field} is {name}"
        name = name.partition("[")[0]
    return name


def plotted(path):
    """Yield (topic, fields) of everything that a layout draws."""
    if path.suffix == ".xml":
        names = [curve.get("name") for curve in ElementTree.parse(str(path)).iter("curve")]
        for name in names:
            topic = max((topic for topic in topics(path) if name.startswith(topic + "/")), key=len, default=None)
            assert topic, f"{name} begins with no topic"
            yield topic, name[len(topic) + 1:].split("/")
        return
    for identity, config in json.loads(path.read_text())["configById"].items():
        for entry in config.get("paths", ()):
            topic, _, fields = entry["value"].partition(".")
            yield topic, fields.split(".")
        if identity.startswith("RawMessages!"):
            topic, _, fields = config["topicPath"].partition(".")
            yield topic, fields.split(".")


def test_there_is_a_layout_of_each_kind_for_each_rig():
    assert [len(RVIZ), len(FOXGLOVE), len(PLOTJUGGLER)] == [2, 2, 2]


@pytest.mark.parametrize("path", RVIZ, ids=lambda path: path.name)
def test_rvizs_displays_take_what_is_published(path):
    manager = yaml.safe_load(path.read_text())["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == WORLD
    shown = [display for display in manager["Displays"] if display["Class"] in TAKES]
    assert {display[TAKES[display["Class"]][0]] for display in shown} >= {MARKERS}
    for display in shown:
        key, kind = TAKES[display["Class"]]
        assert topics(path).get(display[key]) == kind, display["Name"]
    assert sum(display["Class"] == "rviz/Image" for display in shown) == len(topics(path)) - len(OURS)


@pytest.mark.parametrize("path", [*FOXGLOVE, *PLOTJUGGLER], ids=lambda path: path.name)
def test_every_plotted_field_is_a_number_of_its_message_or_a_text_that_is_shown(path):
    found = list(plotted(path))
    assert len(found) >= 4
    for topic, fields in found:
        assert topic in topics(path), topic
        assert genpy.base.is_simple(type_at(topics(path)[topic], fields)) or fields == ["message"], fields


@pytest.mark.parametrize("path", FOXGLOVE, ids=lambda path: path.name)
def test_foxgloves_panels_are_all_laid_out_and_their_topics_are_there(path):
    layout = json.loads(path.read_text())
    placed = re.findall(r'"([\w]+![\w]+)"', json.dumps(layout["layout"]))
    assert sorted(placed) == sorted(layout["configById"])
    for config in layout["configById"].values():
        for topic in [*config.get("topics", {}), *filter(None, [config.get("imageMode", {}).get("imageTopic")])]:
            assert topic in topics(path), topic
    assert layout["configById"]["3D!arms"]["followTf"] == WORLD
