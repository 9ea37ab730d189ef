"""What `hybridvla doctor --robot` keeps of the topics that it listens to, with the test's own master and subscribers."""
from __future__ import annotations

import weakref
from types import SimpleNamespace

import pytest
import rosgraph
import rospy
from sensor_msgs.msg import Image, JointState

from hybridvla_cli.doctor_parts import gather as part

JOINTS, IMAGES = "/joint_states", "/front/image"


class Picture(Image):
    """An image that accepts weak references: the message class itself has only slots."""


class StandInMaster:
    def __init__(self, name):
        self.name = name

    def getSystemState(self):
        return [[JOINTS, ["/right", "/left"]], [IMAGES, ["/cameras"]]], [], []

    def getTopicTypes(self):
        return [[JOINTS, "sensor_msgs/JointState"], [IMAGES, "sensor_msgs/Image"]]

    def hasParam(self, name):
        return False

    def lookupNode(self, node):
        raise rosgraph.MasterError("gone meanwhile")


@pytest.fixture
def looked(monkeypatch):
    """Return a function that gives gather()'s facts of the messages that its argument sends."""
    callbacks = {}

    def subscribe(topic, kind, callback, **_):
        callbacks[topic] = callback
        return SimpleNamespace(unregister=lambda: None)

    monkeypatch.setattr(rosgraph, "is_master_online", lambda: True)
    monkeypatch.setattr(rosgraph, "Master", StandInMaster)
    monkeypatch.setattr(rospy, "init_node", lambda *_, **__: None)
    monkeypatch.setattr(rospy, "Subscriber", subscribe)

    def look(send):
        monkeypatch.setattr(part.time, "sleep", lambda _: send(callbacks))
        return part.gather([JOINTS, IMAGES], [], [], "")
    return look


def sent_by(node, message):
    message._connection_header = {"callerid": node}
    return message


def test_the_joints_of_every_publisher_are_kept_and_not_of_the_last_message_alone(looked):
    def send(callbacks):
        for _ in range(3):
            callbacks[JOINTS](sent_by("/right", JointState(name=["r1", "r2"])))
            callbacks[JOINTS](sent_by("/left", JointState(name=["l1"])))
    stream = looked(send).streams[JOINTS]
    assert stream.count == 6 and stream.names == ("r1", "r2", "l1")
    assert stream.sent == (("/right", ("r1", "r2")), ("/left", ("l1",)))


def test_of_pictures_only_the_last_one_is_kept(looked):
    kept = []

    def send(callbacks):
        for width in range(1, 31):
            message = sent_by("/cameras", Picture(width=width, height=2, data=bytes(2 * width)))
            kept.append(weakref.ref(message))
            callbacks[IMAGES](message)
            del message
        assert [reference() is None for reference in kept] == [True] * 29 + [False]
    facts = looked(send)
    stream = facts.streams[IMAGES]
    assert (stream.count, stream.width, stream.height) == (30, 30, 2) and stream.bytes > 60 and stream.sent == ()
    assert facts.streams[JOINTS].count == 0 and facts.status == "" and facts.dry_run is None
