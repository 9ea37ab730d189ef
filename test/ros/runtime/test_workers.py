"""A node's threads: an unforeseen error is named in log, diagnostics and status, and never ends work silently."""
from __future__ import annotations

import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import rospy
from safety_rig import Rig

from hybridvla_core.contracts import Heartbeat, PolicyState
from hybridvla_core.errors import HybridVLAError, ObservationError
from hybridvla_core.paths import ROOT
from hybridvla_core.safety.status import State
from hybridvla_ros import policy_node, safety_node
from hybridvla_ros.policy_node import PolicyNode
from hybridvla_ros.runtime import node_support, workers
from hybridvla_ros.runtime.node_support import Diagnostics
from hybridvla_ros.runtime.workers import Faults, Rate, start_worker

SOURCE = ROOT / "src/hybridvla_ros"


@pytest.fixture(autouse=True)
def faults(monkeypatch):
    """Give each test its own record of the process's faults."""
    made = Faults()
    for module in (workers, node_support, policy_node, safety_node):
        monkeypatch.setattr(module, "FAULTS", made)
    return made


def until(condition):
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def fail(text="no key"):
    raise KeyError(text)


def test_every_thread_of_every_node_begins_with_the_one_wrapper():
    makes = re.compile(r"\bThread\(|rospy\.Timer\(|_thread\.start_new|\bThreadPool")
    found = {str(path.relative_to(SOURCE)): len(makes.findall(path.read_text(encoding="utf-8")))
             for path in SOURCE.rglob("*.py")}
    assert {name: count for name, count in found.items() if count} == {"runtime/workers.py": 1, "demos/demo_record.py": 1}


def test_a_thread_that_ends_by_an_error_leaves_a_fault_with_its_name(faults):
    start_worker("counting", fail).join(20)
    assert faults.problem == "counting has ended: KeyError: 'no key'; start this node again"
    start_worker("well", lambda: None).join(20)
    assert faults.problem.count("ended") == 1


def test_calls_at_a_rate_go_on_after_an_error_and_the_fault_ends_when_one_succeeds(faults):
    wrong, calls = threading.Event(), []

    def call():
        calls.append(1)
        if wrong.is_set():
            fail()
    wrong.set()
    rate = Rate(0.005, call, "looking")
    until(lambda: len(calls) > 3)
    assert faults.problem == "looking fails: KeyError: 'no key'"
    wrong.clear()
    until(lambda: not faults.problem)
    rate.end()


def test_listeners_hear_of_a_fault_at_once_and_of_its_end(faults):
    heard = []
    faults.add("a", "a fails")
    faults.listen(heard.append)
    faults.add("b", "b fails")
    faults.add("b", "b fails")
    faults.clear("a")
    faults.clear("b")
    assert heard == ["a fails", "a fails; b fails", "b fails", ""]


def test_a_listener_never_hears_of_an_older_state_last(faults):
    """One thread's listener is held up with "no fault" in hand, and meanwhile another thread adds a fault."""
    known, adding = [], threading.Thread(target=faults.add, args=("b", "b fails"), daemon=True)

    def listener(text):
        if not text:
            adding.start()
            adding.join(0.5)         # a fault that were told meanwhile would be told by then
        known.append(text)
    faults.add("a", "a fails")
    faults.listen(listener)
    faults.clear("a")
    adding.join(20)
    assert known == ["a fails", "", "b fails"]


def test_a_listener_that_is_told_of_a_fault_as_it_begins_hears_of_its_end_afterwards(faults):
    known, clearing = [], threading.Thread(target=faults.clear, args=("a",), daemon=True)

    def listener(text):
        if text:
            clearing.start()
            clearing.join(0.5)
        known.append(text)
    faults.add("a", "a fails")
    faults.listen(listener)
    clearing.join(20)
    assert known == ["a fails", ""]


def test_a_listener_may_report_a_fault_itself(faults):
    heard = []

    def listener(text):
        heard.append(text)
        if "a fails" in text:
            faults.add("listener", "the listener fails")
    faults.listen(listener)
    worker = threading.Thread(target=faults.add, args=("a", "a fails"), daemon=True)
    worker.start()
    worker.join(20)
    assert not worker.is_alive() and heard[-1] == "a fails; the listener fails"


@pytest.fixture
def entries(monkeypatch):
    """Return what a node's diagnostics publish, without a master."""
    made = []
    monkeypatch.setattr(rospy, "Publisher", lambda *_, **__: SimpleNamespace(publish=made.append))
    monkeypatch.setattr(rospy.Time, "now", lambda: rospy.Time(1))
    monkeypatch.setattr(node_support, "Rate", lambda *_: None)
    return made


def test_a_fault_stands_in_the_diagnostics_of_the_node(faults, entries):
    diagnostics = Diagnostics("cameras", lambda: (0, "all views arrive", {}))
    diagnostics._publish()
    faults.add("x", "reading the pedal has ended: OSError: gone")
    diagnostics._publish()
    before, after = (entry.status[0] for entry in entries)
    assert before.level == 0 and before.message == "all views arrive"
    assert after.level == 2 and after.message == "reading the pedal has ended: OSError: gone; all views arrive"


