"""`hybridvla replay` on bags as labs have them: older messages, odd names and times, several publishers, differing clocks."""
from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import replay_bag
import rosbag
import rospy
from recordings import finish, raw, record
from replay_bag import BEGIN, FRONT, INSTRUCTION, JOINTS, TOLD
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from still_policy import replay, without_a_model

from hybridvla.msg import SafetyStatus
from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.replay.bags import BagShelf
from hybridvla_ros.replay.frames import FrameSource
from hybridvla_ros.replay.reading import write_restamped

STATUS = "/hybridvla/safety/status"


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    without_a_model(monkeypatch)


@pytest.fixture(scope="module")
def recording():
    return replay_bag.Motion(5.0)


@pytest.fixture(scope="module")
def bag(recording, tmp_path_factory):
    return replay_bag.write(tmp_path_factory.mktemp("bags") / "good.bag", recording)


def rewritten(source, target, change):
    """Rewrite a bag; return the target. change: (topic, message, time) -> list of (topic, message, time); may be raw."""
    with rosbag.Bag(str(source)) as whole, rosbag.Bag(str(target), "w") as out:
        for topic, message, when in whole.read_messages():
            for new_topic, new, new_when in change(topic, message, when):
                out.write(new_topic, new, new_when, raw=isinstance(new, tuple))
    return target


def test_older_definitions_of_our_messages_are_left_out_in_one_sentence_and_the_rest_is_judged(bag, tmp_path):
    changed = rewritten(bag, tmp_path / "older.bag", lambda topic, message, when: [
        (topic, message, when), *([(STATUS, replay_bag.older(SafetyStatus, "uint8 state\n"), when)] if topic == JOINTS else [])])
    result = replay(changed, rate=2.0)
    note, = [text for text in result.notes if "MD5" in text]
    assert "older.bag" in note and STATUS in note and "hybridvla/SafetyStatus" in note and "250 messages" in note
    assert result.summary["frames"] == replay(bag, rate=2.0).summary["frames"]


def test_a_bag_that_fails_in_a_way_nobody_foresaw_does_not_end_the_run(bag, tmp_path, monkeypatch):
    shutil.copy(str(bag), str(tmp_path / "a_bad.bag"))
    shutil.copy(str(bag), str(tmp_path / "b_good.bag"))
    replay_bag.fail_to_scan(monkeypatch, "a_bad.bag", AttributeError("'_x' object has no attribute 'y'"))
    result = replay(tmp_path, rate=2.0)
    text, = result.unread
    assert text.startswith("a_bad.bag: cannot be read (AttributeError: '_x' object has no attribute 'y')")
    assert result.summary["frames"] > 5 and result.summary["verdict"] == "fail"


def test_a_folder_without_bags_does_not_end_the_run(bag, tmp_path):
    result = replay(tmp_path, bag, rate=2.0)
    assert result.unread == [f"{tmp_path}: no .bag file in this folder"] and result.summary["frames"] > 5
    with pytest.raises(HybridVLAError, match="no .bag file in this folder"):
        replay(tmp_path)


def test_a_bag_that_fails_in_the_second_pass_keeps_its_frames_and_the_others_go_on(bag, tmp_path, monkeypatch):
    shutil.copy(str(bag), str(tmp_path / "a_bad.bag"))
    shutil.copy(str(bag), str(tmp_path / "b_good.bag"))
    periodic = FrameSource._periodic

    def fail(self):
        if self._found.name == "a_bad.bag" and self._now > BEGIN + 2.0:
            raise TypeError("late")
        return periodic(self)
    monkeypatch.setattr(FrameSource, "_periodic", fail)
    result = replay(tmp_path, rate=2.0)
    assert result.unread == ["a_bad.bag: cannot be read (TypeError: late); the file may be damaged"]
    assert {row.recording for row in result.contenders[0].evaluator.rows} == {0, 1}


@pytest.mark.long
@pytest.mark.parametrize("prefix", ["", "run_"])
def test_parts_named_by_the_date_are_one_recording_and_two_first_parts_are_two(bag, tmp_path, prefix):
    names = [f"{prefix}2026-11-28-00-55-0{second}_{part}.bag" for second, part in ((2, 0), (4, 1))]
    for number, name in enumerate(names):
        rewritten(bag, tmp_path / name, lambda topic, message, when, number=number: [
            (topic, message, when)] if int(when.to_sec() > BEGIN + 2.5) == number else [])
    result = replay(tmp_path, rate=2.0)
    assert result.summary["recordings"] == 1 and not result.unread
    assert result.summary["frames"] == replay(bag, rate=2.0).summary["frames"]
    shutil.move(str(tmp_path / names[1]), str(tmp_path / names[1].replace("_1.bag", "_0.bag")))
    assert replay(tmp_path, rate=2.0, instruction=INSTRUCTION).summary["recordings"] == 2


