"""An episode over ROS through services alone: when it ends, what it counts, and what is not a failure of the policy."""
from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.demos import activation, rigs_operator
from hybridvla_ros.evaluation import operator as module
from hybridvla_ros.evaluation.operator import TaskOperator
from hybridvla_ros.evaluation.tasks import Request
from hybridvla_sim import tasks
from hybridvla_sim.task import EpisodeSpec

TASK = SimpleNamespace(max_time=30.0, max_keyframes=4)
YES = SimpleNamespace(success=True, message="")


class Rig:
    """Services of a rig whose time advances by 1 s with each report, and whose task is done from `done` s on."""

    def __init__(self, monkeypatch, done=5.0, decisions=0):
        monkeypatch.setattr(module, "POLL_S", 0.0)
        monkeypatch.setattr(activation, "patience", lambda seconds: 0.0)
        self.time, self.done, self.decisions, self.asked, self.states = 100.0, done, decisions, [], []
        operator = self.operator = TaskOperator.__new__(TaskOperator)
        operator._launch = SimpleNamespace(poll=lambda: None, returncode=7)
        operator._beat_at, operator.status = time.monotonic(), SimpleNamespace(counters={"holds": 2, "limited/speed": 1},
                                                                               state=SimpleNamespace(name="ACTIVE"))
        operator._decisions, operator._tick_ms = [{"old": True}], [9.0]
        operator.begin = lambda seed: self.asked.append(seed)
        operator.answered = lambda service, *words, what: self.asked.append(words[0])
        operator.instruct, operator.report = None, self.report
        operator.resume, operator.activate = lambda: YES, lambda wanted: YES

    def report(self, instruction):
        self.time += 1.0
        self.operator._decisions += [{"new": True}] * self.decisions
        if instruction:
            self.operator.status.counters = {"holds": 2, "limited/speed": 4}
        return SimpleNamespace(success=True, message="", task_done=self.time >= 100.0 + self.done and instruction != "other",
                               limit_violations=int(self.time), report=json.dumps({"time": self.time}))


def test_an_episode_ends_when_the_rig_has_said_three_times_that_it_is_done(monkeypatch):
    rig = Rig(monkeypatch)
    row = rig.operator.episode(TASK, EpisodeSpec(5, "do it"))
    assert row["success"] and row["seed"] == 5 and row["task"] == "do it" and rig.asked == [5, "do it"]
    assert row["time"] == 5.0 and row["counters"] == {"limited/speed": 3} and row["violations"] > 0
    assert row["decisions"] == [] and row["tick_ms"] == []       # only those of the episode


def test_time_and_keyframes_end_an_episode(monkeypatch):
    row = Rig(monkeypatch, done=1e9).operator.episode(TASK, EpisodeSpec(5, "do it"))
    assert not row["success"] and row["time"] == 30.0
    row = Rig(monkeypatch, done=1e9, decisions=1).operator.episode(TASK, EpisodeSpec(5, "do it"))
    assert not row["success"] and row["keyframes"] == 5 and row["time"] < 10.0


def test_what_the_last_keyframe_has_done_is_looked_at_until_it_counts(monkeypatch):
    row = Rig(monkeypatch, done=5.0, decisions=1).operator.episode(TASK, EpisodeSpec(5, "do it"))
    assert row["success"] and row["keyframes"] > TASK.max_keyframes


def test_a_filter_that_stops_again_and_again_is_no_failure_of_the_policy(monkeypatch):
    rig = Rig(monkeypatch, done=1e9)
    rig.operator.status.message = "stopped: no joint states"
    rig.operator.state = lambda *names: "STOPPED" in names
    with pytest.raises(HybridVLAError, match="stopped 4 times in the episode of seed 5.*no failure of the policy: stopped: no"):
        rig.operator.episode(TASK, EpisodeSpec(5, "do it"))


def test_a_switched_episode_counts_for_its_second_instruction(monkeypatch):
    rig = Rig(monkeypatch, done=0.0)
    row = rig.operator.episode(TASK, EpisodeSpec(5, "first", 8.0, "second"))
    assert rig.asked == [5, "first", "second"] and row["success"] and row["task"] == "second" and row["time"] >= 8.0
    assert not Rig(monkeypatch, done=0.0).operator.episode(TASK, EpisodeSpec(5, "first", 8.0, "other"))["success"]
    row = Rig(monkeypatch, done=0.0, decisions=1).operator.episode(TASK, EpisodeSpec(5, "first", 8.0, "second"))
    assert row["success"], "a policy that is done early waits for the switch"


def test_a_node_that_ended_and_a_silent_policy_are_no_failures(monkeypatch):
    rig = Rig(monkeypatch)
    rig.operator._launch.poll = lambda: 7
    with pytest.raises(HybridVLAError, match="roslaunch ended with status 7"):
        rig.operator.episode(TASK, EpisodeSpec(5, "do it"))
    rig = Rig(monkeypatch)
    rig.operator._beat_at = time.monotonic() - 1e4
    with pytest.raises(HybridVLAError, match="the policy has been silent"):
        rig.operator.episode(TASK, EpisodeSpec(5, "do it"))


def test_a_task_is_launched_with_what_acts_and_where(tmp_path):
    fr3 = Request("fr3", "checkpoints/tiny", "diffusion", tmp_path / "p.yaml", tmp_path / "r.yaml", tmp_path)
    words = fr3.launch(tasks.load("blocks").varied("light"), 7)
    assert words[0] == "sim.launch" and {"task:=blocks", "seed:=7", "mode:=diffusion", "variation:=light"} <= set(words)
    assert any(word.startswith("checkpoint:=/") and word.endswith("checkpoints/tiny") for word in words)
    words = Request("agilex", "", "ensemble", tmp_path / "p.yaml", tmp_path / "r.yaml", tmp_path).launch(tasks.load("tray"), 7)
    assert words[:2] == ["agilex.launch", "rig:=stand_in"] and "expert:=true" in words
    assert not any(word.startswith(("checkpoint", "mode", "variation")) for word in words)
    with pytest.raises(HybridVLAError, match="rig 'ur5' has no simulated graph; use fr3 or agilex"):
        Request("ur5", "", "ensemble", tmp_path, tmp_path, tmp_path)


def test_an_arm_that_ended_a_hair_outside_is_led_back_inside_before_the_start(monkeypatch):
    operator, called = Rig(monkeypatch).operator, []
    del operator.begin, operator.answered
    monkeypatch.setattr(rigs_operator.time, "sleep", lambda seconds: None)
    operator.note = lambda text: None
    outside = SimpleNamespace(success=False, message="right: joint 3 is 0.001 rad outside; call reenter")
    operator.go_to_start = lambda: called.append("go_to_start") or (YES if "reenter" in called else outside)
    operator.reenter = lambda: called.append("reenter") or YES
    operator.scene = lambda seed: called.append(seed) or YES
    operator.status.state.name = "INACTIVE"
    operator.begin(7)
    assert called == ["go_to_start", "reenter", "go_to_start", 7]
