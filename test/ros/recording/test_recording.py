"""Bags: everything written can be read, every loss is counted, and a bag is complete or says why not."""
from __future__ import annotations

import json
import os
import shutil
import threading

import pytest
import rosbag
import rospy
from recordings import BEGIN, PLENTY, config, files, finish, joints, raw, record
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.files import sha256
from hybridvla_core.paths import ROOT
from hybridvla_ros.recording import recording as module
from hybridvla_ros.recording.bag_writer import BagWriter, begins_with_header
from hybridvla_ros.recording.config import RecordingConfig
from hybridvla_ros.recording.recorder_node import snapshot
from hybridvla_ros.recording.recording import Recording, RecordingError, recover
from hybridvla_ros.runtime.node_support import package_path


def test_a_complete_bag_has_every_message_an_index_a_hash_and_a_sidecar(tmp_path):
    made = record(tmp_path)
    made.writer.put_message("/note", String("hello"), BEGIN)
    made.instructions.append("put it there")
    assert files(tmp_path) == ["one.bag.active"]
    sidecar = finish(made)
    assert files(tmp_path) == ["one.bag", "one.json"]
    assert json.loads((tmp_path / "one.json").read_text()) == sidecar
    assert sidecar["complete"] and not sidecar["problems"] and sidecar["label"] == "success"
    assert sidecar["instructions"] == ["put it there"] and sidecar["duration_s"] == 1.0
    assert sidecar["sha256"] == sha256(tmp_path / "one.bag") and sidecar["bytes"] == (tmp_path / "one.bag").stat().st_size
    entry = sidecar["topics"]["/joints"]
    assert entry["written"] == 20 and entry["type"] == "sensor_msgs/JointState" and entry["rate_hz"] == pytest.approx(20.0)
    assert entry["longest_gap_s"] == pytest.approx(0.05)
    with rosbag.Bag(str(tmp_path / "one.bag")) as bag:
        got = [(message.position[0], stamp.to_nsec()) for _, message, stamp in bag.read_messages("/joints")]
        assert got == [(pytest.approx(index * 0.05), BEGIN + int(index * 0.05 * 1e9)) for index in range(20)]
        latched = [c.header.get("latching") for c in bag._get_connections() if c.topic == "/note"]
        assert latched in ([b"1"], ["1"])


@pytest.mark.parametrize("compression", ["none", "lz4", "bz2"])
def test_every_compression_is_read_back(tmp_path, compression):
    assert finish(record(tmp_path, compression=compression))["complete"]


def test_a_silence_in_the_middle_at_the_beginning_or_at_the_end_breaks_the_bag_and_says_where(tmp_path):
    for name, stamps, words in (("middle", (0.0, 0.1, 0.6, 0.7, 0.8, 0.9, 1.0), "silent for 0.50 s 0.10 s after"),
                                ("begin", (0.5, 0.6, 0.7, 0.8, 0.9, 1.0), "0.50 s at the beginning"),
                                ("end", (0.0, 0.1, 0.2, 0.3), "0.70 s at the end")):
        made = record(tmp_path, name, count=0)
        for index, seconds in enumerate(stamps):
            made.put(joints(seconds, index))
        sidecar = finish(made)
        assert not sidecar["complete"] and any(words in problem for problem in sidecar["problems"]), sidecar["problems"]
        assert (tmp_path / f"{name}.broken.bag").exists() and not (tmp_path / f"{name}.bag").exists()


def test_a_required_topic_that_never_spoke_breaks_the_bag(tmp_path):
    assert finish(record(tmp_path, count=0))["problems"] == ["/joints: no message"]


def test_messages_the_network_lost_are_seen_in_the_sequence_numbers(tmp_path):
    made = record(tmp_path, count=0)
    sequence = 0
    for index in range(20):
        sequence += 3 if index == 10 else 1
        made.put(joints(index * 0.05, sequence))
    sidecar = finish(made)
    assert sidecar["topics"]["/joints"]["missed"] == 2 and "/joints: 2 messages never arrived" in sidecar["problems"]


def test_two_publishers_and_a_restart_are_no_loss(tmp_path):
    made = record(tmp_path, count=0)
    for index in range(20):
        made.put(raw("/joints", JointState(), index * 0.05, 5000 + index if index % 2 else index // 2,
                     "/a" if index % 2 else "/b"))
    made.put(joints(1.0, 1))
    assert finish(made)["topics"]["/joints"]["missed"] <= 10  # here /a counts in twos, /b in ones
    made = record(tmp_path, "restart", count=10)
    for index in range(10):
        made.put(joints(0.5 + index * 0.05, index))
    assert finish(made)["topics"]["/joints"]["missed"] == 0