def test_what_was_recorded_before_time_ran_counts_as_recorded_at_the_begin(bag, tmp_path):
    early = rewritten(bag, tmp_path / "early.bag", lambda topic, message, when: [
        (topic, message, rospy.Time(0, 1) if topic == TOLD else when)])
    result = replay(early, rate=2.0)
    assert any("1 message recorded before time ran" in note for note in result.notes)
    assert result.summary["recorded_s"] == pytest.approx(5.0, abs=0.1) and result.summary["frames"] > 5
    assert not [text for text in result.summary["reasons"] if "nothing before" in text]


def test_simulated_time_that_begins_at_zero_is_left_as_it_is(recording, tmp_path):
    bag = replay_bag.write(tmp_path / "real.bag", recording)
    def at_zero(topic, message, when):
        if hasattr(message, "header"):
            message.header.stamp = rospy.Time.from_sec(message.header.stamp.to_sec() - BEGIN + 0.01)
        return [(topic, message, rospy.Time.from_sec(when.to_sec() - BEGIN + 0.01))]
    result = replay(rewritten(bag, tmp_path / "sim.bag", at_zero), rate=2.0)
    assert not any("before time ran" in note for note in result.notes) and result.summary["frames"] > 5


def test_a_bag_that_is_given_twice_is_read_once_with_a_note(bag, tmp_path):
    shutil.copy(str(bag), str(tmp_path / "run.bag"))
    (tmp_path / "same.bag").symlink_to(tmp_path / "run.bag")
    result = replay(tmp_path / "run.bag", tmp_path, rate=2.0)
    assert result.summary["recordings"] == 1 and not result.unread
    assert [note for note in result.notes if "given more than once" in note] == [
        f"{tmp_path / name}: given more than once; it is read once" for name in ("run.bag", "same.bag")]


@pytest.mark.long
def test_the_backup_of_a_reindexed_bag_is_left_out_beside_it_and_read_alone(bag, tmp_path):
    shutil.copy(str(bag), str(tmp_path / "run.bag"))
    shutil.copy(str(bag), str(tmp_path / "run.orig.bag"))
    for given in ([tmp_path], [tmp_path / "run.orig.bag", tmp_path / "run.bag"]):
        result = replay(*given, rate=2.0)
        assert result.summary["recordings"] == 1 and any("run.orig.bag: left out" in note for note in result.notes)
    assert replay(tmp_path / "run.orig.bag", rate=2.0).summary["recordings"] == 1


def test_an_instruction_that_is_not_utf_8_is_refused_by_name_unless_one_is_given(bag, tmp_path):
    data = "把红色方块放好".encode("gbk")
    raw = (String._type, len(data).to_bytes(4, "little") + data, String._md5sum, String)
    gbk = rewritten(bag, tmp_path / "gbk.bag", lambda topic, message, when: [(topic, raw if topic == TOLD else message, when)])
    with pytest.raises(HybridVLAError, match=r"gbk\.bag: the text on /hybridvla/policy/instruction is not UTF-8.*--instruction"):
        replay(gbk, rate=2.0)
    assert replay(gbk, rate=2.0, instruction=INSTRUCTION).summary["frames"] > 5


# Publishers ------------------------------------------------------------------------------------------------------


def zeros(message):
    return JointState(message.header, message.name, [0.0] * len(message.name), [], [])


def bases(result):
    return np.array([row.bases[0].position for row in result.contenders[0].evaluator.rows])


@pytest.mark.long
def test_two_publishers_of_the_joints_are_named_and_never_mixed(bag, recording, tmp_path):
    made = record(tmp_path, "two", count=0, topics=[{"name": JOINTS, "required": False}])
    with rosbag.Bag(str(bag)) as source:
        for topic, message, when in source.read_messages():
            late = [(zeros(message), "/joint_state_publisher", 0.002)] if topic == JOINTS else []
            for sent, caller, after in [(message, "/driver", 0.0), *late]:
                made.put(raw(topic, sent, 0.0, caller=caller)._replace(stamp_ns=when.to_nsec() + int(after * 1e9)))
    finish(made)
    result = replay(next(tmp_path.glob("two*.bag")), rate=2.0)
    assert any("/driver and by /joint_state_publisher" in text for text in result.summary["reasons"])
    np.testing.assert_allclose(bases(result), bases(replay(bag, rate=2.0)), atol=1e-9)


@pytest.mark.long
def test_joints_that_jump_to_and_fro_are_named_and_never_mixed_where_the_bag_has_no_names(bag, tmp_path):
    two = rewritten(bag, tmp_path / "two.bag", lambda topic, message, when: [(topic, message, when), *(
        [(topic, zeros(message), when + rospy.Duration.from_sec(0.002))] if topic == JOINTS else [])])
    result = replay(two, rate=2.0)
    assert any("250 of 500 joint states jump" in text and "two nodes" in text for text in result.summary["reasons"])
    np.testing.assert_allclose(bases(result), bases(replay(bag, rate=2.0)), atol=1e-9)