def test_a_node_that_reports_nothing_else_has_its_faults_in_the_diagnostics(faults, entries, monkeypatch):
    calls = []
    monkeypatch.setattr(node_support, "Rate", lambda _seconds, call, _name: calls.append(call))
    node_support.tell_faults()
    calls[0]()
    assert entries == []
    faults.add("x", "reading the pedal has ended: OSError: gone")
    calls[0]()
    faults.clear("x")
    calls[0]()
    assert [(entry.status[0].level, entry.status[0].message) for entry in entries] == [
        (2, "reading the pedal has ended: OSError: gone"), (0, "all threads work")]
    assert entries[0].status[0].name.endswith(": threads")


def test_a_report_that_fails_is_published_as_an_error(entries):
    Diagnostics("cameras", lambda: fail("rate"))._publish()
    status = entries[0].status[0]
    assert status.level == 2 and "KeyError: 'rate'" in status.message


def test_a_fault_stands_in_the_heartbeat_of_the_policy(faults, monkeypatch):
    sent = []
    monkeypatch.setattr(policy_node, "publish_unless_ending", lambda _publisher, message: sent.append(message))
    monkeypatch.setattr(policy_node.conversions, "heartbeat_message", lambda heartbeat: heartbeat)
    node = SimpleNamespace(_overload=SimpleNamespace(now=lambda: "", problem=""), _remark="", _heartbeats=None)
    faults.add("x", "watching the graph fails: KeyError: 'a'")
    PolicyNode._publish_heartbeat(node, Heartbeat(1, 0, 0, PolicyState.INFERRING, 0.0, ""))
    assert sent[0].message == "watching the graph fails: KeyError: 'a'"


def test_a_prediction_that_fails_unforeseen_is_named_and_tried_again(faults, monkeypatch):
    monkeypatch.setattr(policy_node, "FAILED_S", 0.0)
    answers = iter([RuntimeError("CUDA out of memory"), ObservationError("camera front: no frame"), HybridVLAError("lost")])

    def predict():
        answer = next(answers)
        if isinstance(answer, ObservationError):
            return str(answer)
        raise answer
    node = SimpleNamespace(_predict=predict)
    assert PolicyNode._try_to_predict(node) == "the prediction fails: RuntimeError: CUDA out of memory"
    assert "CUDA out of memory" in faults.problem
    assert PolicyNode._try_to_predict(node) == "camera front: no frame" and "CUDA out of memory" in faults.problem
    with pytest.raises(HybridVLAError, match="lost"):
        PolicyNode._try_to_predict(node)


def test_a_prediction_that_succeeds_ends_the_fault_of_one_that_failed(faults, monkeypatch):
    monkeypatch.setattr(policy_node, "FAILED_S", 0.0)
    monkeypatch.setattr(rospy.Time, "now", lambda: rospy.Time(1))
    answers = iter([RuntimeError("CUDA out of memory"), None])

    def step(*_):
        answer = next(answers)
        if answer is not None:
            raise answer
    found = SimpleNamespace(stamp_ns=1, spread=0.0, messages={})
    node = SimpleNamespace(
        feed=SimpleNamespace(sync=SimpleNamespace(news=0, wait=lambda *_: None), latest=lambda: (found, "")), _used=(0, 0),
        _covered=SimpleNamespace(choose=lambda *_: found, remark="", problem=""),
        _overload=SimpleNamespace(begin=lambda: None, end=lambda: None, problem=""),
        proposer=SimpleNamespace(instruction_sequence=1, wants=lambda _: True, step=step))
    node._predict = lambda: PolicyNode._predict(node)
    assert "CUDA out of memory" in PolicyNode._try_to_predict(node)
    assert PolicyNode._try_to_predict(node) == "" == faults.problem
    assert PolicyNode._try_to_predict(node) == "" == faults.problem, "the same images: nothing is tried"


def test_a_fault_in_the_filters_node_holds_the_arms_and_stands_in_the_status(faults):
    rig = Rig().start()
    node = SimpleNamespace(_lock=threading.Lock(), filter=rig.filter)
    faults.listen(lambda text: safety_node.SafetyNode._on_fault(node, text))
    assert rig.propose([0.45, 0.1, 0.4]).accepted
    rig.tick(100)
    assert rig.output.status.state == State.ACTIVE
    faults.add("x", "watching the graph fails: KeyError: 'a'")
    status = rig.tick(100).status
    assert status.state == State.HOLDING and status.message == "holding: watching the graph fails: KeyError: 'a'"
    rest = rig.pose().position
    np.testing.assert_array_equal(rig.tick(100).arms[0].pose.position, rest)
    faults.clear("x")
    assert "graph" not in rig.tick().status.message
