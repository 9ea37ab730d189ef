"""`hybridvla replay` on other people's bags and on broken ones: what is read, what is reported, what is ignored."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import replay_bag
import rosbag
from replay_bag import FRONT, INSTRUCTION, JOINTS, ROOT
from still_policy import replay, without_a_model

from hybridvla_core.errors import HybridVLAError

OTHER = "put the red block on the green pad"


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """Use no model: nothing here depends on predictions, and the filter's checks have a test of their own."""
    without_a_model(monkeypatch)


@pytest.fixture(scope="module")
def recording():
    return replay_bag.Motion()


@pytest.fixture(scope="module")
def bag(recording, tmp_path_factory):
    return replay_bag.write(tmp_path_factory.mktemp("bags") / "good.bag", recording)


# Recordings with faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change, words", [
    (lambda topic, now, message, stamp: None if topic.startswith(FRONT) and now > 4.0 else (message, stamp),
     ("camera front", "dead from")),
    (lambda topic, now, message, stamp: (message, stamp + 3.0) if topic.startswith(FRONT) and now > 4.0
     else (message, stamp), ("camera front", "jump by +3")),
    (lambda topic, now, message, stamp: (renamed(message), stamp) if topic == JOINTS and now > 4.0 else (message, stamp),
     ("joint names change", "panda_joint1"))])
def test_what_breaks_while_recording_is_reported_with_its_time(recording, tmp_path, change, words):
    result = replay(replay_bag.write(tmp_path / "broken.bag", recording, change=change), rate=2.0)
    found = [text for text in result.summary["reasons"] if all(word in text for word in words)]
    assert result.summary["verdict"] == "fail" and found, result.summary["reasons"]
    events = [event for stream in result.summary["bags"][0]["streams"].values() for event in stream["events"]]
    assert any(abs(event["time_s"] - 4.0) < 0.3 for event in events)


def renamed(message):
    message.name = [name.replace("fr3_", "panda_") for name in message.name]
    return message


@pytest.mark.long
def test_other_peoples_topics_are_mapped(recording, tmp_path):
    def theirs(topic, now, message, stamp):
        return (renamed(message), stamp) if topic == JOINTS else (message, stamp)

    bag = replay_bag.write(tmp_path / "theirs.bag", recording, front="/cam0/compressed", change=theirs, info=False)
    with pytest.raises(HybridVLAError, match="no images of view front.*cam0"):
        replay(bag)
    fingers = ["panda_finger_joint1", "panda_finger_joint2"]
    (tmp_path / "map.yaml").write_text(json.dumps({
        "images": {"front": "/cam0/compressed"}, "joint_names": {"arm": [f"panda_joint{i}" for i in range(1, 8)]},
        "finger_names": {"arm": fingers}}))
    result = replay(bag, topics=tmp_path / "map.yaml", rate=2.0)
    assert result.summary["frames"] > 10 and any("no camera info" in note for note in result.notes)
    assert not any(stream["events"] for stream in result.summary["bags"][0]["streams"].values())


@pytest.mark.long
def test_several_instructions_in_one_bag_are_told_apart(recording, tmp_path):
    bag = replay_bag.write(tmp_path / "two.bag", recording, instructions=((0.0, INSTRUCTION), (5.0, OTHER)))
    result = replay(bag, rate=2.0)
    assert set(result.summary["errors"]["by_instruction"]) <= {INSTRUCTION, OTHER}
    assert {row.instruction for row in result.contenders[0].evaluator.rows} == {INSTRUCTION, OTHER}


# Bad input -------------------------------------------------------------------------------------------------------


def split(source, folder, parts=2):
    """Write the recording as `rosbag record --split` would."""
    with rosbag.Bag(str(source)) as whole:
        begin, span = whole.get_start_time(), whole.get_end_time() - whole.get_start_time()
        outs = [rosbag.Bag(str(folder / f"part_{k}.bag"), "w") for k in range(parts)]
        for topic, message, when in whole.read_messages():
            outs[min(int((when.to_sec() - begin) / span * parts), parts - 1)].write(topic, message, when)
        for out in outs:
            out.close()


@pytest.mark.long
def test_a_split_recording_is_one_and_a_folder_goes_on_past_bad_bags(bag, tmp_path):
    split(bag, tmp_path)
    (tmp_path / "not_a.bag").write_text("hello")
    (tmp_path / "nothing.bag").write_bytes(b"")
    with rosbag.Bag(str(tmp_path / "empty.bag"), "w"):
        pass
    whole = replay(bag, rate=2.0)
    result = replay(tmp_path, rate=2.0)
    assert result.summary["recordings"] == 1 and result.summary["frames"] == whole.summary["frames"]
    assert result.summary["verdict"] == "fail" and len(result.unread) == 3
    told = " ".join(result.unread)
    assert "not a ROS 1 bag" in told and "the file is empty" in told and "holds no message" in told


def test_a_truncated_bag_is_read_from_a_copy_and_not_touched(bag, tmp_path):
    broken = tmp_path / "cut.bag"
    broken.write_bytes(bag.read_bytes()[:int(bag.stat().st_size * 0.7)])
    before = broken.read_bytes()
    result = replay(broken, rate=2.0)
    assert any("re-indexed copy" in note for note in result.notes) and result.summary["frames"] > 3
    assert broken.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["cut.bag"]
    broken.write_bytes(bag.read_bytes()[:3000])
    with pytest.raises(HybridVLAError, match="cut.bag"):
        replay(broken)


@pytest.mark.long
def test_missing_topics_and_instructions_are_said(recording, tmp_path):
    silent = replay_bag.write(tmp_path / "silent.bag", recording, instructions=())
    with pytest.raises(HybridVLAError, match="no instruction.*--instruction"):
        replay(silent)
    assert replay(silent, instruction=INSTRUCTION, rate=2.0).summary["frames"] > 5
    armless = replay_bag.write(tmp_path / "armless.bag", recording,
                               change=lambda topic, now, message, stamp: None if topic == JOINTS else (message, stamp))
    with pytest.raises(HybridVLAError, match="joint states of arm arm are missing"):
        replay(armless)


def test_an_unknown_message_type_is_named(bag, tmp_path):
    from std_msgs.msg import String

    strange = tmp_path / "strange.bag"
    with rosbag.Bag(str(bag)) as source, rosbag.Bag(str(strange), "w") as out:
        for topic, message, when in source.read_messages():
            out.write(FRONT if topic.startswith(FRONT) else topic, String("?") if topic.startswith(FRONT) else message, when)
    with pytest.raises(HybridVLAError, match="std_msgs/String; images must be"):
        replay(strange)


def test_a_checkpoint_for_other_cameras_or_another_arm_is_refused(bag, tmp_path):
    import yaml

    config = yaml.safe_load((ROOT / "config/policies/tiny.yaml").read_text())
    config["cameras"][0]["view"] = "side"
    (tmp_path / "side.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(HybridVLAError, match="cameras"):
        replay(bag, policy_config=tmp_path / "side.yaml")
    with pytest.raises(HybridVLAError, match="arms"):
        replay(bag, robot_config=Path(ROOT / "config/robots/sim_dual.yaml"))
