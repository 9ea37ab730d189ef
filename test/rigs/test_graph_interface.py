"""Topics, services and nodes of the launch files: all those of an earlier release exist; additions are allowed."""
from __future__ import annotations

import contextlib
import json
import time

import interface
import pytest

from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.private_graph import Graph

RECORDED = json.loads((ROOT / "test/setup/recorded_interface.json").read_text(encoding="utf-8"))["graph"]
LAUNCHES = {"sim": ["sim.launch"], "fr3": ["fr3.launch", "rig:=stand_in", "policy:=false"],
            "agilex": ["agilex.launch", "rig:=stand_in", "policy:=false"], "record": ["record.launch"]}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Start every launch file at once, each on its own master; give the masters' URIs by name."""
    with contextlib.ExitStack() as ending:
        uris = {}
        for name, arguments in LAUNCHES.items():
            graph = ending.enter_context(Graph(tmp_path_factory.mktemp(name)))
            graph.launch(*arguments)
            graph.wait_for_master()
            uris[name] = graph.environment["ROS_MASTER_URI"]
        yield uris


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_topics_and_services_are_still_there(graphs, name):
    deadline, lost = time.monotonic() + 90.0, ["nothing was asked yet"]
    while lost and time.monotonic() < deadline:
        time.sleep(0.5)
        lost = interface.missing(RECORDED[name], interface.graph(graphs[name]), name)
    assert lost == []
