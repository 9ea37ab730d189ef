"""A recorder's answer that comes when its episode has ended and another one runs: it concerns its own episode alone."""
from __future__ import annotations

import json
import threading

import pytest
from recordings import Graph
from std_msgs.msg import String

from hybridvla_core.waiting import wait_until
from hybridvla_ros.recording import episode_node
from hybridvla_ros.recording.episode_node import EpisodeNode
from hybridvla_ros.recording.episodes import read_events


class Labels:
    """An episode node whose recorder is played by the test."""

    def __init__(self, graph, folder):
        self.graph, self._file, self._answers, self._asked = graph, folder / "episodes.jsonl", {}, {}
        graph.publisher(episode_node.STARTED_TOPIC)
        EpisodeNode(self._file)

    @property
    def events(self):
        return read_events(self._file) if self._file.exists() else []

    def start(self):
        """Call start, which waits for the recorder, on a thread of its own; return the episode's id."""
        count, answers = len(self.events), self._answers
        thread = threading.Thread(target=lambda: answers.update({thread: self.graph.call("episode/start")}), daemon=True)
        thread.start()
        assert wait_until(lambda: len(self.events) > count, 10.0)
        self._asked[self.events[-1]["id"]] = thread
        return self.events[-1]["id"]

    def tell(self, episode, problem):
        """Answer as the recorder; return what the start of that episode answers then."""
        self.graph.deliver(episode_node.STARTED_TOPIC, String(json.dumps({"id": episode, "problem": problem})))
        self._asked[episode].join(10.0)
        return self._answers[self._asked[episode]]


@pytest.fixture
def labels(monkeypatch, tmp_path):
    monkeypatch.setattr(episode_node, "Diagnostics", lambda *_: None)
    return Labels(Graph(monkeypatch), tmp_path)


def test_a_late_refusal_does_not_discard_the_episode_that_runs_now(labels):
    first = labels.start()
    assert labels.graph.call("episode/discard").success
    second = labels.start()
    answer = labels.tell(first, "the disk is full")
    assert not answer.success and answer.message == "episode 1 is not recorded (it had ended already): the disk is full"
    assert labels.tell(second, "").success
    assert [event["event"] for event in labels.events] == ["start", "discard", "start"]


def test_a_label_still_waits_for_its_bag_after_a_late_agreement_to_an_episode_that_has_ended(labels, monkeypatch):
    monkeypatch.setattr(episode_node, "CLOSED_S", 0.05)
    first = labels.start()
    assert labels.graph.call("episode/discard").success
    second = labels.start()
    assert labels.tell(second, "").success
    labels.tell(first, "")
    assert "has not closed the bag" in labels.graph.call("episode/success").message
