"""What the demo's operator does when the filter refuses or stops, as on a computer that is sometimes too busy."""
from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from hybridvla_core.checkpoints.manifest import write_manifest_of
from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_ros.demos import activation
from hybridvla_ros.demos.activation import MOST_STOPS
from hybridvla_ros.demos.demo import Demo
from hybridvla_ros.demos.demo_episodes import BLOCKS, SUITE, policy_config, shown
from hybridvla_sim import tasks

FELL_SILENT = "stopped: arm: the arm is not where it was when its joint states fell silent"


class Rig:
    """Services of a filter that stops `stops` times, and of a rig whose task is done once it follows undisturbed."""

    def __init__(self, stops: int) -> None:
        self.stops, self.following, self.resumed, self.asked = stops, False, 0, 0
        self.observer = SimpleNamespace(stopped="", instruction="")

    def activate(self, wanted: bool) -> SimpleNamespace:
        if wanted and self.observer.stopped:
            return SimpleNamespace(success=False, message="call resume first")
        self.following = wanted
        return SimpleNamespace(success=True, message="")

    def resume(self) -> SimpleNamespace:
        self.resumed, self.observer.stopped = self.resumed + 1, ""
        return SimpleNamespace(success=True, message="")

    def report(self, _instruction: str) -> SimpleNamespace:
        if self.stops and self.following:
            self.stops, self.following, self.observer.stopped = self.stops - 1, False, FELL_SILENT
        return SimpleNamespace(success=True, task_done=self.following, message="")

    def demo(self) -> Demo:
        demo = Demo.__new__(Demo)
        demo.observer, demo._activate, demo._resume, demo._report = self.observer, self.activate, self.resume, self.report
        demo._set_instruction = lambda text, strict: SimpleNamespace(success=True, message="")
        return demo


def test_a_stop_is_told_and_the_episode_goes_on(capsys):
    rig = Rig(stops=2)
    row = rig.demo().episode("put it there", None)
    assert row["success"] and row["stops"] == [FELL_SILENT] * 2 and rig.resumed == 2
    assert capsys.readouterr().out.count(FELL_SILENT) == 2


def test_a_filter_that_keeps_stopping_is_resumed_a_few_times_only(monkeypatch):
    monkeypatch.setattr("hybridvla_ros.demos.demo.EPISODE_TIMEOUT_S", 0.8)
    monkeypatch.setattr("hybridvla_ros.demos.demo.patience", lambda seconds: seconds)
    rig = Rig(stops=100)
    row = rig.demo().episode("put it there", None)
    assert not row["success"] and len(row["stops"]) == rig.resumed == MOST_STOPS


def test_what_refuses_for_good_is_told_in_its_own_words(monkeypatch):
    monkeypatch.setattr(activation, "patience", lambda seconds: 0.0)
    refusal = SimpleNamespace(success=False, message="the arm's user stop is pressed")
    with pytest.raises(HybridVLAError, match="go_to_start: the arm's user stop is pressed"):
        activation.when_willing("go_to_start", lambda: refusal, lambda: None)


def test_each_sentence_of_the_demo_is_one_of_its_task_and_tasks_stand_together():
    for episodes in (BLOCKS, SUITE):
        order = [task for task, _ in itertools.groupby(episode.task for episode in episodes)]
        assert len(order) == len(set(order))                 # one launch of the rig for each
        for episode in episodes:
            task = tasks.load(episode.task, rig="fr3")
            for text in filter(None, (episode.instruction, episode.second)):
                task.phrases.goal(text)


@pytest.mark.parametrize("provenance, cameras, wanted", [
    ({"tasks": ["blocks"], "instructions": list(tasks.load("blocks").instructions())}, ("front", "wrist"), BLOCKS),
    ({}, ("front",), BLOCKS), ({}, ("front", "wrist"), SUITE),
    ({"tasks": ["close_fridge", "umbrella_out_of_stand"]}, ("front", "wrist"), SUITE[:2])])
def test_a_checkpoint_is_shown_at_the_tasks_that_it_was_trained_for(tmp_path, provenance, cameras, wanted):
    write_manifest_of(tmp_path, (), provenance)
    found = SimpleNamespace(manifest={"provenance": provenance}, config=SimpleNamespace(cameras=cameras))
    episodes, left_out = shown(tmp_path, found)
    assert episodes == wanted and all("not trained for task" in why for why in left_out.values())
    assert [camera.view for camera in load_file(PolicyConfig, policy_config(found)).cameras] == list(cameras)


def test_a_checkpoint_of_other_tasks_is_refused_before_anything_is_launched(tmp_path):
    write_manifest_of(tmp_path, (), {"tasks": ["tray"]})
    with pytest.raises(HybridVLAError, match="was not trained for task close_fridge but for tray"):
        shown(tmp_path, SimpleNamespace())
