"""A clock that is set back: before Python 3.10, a timed wait of `threading` then stalls for as long; our waits do not."""
from __future__ import annotations

import ast
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hybridvla_core.paths import ROOT
from hybridvla_core.policy.remote.link import Link
from hybridvla_core.waiting import Condition, Event, wait_until
from hybridvla_ros import policy_node
from hybridvla_ros.observation.camera_sync import CameraSync
from hybridvla_ros.runtime.workers import Rate

#: Packages that run on a rig. (Training, evaluation and benchmarks have no timed wait of threads.)
RIG = ("hybridvla_core", "hybridvla_ros", "hybridvla_cli")


@pytest.fixture
def clock_set_back(monkeypatch):
    """Make timed waits of conditions, and so of events, never time out."""
    over, wait = [], threading.Condition.wait

    def stand_still(self, timeout=None):
        if timeout is None:
            return wait(self)
        while not over:
            time.sleep(0.005)
        return False
    monkeypatch.setattr(threading.Condition, "wait", stand_still)
    yield
    over.append(1)


def passes(condition):
    assert wait_until(condition, 20.0)


def test_calls_at_a_rate_go_on_by_a_clock_that_was_set_back(clock_set_back):
    calls = []
    rate = Rate(0.005, lambda: calls.append(1), "looking")
    passes(lambda: len(calls) > 3)
    rate.end()


def test_that_a_model_loads_is_said_by_a_clock_that_was_set_back(clock_set_back, monkeypatch):
    said = []
    monkeypatch.setattr(policy_node.rospy, "Publisher", lambda *_, **__: None)
    monkeypatch.setattr(policy_node.rospy.Time, "now", policy_node.rospy.Time)
    monkeypatch.setattr(policy_node, "publish_unless_ending", lambda _publisher, message: said.append(message) or True)
    warming = policy_node.Warming()
    passes(lambda: len(said) > 1)
    warming.end()


def test_images_are_waited_for_no_longer_by_a_clock_that_was_set_back(clock_set_back):
    sync = CameraSync(("front",), max_spread=0.02, max_age=0.5)
    began = time.monotonic()
    assert not sync.wait(0.02) and time.monotonic() - began < 10.0


def test_the_link_to_a_policy_is_given_up_by_a_clock_that_was_set_back(clock_set_back):
    link = SimpleNamespace(_problem="", heard=time.monotonic() - 99.0, _source=SimpleNamespace(deadline_s=1.0, url="u"))
    link._broken = lambda why: setattr(link, "_problem", why)
    link._socket = SimpleNamespace(ping=threading.Event, protocol=SimpleNamespace(state=Link._ping.__globals__["State"].OPEN))
    Link._ping(link)
    assert "silent" in link._problem


def test_no_timed_wait_of_threading_is_left_where_a_rig_runs():
    assert [found for package in RIG for path in sorted((ROOT / "src" / package).rglob("*.py"))
            for found in timed_waits(path.name, ast.parse(path.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize("text, count", [
    ("a = threading.Event()\na.wait(1.0)", 1), ("self._a = threading.Condition()\nself._a.wait_for(f, 1.0)", 1),
    ("self._a = threading.Condition()\nself._a.wait_for(f)\nself._a.wait()", 0), ("a = Event()\na.wait(1.0)", 0),
    ("lock.acquire(timeout=2.0)", 1), ("lock.acquire(blocking=False)", 0), ("thread.join(2.0)", 1), ("thread.join()", 0),
    ("', '.join(names)", 0), ("os.path.join(a)", 0), ("tasks.get(timeout=1.0)", 1)])
def test_a_timed_wait_is_recognised(text, count):
    assert len(timed_waits("x", ast.parse(text))) == count


def timed_waits(name, tree):
    """Return where a module waits with a timeout on an event or condition of threading, on a thread, a lock or a queue."""
    made = {dotted(target) for node in ast.walk(tree) if isinstance(node, (ast.Assign, ast.AnnAssign))
            if isinstance(node.value, ast.Call) and dotted(node.value.func) in ("threading.Event", "threading.Condition")
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])}
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        on, act, count = dotted(node.func.value), node.func.attr, len(node.args)
        timed = any(keyword.arg == "timeout" for keyword in node.keywords)
        if (act == "wait" and on in made and (count or timed) or act == "wait_for" and on in made and (count > 1 or timed)
                or act in ("acquire", "get") and timed or act == "join" and (timed or count == 1 and "thread" in on)):
            found.append(f"{name}, line {node.lineno}")
    return found


def dotted(node):
    """Return a name as it is written, such as `self._changed`; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_an_event_and_a_condition_wake_every_thread_that_waits():
    event, condition, seen = Event(), Condition(), []

    def wait():
        with condition:
            assert condition.wait_for(lambda: len(seen) >= 3, 20.0)
        event.wait(20.0)
        seen.append("end")
    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    for count in range(3):
        with condition:
            seen.append(count)
            condition.notify_all()
    time.sleep(0.05)
    assert len(seen) == 3 and not event.wait(0.0)
    event.set()
    for thread in threads:
        thread.join(20.0)
    assert len(seen) == 7 and event.is_set() and event.wait(0.0)
    event.clear()
    assert not event.wait(0.01)


def test_waits_leave_no_open_pipe_behind():
    def pipes():
        return len(list(Path("/proc/self/fd").iterdir()))
    before = pipes()
    for _ in range(50):
        event = Event()
        assert not event.wait(0.0)
        event.wait(0.0005)
    del event
    assert pipes() <= before
