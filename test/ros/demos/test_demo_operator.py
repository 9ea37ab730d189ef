"""What the demo's operator does when the filter refuses or stops, as on a computer that is too busy now and then."""
from __future__ import annotations

from types import SimpleNamespace

import pytest

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.demos import activation
from hybridvla_ros.demos.demo import MOST_STOPS, Demo

FELL_SILENT = "stopped: arm: the arm is not where it was when its joint states fell silent"


class Rig:
    """The services of a filter that stops `stops` times, and of a rig whose task is done once it follows undisturbed."""

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
