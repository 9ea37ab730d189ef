"""Requests to the filter's node while it is still trying an earlier one: the last stop or deactivation wins."""
from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from stage import Stage

from hybridvla_core.safety.status import NOT_DRY, Reason, State
from hybridvla_ros import filter_handle, safety_node
from hybridvla_ros.filter_handle import MEANWHILE

LATE = (False, MEANWHILE)


@pytest.fixture
def stage(monkeypatch):
    return Stage(monkeypatch)


def test_a_request_is_tried_until_the_arms_rest(stage):
    stage.drift(0.6)
    assert stage.ask("activate", True) == (True, "active") and stage.state == State.HOLDING
    assert stage.ask("activate", False)[0] and stage.state == State.INACTIVE


@pytest.mark.parametrize("end, answer", [(("activate", False), (True, "inactive")), (("stop",), (True, "stopped"))])
def test_what_ends_motion_wins_over_an_activation_that_is_still_tried(stage, end, answer):
    stage.drift(1.5)
    stage.at(0.4, "end", lambda: stage.ask(*end))
    before = stage.rig.now
    assert stage.ask("activate", True) == LATE and stage.rig.now - before < 0.6
    assert stage.answers["end"] == answer
    stage.sleep(3.0)
    assert stage.state == (State.INACTIVE if end[0] == "activate" else State.STOPPED)


def test_a_deactivation_wins_over_an_activation_that_waits_for_the_policy(stage):
    stage.node._require_policy = True
    stage.at(0.1, "end", lambda: stage.ask("activate", False))
    stage.at(0.2, "policy", lambda: setattr(stage.node, "_policy_heard", stage.rig.now))
    assert stage.ask("activate", True) == LATE
    assert stage.answers["end"] == (True, "inactive") and stage.state == State.INACTIVE


@pytest.mark.parametrize("end", [("stop",), ("activate", False)])
def test_what_ends_motion_wins_over_a_resume_that_is_still_tried(stage, end):
    assert stage.ask("activate", True)[0]
    stage.rig.propose([0.45, 0.2, 0.4])
    stage.sleep(0.6)
    assert stage.state == State.ACTIVE
    assert stage.ask("stop") == (True, "stopped")
    stage.at(0.04, "end", lambda: stage.ask(*end))
    assert stage.ask("resume") == LATE
    stage.sleep(3.0)
    assert stage.answers["end"][0] and stage.state == State.STOPPED
    assert stage.ask("resume")[0], "asked anew"


def test_an_intruder_wins_over_a_resume_that_is_still_tried(stage):
    assert stage.ask("activate", True)[0]
    stage.rig.propose([0.45, 0.2, 0.4])
    stage.sleep(0.6)
    stage.ask("stop")
    stage.at(0.04, "intruder", lambda: stage.node._on_intruder("/other also commands the arm"))
    assert stage.ask("resume") == LATE
    assert stage.state == State.STOPPED and stage.rig.tick().status.reasons & Reason.CONTROLLER


def test_a_deactivation_wins_over_a_way_back_inside_that_is_still_tried(monkeypatch):
    stage = Stage(monkeypatch)
    stage.rig.joints["arm"][0] = 2.5
    stage.drift(1.0)
    stage.at(0.4, "end", lambda: stage.ask("activate", False))
    assert stage.ask("reenter") == LATE and stage.state == State.INACTIVE
    stage.sleep(1.5)
    assert stage.ask("reenter")[0] and stage.state == State.RECOVERING, "asked anew"


@pytest.mark.parametrize("after", [0.4, 0.0])
def test_a_deactivation_wins_over_a_way_to_the_start_that_is_still_tried(monkeypatch, after):
    stage = Stage(monkeypatch, "agilex")
    for joints in stage.rig.joints.values():
        joints[0] += 0.2
    stage.drift(1.0)
    ends = stage.handle.deactivate().ends
    stage.at(after, "end", lambda: stage.ask("activate", False))
    if not after:       # between the preceding deactivation and the first attempt
        stage.sleep(0.01)
    assert stage.handle.go_to_start(ends) == LATE and stage.state == State.INACTIVE
    assert stage.answers["end"] == (True, "inactive")
    stage.sleep(1.5)
    moved = stage.rig.joints["right"].copy()
    stage.sleep(0.5)
    np.testing.assert_array_equal(stage.rig.joints["right"], moved)


@pytest.fixture
def away(monkeypatch):
    """Return a stage with two arms, at rest away from their start."""
    stage = Stage(monkeypatch, "agilex")
    for joints in stage.rig.joints.values():
        joints[0] += 0.2
    stage.sleep(0.5)
    return stage


