"""Recordings for the recorder's tests: messages as they come over the wire, written into bags in the test's folder; and a graph
of one process for its nodes."""
from __future__ import annotations

import io
import threading
from types import SimpleNamespace

import rospy
from sensor_msgs.msg import JointState
from std_srvs.srv import TriggerRequest

from hybridvla_core.configuration import from_mapping
from hybridvla_ros.recording.bag_writer import RawMessage
from hybridvla_ros.recording.config import RecordingConfig
from hybridvla_ros.recording.recording import Recording

PLENTY = 10 ** 15
BEGIN = 1_000_000_000_000


def config(folder="x", **changes):
    topics = [{"name": "/joints", "max_gap_s": 0.2}, {"name": "/note", "required": False}]
    return from_mapping(RecordingConfig, dict({"folder": folder, "topics": topics}, **changes), "recording")


def raw(topic, message, seconds, sequence=0, caller="/driver"):
    if hasattr(message, "header"):
        message.header.seq = sequence
    buffer = io.BytesIO()
    message.serialize(buffer)
    return RawMessage(topic, buffer.getvalue(), {
        "type": message._type, "md5sum": message._md5sum, "message_definition": message._full_text, "callerid": caller,
        "latching": "0"}, BEGIN + int(seconds * 1e9))


def joints(seconds, sequence=0):
    return raw("/joints", JointState(name=["a"], position=[seconds]), seconds, sequence)


def record(folder, name="one", count=20, period=0.05, free=PLENTY, **changes):
    made = Recording(folder, name, config(**changes), BEGIN, lambda _folder: free)
    for index in range(count):
        made.put(joints(index * period, index))
    return made


def finish(made, seconds=1.0, label="success", **more):
    return made.finish(label, BEGIN + int(seconds * 1e9), **more)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


class Graph:
    """Topics and services of one process: each published message reaches its callbacks on a separate thread, as in rospy."""

    def __init__(self, monkeypatch):
        self.ears, self.publishers, self.services = {}, {}, {}
        monkeypatch.setattr(rospy, "Publisher", self.publisher)
        monkeypatch.setattr(rospy, "Subscriber", self.subscriber)
        monkeypatch.setattr(rospy, "Service", self.service)
        monkeypatch.setattr(rospy, "on_shutdown", lambda _hook: None)
        monkeypatch.setattr(rospy.Time, "now", lambda: rospy.Time.from_sec(1000.0))

    def publisher(self, topic, *_, **__):
        self.publishers[topic] = self.publishers.get(topic, 0) + 1
        return SimpleNamespace(publish=lambda message: self.deliver(topic, message))

    def deliver(self, topic, message):
        for kind, ear in self.ears.get(topic, ()):
            handed = message
            if kind is rospy.AnyMsg:
                buffer = io.BytesIO()
                message.serialize(buffer)
                handed = SimpleNamespace(_buff=buffer.getvalue(), _connection_header={})
            threading.Thread(target=ear, args=(handed,), daemon=True).start()

    def subscriber(self, topic, kind, ear, *_, **__):
        self.ears.setdefault(topic, []).append((kind, ear))
        return SimpleNamespace(get_num_connections=lambda: self.publishers.get(topic, 0))

    def service(self, name, _kind, handler):
        self.services[name] = handler

    def call(self, name):
        return self.services[f"/hybridvla/{name}"](TriggerRequest())
