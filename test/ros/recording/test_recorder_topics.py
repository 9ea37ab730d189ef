"""What the recorder learns: latched messages by publisher, living nodes from their computer, and the disk of a new folder."""
from __future__ import annotations

import shutil
import socket
from types import SimpleNamespace

import pytest
import rosgraph
import rospy
from recordings import config

from hybridvla_ros.recording import topics
from hybridvla_ros.recording.recorder_node import free_bytes_or_zero
from hybridvla_ros.recording.topics import TopicSubscriptions, answers


class Master:
    """A master. publishers: its list of publishers; None: it does not answer."""

    publishers = None

    def getSystemState(self):
        if self.publishers is None:
            raise rosgraph.MasterException("no answer")
        return [[["/tf_static", self.publishers]], [], []]

    def lookupNode(self, name):
        return name


@pytest.fixture
def master(monkeypatch):
    found = Master()
    monkeypatch.setattr(topics.rosgraph, "Master", lambda *_: found)
    monkeypatch.setattr(topics.rospy, "get_name", lambda: "/recorder_node")
    monkeypatch.setattr(topics.rospy, "is_shutdown", lambda: False)
    monkeypatch.setattr(topics, "reached", lambda uri: "gone" if "killed" in uri else "")
    return found


@pytest.fixture
def subscriptions(monkeypatch, master):
    monkeypatch.setattr(topics.rospy, "Subscriber", lambda *_, **__: None)
    monkeypatch.setattr(topics.rospy.Time, "now", lambda: rospy.Time(1))
    return TopicSubscriptions(config(topics=[{"name": "/tf_static"}]))


def latched(publisher, data):
    return SimpleNamespace(_buff=data, _connection_header={"callerid": publisher, "latching": "1", "type": "x", "md5sum": "y"})


def test_the_latched_message_of_every_publisher_of_a_topic_is_kept_for_the_next_recording(subscriptions):
    assert subscriptions.silent(1.0) == ["/tf_static"]
    for publisher, data in (("/camera_left", b"old"), ("/camera_right", b"right"), ("/camera_left", b"left")):
        subscriptions._on_message(latched(publisher, data), "/tf_static")
    heard = []
    subscriptions.attach(heard.append, 5)
    assert {(raw.header["callerid"], raw.data, raw.stamp_ns) for raw in heard} == {
        ("/camera_left", b"left", 5), ("/camera_right", b"right", 5)}
    assert subscriptions.silent(0.0) == []


def test_what_a_publisher_latched_that_has_gone_since_does_not_go_into_the_next_bag(subscriptions, master):
    for publisher, data in (("/policy_node", b"A"), ("/mine", b"B"), ("/policy_node", b"C")):
        subscriptions._on_message(latched(publisher, data), "/tf_static")
    heard = []
    subscriptions.attach(heard.append, 5)
    assert [raw.data for raw in heard] == [b"B", b"C"], "the newest last; a master that does not answer has not lost one"
    master.publishers = ["/policy_node"]
    subscriptions.attach(heard.append, 6)
    assert [raw.data for raw in heard[2:]] == [b"C"]


@pytest.mark.parametrize("node, publishers", [("/camera", []), ("/killed", ["/killed"])])
def test_no_recording_starts_without_a_required_latched_topic_whose_publisher_has_gone(subscriptions, master, node, publishers):
    subscriptions._on_message(latched(node, b"A"), "/tf_static")
    assert subscriptions.wait(0.1) == [], "the master does not answer, so nothing is known of it"
    master.publishers = publishers
    assert subscriptions.wait(0.1) == ["/tf_static"]
    master.publishers = ["/another"]
    subscriptions._on_message(latched("/another", b"B"), "/tf_static")
    assert subscriptions.wait(0.1) == []


def test_a_node_whose_computer_cannot_be_resolved_may_live_and_one_that_refuses_does_not():
    def at(uri):
        return SimpleNamespace(lookupNode=lambda _name: uri)
    with socket.socket() as living:
        living.bind(("127.0.0.1", 0))
        living.listen()
        port = living.getsockname()[1]
        assert answers(at(f"http://127.0.0.1:{port}/"), "/x")
    assert not answers(at(f"http://127.0.0.1:{port}/"), "/x")
    assert answers(at("http://robot-pc.invalid:45123/"), "/x")


def test_a_folder_that_is_not_there_yet_has_the_room_of_the_disk_it_will_be_on(tmp_path):
    free = shutil.disk_usage(str(tmp_path)).free
    assert free_bytes_or_zero(tmp_path / "new" / "recordings") == pytest.approx(free, rel=0.2) and free > 0
