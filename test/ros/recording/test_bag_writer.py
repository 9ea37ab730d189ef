"""The bag writer with messages that it cannot write, with errors, and with several publishers of one topic."""
from __future__ import annotations

import rosbag
from recordings import BEGIN, finish, joints, raw, record
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from hybridvla_ros.recording.bag_writer import BagWriter


def without_definition(message, kind=None):
    header = {key: value for key, value in message.header.items() if key != "message_definition"}
    return message._replace(header=dict(header, **({"type": kind, "md5sum": "0" * 32} if kind else {})))


def test_a_publisher_that_sends_no_definition_is_recorded_by_the_installed_one(tmp_path):
    made = record(tmp_path, count=0)
    for index in range(20):
        made.put(without_definition(joints(index * 0.05, index)))
    assert finish(made)["complete"]
    with rosbag.Bag(str(tmp_path / "one.bag")) as bag:
        assert [message.name for _, message, _ in bag.read_messages("/joints")] == [["a"]] * 20


def test_a_type_that_nobody_defines_breaks_the_bag_by_name_and_the_other_topics_are_whole(tmp_path):
    made = record(tmp_path)
    for index in range(3):
        made.put(without_definition(raw("/note", String("x"), 0.3 * index, caller="/bridge"), "lab_msgs/Own"))
    made.put(joints(1.0, 20))
    sidecar = finish(made)
    assert not sidecar["complete"] and sidecar["topics"]["/note"]["seen"] == 3
    problem, = sidecar["problems"]
    assert problem.startswith("/note: 3 messages cannot be written: /bridge sends lab_msgs/Own without its definition")
    assert sidecar["topics"]["/joints"]["written"] == 21


def test_an_error_nobody_foresaw_ends_the_recording_by_name_and_nothing_seen_is_called_complete(tmp_path, monkeypatch):
    write = BagWriter._write

    def fail(self, message):
        if message.stamp_ns >= BEGIN + 5 * 10 ** 8:
            raise KeyError("conn")
        write(self, message)
    monkeypatch.setattr(BagWriter, "_write", fail)
    made = record(tmp_path)
    while not made.writer.error:
        assert made.writer._thread.is_alive()
    assert made.must_end(BEGIN + 10 ** 9) == "writing failed on /joints (KeyError: 'conn')"
    sidecar = finish(made)
    assert not sidecar["complete"] and sidecar["topics"]["/joints"]["written"] == 10
    assert "/joints: 10 messages dropped because the disk did not keep up" in sidecar["problems"]


def test_what_was_seen_and_not_written_breaks_the_bag_however_it_came_about(tmp_path, monkeypatch):
    monkeypatch.setattr(BagWriter, "_take", lambda self, message: None)
    sidecar = finish(record(tmp_path))
    assert not sidecar["complete"] and "/joints: 20 of 20 messages were seen and not written" in sidecar["problems"]


def test_publishers_of_one_topic_keep_their_names_in_the_bag(tmp_path):
    made = record(tmp_path, count=0)
    for index in range(20):
        made.put(raw("/joints", JointState(name=["a"]), index * 0.05, index // 2, f"/driver_{index % 2}"))
    assert finish(made)["complete"]
    with rosbag.Bag(str(tmp_path / "one.bag")) as bag:
        found = [message.connection_header["callerid"] for message in bag.read_messages(return_connection_header=True)]
        assert bag.get_message_count("/joints") == 20
    assert [str(name, "utf-8") if isinstance(name, bytes) else name for name in found] == ["/driver_0", "/driver_1"] * 10