def test_what_the_disk_is_too_slow_for_is_dropped_counted_and_breaks_the_bag(tmp_path, monkeypatch):
    gate = threading.Event()
    write = BagWriter._write
    monkeypatch.setattr(BagWriter, "_write", lambda self, message: gate.wait(20) and write(self, message))
    made = Recording(tmp_path, "slow", config(queue_mb=1.0), BEGIN, lambda _folder: PLENTY)
    big = JointState(name=["n" * 100_000])
    for index in range(20):
        made.put(raw("/joints", big, index * 0.05, index))
    gate.set()
    sidecar = finish(made)
    entry = sidecar["topics"]["/joints"]
    assert entry["dropped"] > 5 and entry["written"] + entry["dropped"] == 20
    assert any("disk did not keep up" in problem for problem in sidecar["problems"])


def test_a_disk_that_fails_in_the_middle_ends_and_breaks_the_recording(tmp_path, monkeypatch):
    made = record(tmp_path, count=5)
    write, failing = BagWriter._write, threading.Event()

    def fail(self, message):
        if failing.is_set():
            raise OSError(28, "No space left on device")
        write(self, message)
    monkeypatch.setattr(BagWriter, "_write", fail)
    while made.writer.counts["/joints"].written < 5:
        assert made.writer._thread.is_alive()
    failing.set()
    made.put(joints(0.3, 6))
    while not made.writer.error:
        assert made.writer._thread.is_alive()
    assert "No space left" in made.must_end(BEGIN + 10 ** 9)
    sidecar = finish(made, cut_short=made.must_end(BEGIN + 10 ** 9))
    assert not sidecar["complete"] and sidecar["topics"]["/joints"]["dropped"] >= 1
    with rosbag.Bag(str(tmp_path / "one.broken.bag")) as bag:
        assert bag.get_message_count("/joints") >= 1, "what was written before can be read"


def test_too_little_disk_refuses_a_start_and_closes_a_running_recording_cleanly(tmp_path):
    with pytest.raises(RecordingError, match=r"only 5\.0 GB are free.*10 GB are needed"):
        record(tmp_path, free=5 * 10 ** 9)
    assert files(tmp_path) == []
    left = [11 * 10 ** 9]
    made = Recording(tmp_path, "low", config(), BEGIN, lambda _folder: left[0])
    for index in range(20):
        made.put(joints(index * 0.05, index))
    assert made.must_end(BEGIN + 10 ** 9) == ""
    left[0] = 10 ** 9
    reason = made.must_end(BEGIN + 10 ** 9)
    assert "only 1.0 GB are left" in reason
    sidecar = finish(made, label=None, cut_short=reason)
    assert not sidecar["complete"] and sidecar["label"] is None and "closed early: only 1.0 GB" in sidecar["problems"][0]
    with rosbag.Bag(str(tmp_path / "low.broken.bag")) as bag:
        assert bag.get_message_count() == 20


def test_a_recording_that_runs_too_long_is_ended(tmp_path):
    made = record(tmp_path, max_duration_s=5.0)
    assert made.must_end(BEGIN + 4 * 10 ** 9) == "" and "max_duration_s" in made.must_end(BEGIN + 6 * 10 ** 9)
    made.discard()
    assert files(tmp_path) == []


def test_nothing_is_overwritten(tmp_path):
    finish(record(tmp_path))
    with pytest.raises(RecordingError, match="never overwritten"):
        record(tmp_path)


def test_what_a_killed_recorder_left_is_marked_and_can_be_reindexed(tmp_path):
    record(tmp_path, count=2000)  # several chunks, the last one incomplete; never closed
    assert recover(tmp_path) == ["one"] and recover(tmp_path) == []
    sidecar = json.loads((tmp_path / "one.json").read_text())
    assert not sidecar["complete"] and "reindex" in sidecar["problems"][0] and files(tmp_path) == ["one.broken.bag", "one.json"]
    assert recover(tmp_path / "absent") == []


def test_a_bag_that_lacks_what_was_written_is_noticed_on_reading_it_again(tmp_path, monkeypatch):
    write = BagWriter._write

    def forget_the_first(self, message):
        if message.stamp_ns != BEGIN:
            write(self, message)
    monkeypatch.setattr(BagWriter, "_write", forget_the_first)
    made = record(tmp_path)
    sidecar = finish(made)
    assert "/joints: 20 messages were written, 19 are in the bag" in sidecar["problems"] and not sidecar["complete"]


