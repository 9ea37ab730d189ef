"""What the recorder hears: latched messages by publisher, living nodes by their computer's word, and the disk of a new folder."""
from __future__ import annotations

import shutil
import socket
from types import SimpleNamespace

import pytest
import rospy
from recordings import config

from hybridvla_ros.recording import topics
from hybridvla_ros.recording.recorder_node import free_bytes_or_zero
from hybridvla_ros.recording.topics import TopicSubscriptions, answers


@pytest.fixture
def subscriptions(monkeypatch):
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
