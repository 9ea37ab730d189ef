"""A private graph: it ends what it has started, also when roslaunch is killed and cannot end its nodes itself."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from hybridvla_ros.runtime.leftovers import descendants, marked
from hybridvla_ros.runtime.private_graph import MARK, Graph

#: Starts a child in a session of its own, as roslaunch does with nodes, prints its process number, and waits for it.
PARENT = ("import subprocess, sys\n"
          "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
          "print(child.pid, flush=True)\nchild.wait()")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def child_of(graph):
    deadline = time.monotonic() + 60.0
    while not graph.log_tail("parent.log").strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(graph.log_tail("parent.log"))


@pytest.fixture
def graph(tmp_path):
    before = dict(os.environ)
    with Graph(tmp_path) as graph:
        yield graph
    os.environ.clear()
    os.environ.update(before)


def test_what_a_process_has_started_in_a_session_of_its_own_ends_with_it(graph):
    parent = graph.start([sys.executable, "-c", PARENT], "parent.log")
    child = child_of(graph)
    assert child in descendants(parent.pid)
    graph.end(parent)
    assert not alive(child)


def test_orphans_of_a_parent_that_was_killed_end_with_the_graph(graph):
    parent = graph.start([sys.executable, "-c", PARENT], "parent.log")
    child = child_of(graph)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    assert alive(child) and child in marked(MARK, graph.environment[MARK])
    graph.stop()
    assert not alive(child) and not marked(MARK, graph.environment[MARK])


def test_other_processes_are_left_alone(graph):
    before = os.environ.pop(MARK)
    try:
        other = graph.start([sys.executable, "-c", "import time; time.sleep(600)"], "other.log")
    finally:
        os.environ[MARK] = before
    graph._processes.remove(other)
    try:
        graph.stop()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait(10)


@pytest.mark.long
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_rigs_end_what_they_have_started_when_they_are_told_to_end(tmp_path, number, status):
    command = [sys.executable, "-m", "hybridvla_ros.demos.rigs", "--only", "fr3", "--episodes", "1",
               "--out", str(tmp_path / "out")]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    started = set()
    deadline = time.monotonic() + 120.0
    while not any("rosmaster" in name(pid) for pid in started):
        assert time.monotonic() < deadline and process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.2)
        started |= descendants(process.pid)
    process.send_signal(number)
    started |= descendants(process.pid)
    assert process.wait(180) == status, (tmp_path / "log").read_text()
    assert not [name(pid) for pid in started if alive(pid)]
    assert "Traceback" not in (tmp_path / "log").read_text()


def name(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode()
    except OSError:
        return ""