def test_a_sidecar_is_whole_or_absent(tmp_path, monkeypatch):
    made = record(tmp_path)
    monkeypatch.setattr(module.json, "dump", lambda *_arguments, **_options: (_ for _ in ()).throw(OSError(28, "full")))
    sidecar = finish(made)
    assert not sidecar["complete"] and "sidecar failed" in sidecar["problems"][-1]
    assert files(tmp_path) == ["one.broken.bag"], "NAME.bag means complete, and a complete bag has a sidecar"


def test_a_bag_that_cannot_get_its_name_is_broken_and_its_sidecar_says_so(tmp_path, monkeypatch):
    made, replace = record(tmp_path), os.replace

    def refuse(source, target):
        if target.endswith("/one.bag"):
            raise OSError(5, "Input/output error")
        replace(source, target)
    monkeypatch.setattr(module.os, "replace", refuse)
    sidecar = finish(made)
    assert files(tmp_path) == ["one.broken.bag", "one.json"] and sidecar["bag"] == "one.broken.bag"
    assert json.loads((tmp_path / "one.json").read_text()) == sidecar and not sidecar["complete"]


def test_a_disk_that_is_pulled_ends_the_recording(tmp_path):
    made = Recording(tmp_path / "disk", "one", config(start_free_gb=0.0, stop_free_gb=0.0), BEGIN)
    made.put(joints(0.0))
    assert made.must_end(BEGIN) == ""
    shutil.rmtree(str(tmp_path / "disk"))
    reason = made.must_end(BEGIN)
    assert "does not answer any more (No such file or directory)" in reason
    sidecar = finish(made, cut_short=reason)
    assert not sidecar["complete"] and reason in sidecar["problems"][0] and "failed" in sidecar["problems"][-1]


def test_what_was_left_on_a_disk_that_cannot_be_written_is_refused_in_one_sentence_and_marked_later(tmp_path, monkeypatch):
    record(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_sidecar", lambda *_arguments: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
        with pytest.raises(RecordingError, match=r"cannot be marked as broken \(Read-only file system\)"):
            recover(tmp_path)
    assert files(tmp_path) == ["one.bag.active"] and recover(tmp_path) == ["one"]


def test_headers_are_known_by_the_definition():
    assert begins_with_header({"message_definition": JointState._full_text})
    assert not begins_with_header({"message_definition": String._full_text})
    assert not begins_with_header({"message_definition": "# Header header\nuint8 A=1\nint8 b\n"})
    assert begins_with_header({"message_definition": "uint8 A=1\nstd_msgs/Header header\n"}) and not begins_with_header({})


@pytest.mark.parametrize("path", sorted((ROOT / "config/recording").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recording_is_read_and_names_the_instruction(path):
    assert "/hybridvla/policy/instruction" in [topic.name for topic in load_file(RecordingConfig, path).topics]


@pytest.mark.parametrize("path", sorted((ROOT / "config/recording").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_shipped_recording_goes_into_the_package_where_an_install_space_would_lose_it(path):
    folder = package_path(load_file(RecordingConfig, path).folder)
    assert folder.is_absolute() and ROOT not in folder.parents


@pytest.mark.parametrize("changes, words", [
    ({"folder": " "}, "folder is empty"), ({"topics": []}, "topics is empty"), ({"compression": "zip"}, "zip"),
    ({"topics": [{"name": "/a"}, {"name": "/a"}]}, "/a is named twice"), ({"topics": [{"name": "a"}]}, "full topic name"),
    ({"stop_free_gb": 20.0}, "stop_free_gb"), ({"queue_mb": 0.0}, "queue_mb"), ({"folders": "x"}, "unknown key")])
def test_a_configuration_that_cannot_be_meant_is_refused(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        config(**changes)


def test_the_snapshot_holds_the_text_of_every_file_and_misses_none(tmp_path):
    (tmp_path / "calibration.yaml").write_text("front: [1, 2]\n")
    content = json.loads(snapshot([tmp_path / "calibration.yaml", ROOT / "config/robots/fr3.yaml"], "spacemouse"))
    assert content["files"]["calibration.yaml"]["text"] == "front: [1, 2]\n"
    assert content["files"]["fr3.yaml"]["sha256"] == sha256(ROOT / "config/robots/fr3.yaml")
    with pytest.raises(ConfigurationError, match=r"none\.yaml"):
        snapshot([tmp_path / "none.yaml"], "")


def test_a_message_stamp_is_kept_to_the_nanosecond(tmp_path):
    made = Recording(tmp_path, "ns", config(), BEGIN, lambda _folder: PLENTY)
    made.put(joints(0.0)._replace(stamp_ns=1_700_000_000_123_456_789))
    finish(made)
    with rosbag.Bag(str(tmp_path / "ns.broken.bag")) as bag:
        assert [stamp for _, _, stamp in bag.read_messages()] == [rospy.Time(1_700_000_000, 123_456_789)]