def test_a_way_to_the_start_that_takes_too_long_is_given_up_and_nothing_moves_any_more(away, monkeypatch):
    monkeypatch.setattr(filter_handle, "HOMING_S", 1.0)
    away.at(0.3, "release", lambda: setattr(away, "pressed", False))
    before, began = away.rig.joints["right"].copy(), away.rig.now
    done, message = away.handle.go_to_start(away.handle.ends)
    assert not done and message == "the arms did not reach their start joints within 1 s; is the deadman held?"
    assert away.state == State.INACTIVE and away.rig.now - began < 1.5
    moved = away.rig.joints["right"].copy()
    assert np.abs(moved - before).max() > 0.005, "it was on its way"
    away.pressed = True
    away.sleep(0.5)
    np.testing.assert_array_equal(away.rig.joints["right"], moved)


@pytest.mark.parametrize("end, said", [
    (lambda stage: stage.ask("stop"), "STOPPED"), (lambda stage: stage.ask("activate", False), "INACTIVE"),
    (lambda stage: stage.rig.changes.update(ready=False, message="the emergency stop is pressed"), "emergency stop")])
def test_what_ends_a_way_to_the_start_early_is_its_answer(away, end, said):
    away.at(0.4, "end", lambda: end(away))
    began = away.rig.now
    done, message = away.handle.go_to_start(away.handle.ends)
    assert not done and message.startswith("the way to the start joints ended early: ") and said in message
    assert away.rig.now - began < 1.5


@pytest.fixture
def led(monkeypatch):
    """Return a function: a stage, and the times at which its robot, which leads itself to its start in 0.5 s, was asked to."""
    def of(**keys):
        stage = Stage(monkeypatch, change=lambda config: dataclasses.replace(config, deadman_required=True), **keys)
        stage.node.adapter = SimpleNamespace(has_way_to_start=False)
        asked = []

        def lead(*_, **__):
            asked.append(stage.rig.now)
            stage.sleep(0.5)
            return SimpleNamespace(success=True, message="there")
        monkeypatch.setattr(safety_node, "ask", lead)
        return stage, asked
    return of


def test_the_robots_own_way_to_the_start_is_asked_for_where_something_may_move(led):
    stage, asked = led()
    assert stage.ask("go_to_start") == (True, "there") and len(asked) == 1


@pytest.mark.parametrize("dry_run, words", [(True, NOT_DRY), (False, "the deadman is released or silent")])
def test_the_robots_own_way_to_the_start_is_refused_in_a_dry_run_and_without_the_deadman(led, dry_run, words):
    stage, asked = led(dry_run=dry_run)
    stage.pressed = dry_run
    stage.sleep(0.3)
    assert stage.ask("go_to_start") == (False, words) and not asked


@pytest.mark.parametrize("end", [("stop",), ("activate", False)])
def test_what_ends_motion_during_the_robots_own_way_to_the_start_is_its_answer(led, end):
    stage, asked = led()
    stage.at(0.2, "end", lambda: stage.ask(*end))
    assert stage.ask("go_to_start") == LATE and len(asked) == 1 and stage.answers["end"][0]


STOPPED = (False, "the filter is STOPPED; call resume first")


def test_a_way_to_the_start_that_is_refused_while_stopped_leaves_the_arm_held(led):
    stage, asked = led()
    assert stage.ask("activate", True)[0]
    stage.rig.propose([0.45, 0.2, 0.4])
    stage.sleep(0.6)
    assert stage.ask("stop") == (True, "stopped")
    stage.sleep(1.0)
    assert stage.ask("go_to_start") == STOPPED and not asked
    assert all(command.publish for command in stage.rig.tick(20).arms), "the arm is still held"
    stage.rig.follows = False
    stage.rig.joints["arm"][0] += 0.2            # something pushes the held arm away
    stage.sleep(3.0)
    bound = stage.rig.config.arms[0].leash.max_force_n
    assert stage.rig.output.status.arms[0].push_n <= bound, "the command is drawn back to the bound"
    stage.rig.follows = True
    stage.sleep(0.5)
    assert stage.ask("resume") == (True, "holding until the next proposal") and stage.state == State.HOLDING


def test_a_deactivation_that_is_refused_while_stopped_ends_nothing_that_is_still_tried(stage):
    assert stage.ask("activate", True)[0]
    stage.rig.propose([0.45, 0.2, 0.4])
    stage.sleep(0.6)
    stage.ask("stop")
    ends = stage.handle.ends
    stage.at(0.04, "start", stage.handle.deactivate)
    assert stage.ask("resume")[0] and stage.state == State.HOLDING
    assert stage.answers["start"] == (STOPPED[1], ends, False)


def test_a_deactivation_is_not_given_up_because_somebody_stops_once_more(stage):
    assert stage.ask("activate", True)[0]
    stage.rig.propose([0.45, 0.2, 0.4])
    stage.sleep(0.6)
    stage.ask("stop")
    stage.at(0.04, "end", lambda: stage.ask("stop"))
    done, message = stage.ask("activate", False)
    assert done and "resume leads to inactive" in message


def test_a_stop_does_not_come_between_the_look_and_the_attempt(stage):
    """Both happen while the lock that every stop needs is held once."""
    seen = []
    stage.handle.patiently(lambda now: (seen.append(stage.lock.locked()), (True, ""))[1])
    assert seen == [True] and filter_handle.PATIENCE_S > 1.0
