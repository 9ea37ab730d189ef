"""A node whose name or service another node has: refused while the other runs or may run, started when it is surely gone."""
from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import rosgraph

from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.already_running import reached
from hybridvla_ros.runtime.private_graph import Graph, free_port

#: A host that no name server knows (RFC 6761 reserves this ending).
ELSEWHERE = "robot-pc.invalid"


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Yield a bare master; the environment is restored for tests that have a graph of their own."""
    before = dict(os.environ)
    with Graph(tmp_path_factory.mktemp("second")) as graph:
        graph.start(["rosmaster", "--core", "-p", str(graph.port)], "master.log")
        graph.wait_for_master(60.0)
        yield graph
    os.environ.clear()
    os.environ.update(before)


def start(node, *arguments):
    return subprocess.run([sys.executable, str(ROOT / "nodes" / node), *arguments], capture_output=True, text=True, timeout=120,
                          check=False)


def known(name):
    try:
        return rosgraph.Master("/tests").lookupNode(name)
    except rosgraph.MasterException:
        return ""


def register(name, uri):
    """Register a node with the master at `uri`."""
    rosgraph.Master(name).registerPublisher(f"{name}/topic", "std_msgs/Empty", uri)


def test_a_node_that_cannot_be_reached_is_not_taken_for_gone(graph):
    uri = f"http://{ELSEWHERE}:4567/"
    register("/far_away", uri)
    done = start("deadman_node", "__name:=far_away", "_source:=gamepad")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot be reached" in done.stderr and ELSEWHERE in done.stderr and "rosnode cleanup" in done.stderr
    assert known("/far_away") == uri


@pytest.mark.parametrize("name, remapped", [("/hybridvla/safety/activate", ()),
                                            ("/lab/activate", ("/hybridvla/safety/activate:=/lab/activate",))])
def test_a_filter_that_cannot_be_reached_keeps_a_second_one_from_starting_under_any_name(graph, name, remapped):
    first = rosgraph.Master("/first_filter")
    service = f"rosrpc://{ELSEWHERE}:4568"
    first.registerService(name, service, f"http://{ELSEWHERE}:4569/")
    try:
        done = start("safety_filter_node", "__name:=second_filter", "_robot_config:=config/robots/sim_fr3.yaml", *remapped)
        assert done.returncode == 1 and "another safety filter" in done.stderr and ELSEWHERE in done.stderr
        assert not known("/second_filter") and first.lookupService(name) == service
    finally:
        first.unregisterService(name, service)


def test_what_a_crashed_node_left_behind_does_not_keep_it_from_starting(graph):
    register("/crashed", f"http://127.0.0.1:{free_port()}/")
    done = start("deadman_node", "__name:=crashed", "_source:=wheel")
    assert "wheel" in done.stdout + done.stderr        # it got as far as its own parameters


def test_a_second_node_of_one_name_is_refused_and_the_first_goes_on(graph):
    first = graph.start([sys.executable, str(ROOT / "nodes" / "deadman_node"), "__name:=twice", "_source:=gamepad"], "first.log")
    deadline = time.monotonic() + 60.0
    while not known("/twice"):
        assert time.monotonic() < deadline and first.poll() is None, graph.log_tail("first.log")
        time.sleep(0.1)
    uri = known("/twice")
    done = start("deadman_node", "__name:=twice", "_source:=gamepad")
    assert done.returncode == 1 and "running already" in done.stderr
    assert first.poll() is None and known("/twice") == uri


@pytest.mark.parametrize("uri, words", [(f"http://{ELSEWHERE}:1/", "cannot be resolved"), ("http://127.0.0.1:{port}/", "gone")])
def test_gone_and_not_to_be_reached_are_two_things(uri, words):
    assert words in reached(uri.format(port=free_port()))