def test_two_publishers_of_the_images_are_named_and_one_is_read(bag, tmp_path):
    made = record(tmp_path, "two", count=0, topics=[{"name": JOINTS, "required": False}])
    with rosbag.Bag(str(bag)) as source:
        for topic, message, when in source.read_messages():
            for caller in ("/camera", "/player") if topic.startswith(FRONT) else ("/camera",):
                made.put(raw(topic, message, 0.0, caller=caller)._replace(stamp_ns=when.to_nsec()))
    finish(made)
    result = replay(next(tmp_path.glob("two*.bag")), rate=2.0)
    assert any("by /camera and by /player" in text and "one is read" in text for text in result.summary["reasons"])
    assert result.summary["bags"][0]["streams"]["camera front"]["messages"] == 50


# Clocks and names ------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("ahead", [0.06, 0.15, 0.4])
def test_a_camera_clock_ahead_is_said_and_the_newest_images_that_states_reach_are_used(bag, tmp_path, ahead):
    def change(topic, message, when):
        if topic.startswith(FRONT):
            message.header.stamp += rospy.Duration.from_sec(ahead)
        return [(topic, message, when)]
    result = replay(rewritten(bag, tmp_path / "ahead.bag", change), rate=2.0)
    assert result.summary["frames"] >= replay(bag, rate=2.0).summary["frames"] - 1
    said = f"camera front: its stamps are {ahead - 0.004:.3f} s ahead of this computer's clock"
    assert any(said in note for note in result.notes), result.notes
    assert result.summary["errors"]["compared"] > 3


@pytest.mark.long
@pytest.mark.parametrize("change", ["none", "recorded anew"])
def test_the_time_of_recording_replaces_stamps_that_mean_nothing(bag, tmp_path, change):
    def restamped(topic, message, when):
        if hasattr(message, "header"):
            message.header.stamp = rospy.Time(0) if change == "none" else message.header.stamp - rospy.Duration(30 * 86400)
        return [(topic, message, when)]
    odd = rewritten(bag, tmp_path / "odd.bag", restamped)
    if change == "none":
        with pytest.raises(HybridVLAError, match=r"carry no stamp.*--stamps recording"):
            replay(odd, rate=2.0)
    else:
        result = replay(odd, rate=2.0)
        assert result.summary["frames"] == 0 and any("--stamps recording" in text for text in result.summary["reasons"])
        assert any("nothing was predicted at all" in text for text in result.summary["reasons"])
    result, good = replay(odd, rate=2.0, stamps="recording"), replay(bag, rate=2.0)
    assert abs(result.summary["frames"] - good.summary["frames"]) <= 1 and result.summary["errors"]["compared"] > 3


def test_a_bag_to_be_played_gets_the_time_of_recording_for_its_stamps_and_nothing_else(bag, tmp_path):
    bare = rewritten(bag, tmp_path / "bare.bag", lambda topic, message, when: [(topic, message, when)])
    topics = [JOINTS, FRONT + "/compressed", TOLD]
    with BagShelf() as shelf:
        begin = write_restamped([shelf.open(bare)], topics, tmp_path / "played.bag")
    with rosbag.Bag(str(bare)) as one, rosbag.Bag(str(tmp_path / "played.bag")) as other:
        pairs = list(zip(one.read_messages(topics=topics), other.read_messages()))
        assert len(pairs) == one.get_message_count(topics) == other.get_message_count() and begin == other.get_start_time()
        for (topic, before, when), (played, after, played_when) in pairs:
            assert topic == played and abs((when - played_when).to_sec()) < 1e-6
            if hasattr(after, "header"):
                assert abs((after.header.stamp - when).to_sec()) < 1e-6 and before.header.stamp != after.header.stamp
                after.header.stamp = before.header.stamp
            assert after == before
    with pytest.raises(HybridVLAError, match="cannot be written.*room"), BagShelf() as shelf:
        write_restamped([shelf.open(bare)], topics, tmp_path / "no folder" / "played.bag")


def test_other_joint_names_are_said_with_those_that_are_wanted(recording, tmp_path):
    def theirs(topic, now, message, stamp):
        if topic == JOINTS:
            message.name = [name.replace("fr3_", "panda_") for name in message.name]
        return message, stamp
    with pytest.raises(HybridVLAError, match="they name panda_joint1.*expected are fr3_joint1.*topic map"):
        replay(replay_bag.write(tmp_path / "theirs.bag", recording, change=theirs))


def test_a_gripper_in_mm_is_named(recording, tmp_path):
    def in_mm(topic, now, message, stamp):
        if topic == JOINTS:
            message.position = [*message.position[:7], *(1000.0 * value for value in message.position[7:])]
        return message, stamp
    result = replay(replay_bag.write(tmp_path / "mm.bag", recording, change=in_mm), rate=2.0)
    assert any("the gripper reads" in text and "other units" in text for text in result.summary["reasons"])
    assert json.dumps(result.summary["reasons"]).count("the gripper reads") <= 3
