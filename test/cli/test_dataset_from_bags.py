"""`hybridvla dataset` on bags as a robot records them and on broken ones: what becomes a row, what is flagged and why."""
from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import replay_bag
import rosbag
import rospy
import yaml
from replay_bag import BEGIN, FRONT, INSTRUCTION, JOINTS, ROOT
from sensor_msgs.msg import CompressedImage

from hybridvla.msg import ActionProposal, ArmSafety, ArmTarget, EpisodeEvent, SafetyStatus
from hybridvla_cli.__main__ import main
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Pose
from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.geometry import rotations
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.transforms.conventions import action_to_targets, euler_to_rotation
from hybridvla_ros.messages.conversions import pose_message


@pytest.fixture(scope="module")
def motion():
    return replay_bag.Motion(6.0)


def run_verb(folder, *bags, policy=None, options=()):
    """Runs the verb and returns (exit status, summary, data set or None)."""
    out, summary = folder / "set", folder / "summary.json"
    arguments = ["dataset", "from-bags", *map(str, bags), "-o", str(out), "--json", str(summary), "--validation", "0"]
    if policy is not None:
        arguments += ["--policy-config", str(policy)]
    status = main([*arguments, *options])
    said = json.loads(summary.read_text()) if summary.exists() else None
    return status, said, LeRobotDataset(out) if out.exists() else None


@pytest.fixture
def result(tmp_path):
    return lambda *bags, **more: run_verb(tmp_path, *bags, **more)


def policy_file(tmp_path, second_view=False, **convention):
    data = yaml.safe_load((ROOT / "config/policies/tiny.yaml").read_text())
    data["convention"].update(convention)
    if second_view:
        data["cameras"].append({**data["cameras"][0], "view": "wrist", "image_topic": "/camera_wrist/color/image_raw",
                                "camera_info_topic": None})
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def add(path, topic, messages):
    with rosbag.Bag(str(path), "a") as bag:
        for stamp, message in messages:
            message.header.stamp = rospy.Time.from_sec(BEGIN + stamp)
            bag.write(topic, message, rospy.Time.from_sec(BEGIN + stamp + 0.001))


def test_every_frame_leads_to_the_next_keyframe(result, motion, tmp_path):
    status, summary, data = result(replay_bag.write(tmp_path / "a.bag", motion), options=["--report", str(tmp_path / "p.html")])
    assert status == 0 and summary["episodes"] == 1 and data.description.labels == layout.NEXT_KEYFRAME
    convention = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml").convention
    rows = data.rows(0)
    assert len(rows.state) > 20
    # The arm swings its base between 0 and 0.4 rad: every label leads to one of the two ends, wherever the row is.
    ends = np.array([row[:3] + action[:3] for row, action in zip(rows.state, rows.action)])
    angles = np.arctan2(ends[:, 1], ends[:, 0])
    assert np.minimum(np.abs(angles), np.abs(angles - 0.4)).max() < 0.05 and set(np.round(rows.action[:, 6])) == {0.0, 1.0}
    assert data.sample(0).instruction == INSTRUCTION and data.sample(0).success is None
    assert json.loads(json.dumps(data.description.convention))["delta_base"] == convention.delta_base
    page = (tmp_path / "p.html").read_text()
    assert page.index("Flagged") < page.index("Statistics") < page.index("data:image/jpeg")


def statuses(motion, **changes):
    """Return a filter's statuses at 20 Hz; what it sent, or would have sent, is 1 cm above the measured arm."""
    arm = load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml").arms[0]
    kinematics, found = ArmKinematics(arm), []
    for when, joints in motion.joints[::5]:
        position, matrix = kinematics.pose(joints[:7])
        tool = Pose(position + np.array([0.0, 0.0, 0.01]), rotations.to_quaternion(matrix))
        sent = ArmSafety(name=arm.name, target=pose_message(tool, "fr3_link0", when))
        found.append((when - BEGIN, SafetyStatus(arms=[sent], **changes)))
    return found


@pytest.mark.parametrize("status, options, above", [
    (dict(state=SafetyStatus.ACTIVE), (), 0.01),
    (dict(state=SafetyStatus.ACTIVE, dry_run=True), (), 0.0),             # computed but not sent
    (dict(state=SafetyStatus.ACTIVE), ("--everything",), 0.0),
    (dict(state=SafetyStatus.INACTIVE), ("--everything",), 0.0)])         # led by hand
def test_keyframes_are_what_was_sent_and_only_what_was_sent(result, motion, tmp_path, status, options, above):
    bag = replay_bag.write(tmp_path / "a.bag", motion)
    add(bag, "/hybridvla/safety/status", statuses(motion, **status))
    ended, _, data = result(bag, options=options)
    rows = data.rows(0)
    assert ended == 0 and len(rows.state) > 20
    # The arm swings only its base, so its height never changes.
    np.testing.assert_allclose(rows.state[:, 2] + rows.action[:, 2], rows.state[0, 2] + above, atol=1e-3)


FIRST = [0.5, 0.1, 0.9, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("status, options", [
    (None, ()), (dict(state=SafetyStatus.ACTIVE), ()),       # the arm was moved by other means, with no filter or an idle one
    (dict(state=SafetyStatus.INACTIVE, epoch=5, sequence=3), ("--everything",))])
def test_without_a_command_that_was_executed_the_state_is_the_measured_pose_and_the_bag_is_flagged(
        result, motion, tmp_path, status, options):
    bag = replay_bag.write(tmp_path / "a.bag", motion)
    if status is not None:
        add(bag, "/hybridvla/safety/status", statuses(motion, **status))
    policy = policy_file(tmp_path, state_source="last_command", first_state=FIRST, delta_base="measured")
    ended, summary, data = result(bag, policy=policy, options=options)
    state = data.rows(0).state
    assert ended == 0 and np.ptp(state[:, 1]) > 0.1 and not np.isclose(state, FIRST).all(axis=1).any()
    assert [entry["kept"] for entry in summary["flagged"] if "the states are the measured poses" in entry["reason"]] == [True]


def test_the_first_state_stands_before_the_first_command_alone(result, motion, tmp_path):
    bag = replay_bag.write(tmp_path / "a.bag", motion)
    early = statuses(motion, state=SafetyStatus.ACTIVE)
    later = statuses(motion, state=SafetyStatus.ACTIVE, epoch=5, sequence=3)
    add(bag, "/hybridvla/safety/status", [(when, late if when > 0.8 else soon) for (when, soon), (_, late) in zip(early, later)])
    policy = policy_file(tmp_path, state_source="last_command", first_state=FIRST, delta_base="measured")
    ended, summary, data = result(bag, policy=policy)
    first = np.isclose(data.rows(0).state, FIRST).all(axis=1)
    assert ended == 0 and first[:5].all() and not first[10:].any()
    assert not any("measured poses" in entry["reason"] for entry in summary["flagged"])


def test_the_gripper_in_the_state_is_the_one_of_the_chunks_row_that_is_due(result, motion, tmp_path):
    bag = replay_bag.write(tmp_path / "a.bag", motion)
    add(bag, "/hybridvla/safety/status", statuses(motion, state=SafetyStatus.ACTIVE, epoch=5, sequence=3))
    targets = [ArmTarget(name="arm", gripper=opening) for opening in (1.0, 0.0)]
    add(bag, "/hybridvla/policy/proposal", [(0.0, ActionProposal(
        epoch=5, sequence=3, chunk=2, action_period=rospy.Duration(1.0), targets=targets))])
    policy = policy_file(tmp_path, state_source="last_command", first_state=FIRST, delta_base="measured", action_period_s=0.1)
    _, _, data = result(bag, policy=policy)
    grips = data.rows(0).state[:, 6]
    assert set(np.round(grips[:8], 3)) == {1.0} and set(np.round(grips[12:], 3)) == {0.0}


def test_rows_led_by_hand_beside_those_of_a_policy_show_no_first_state(result, motion, tmp_path):
    bag = replay_bag.write(tmp_path / "a.bag", motion)
    acted = statuses(motion, state=SafetyStatus.ACTIVE, epoch=5, sequence=3)
    idle = statuses(motion, state=SafetyStatus.INACTIVE)
    add(bag, "/hybridvla/safety/status", [(when, here if when < 2.0 else there) for (when, here), (_, there) in zip(acted, idle)])
    policy = policy_file(tmp_path, state_source="last_command", first_state=FIRST, delta_base="measured")
    _, _, data = result(bag, policy=policy, options=("--everything",))
    assert not np.isclose(data.rows(0).state[4:], FIRST).all(axis=1).any()


def test_dense_actions_add_up_to_the_recorded_motion(result, motion, tmp_path):
    policy = policy_file(tmp_path, action_period_s=0.1)
    status, _, data = result(replay_bag.write(tmp_path / "a.bag", motion), policy=policy)
    assert status == 0 and data.description.labels == layout.NEXT_POSE and data.fps == 10.0
    sample, rows = data.sample(0, chunk=8), data.rows(0)
    convention = load_file(PolicyConfig, policy).convention
    base = Pose(rows.state[0][:3], euler_to_rotation(convention, rows.state[0][3:6], None).as_quat())
    reached = [step[0][0].position for step in action_to_targets(convention, sample.actions, [base])]
    np.testing.assert_allclose(reached, rows.state[1:9, :3], atol=2e-3)


def without_fingers(topic, when, message, stamp):
    if topic == JOINTS:
        message.name, message.position = message.name[:-2], message.position[:-2]
    return message, stamp


def test_keyframes_alone_make_chunks(result, motion, tmp_path):
    _, _, data = result(replay_bag.write(tmp_path / "a.bag", motion), options=["--keyframes"])
    sample = data.sample(0, chunk=2)
    assert 2 <= len(data) < 8 and not sample.padding.any()
    np.testing.assert_allclose(sample.state[:3] + sample.actions[0, :3], data.sample(1).state[:3], atol=0.02)


def test_labels_split_a_bag_and_takeovers_are_marked(result, motion, tmp_path):
    bag = replay_bag.write(tmp_path / "a.bag", motion)
    events = ((0.1, EpisodeEvent.START), (2.4, EpisodeEvent.SUCCESS), (2.5, EpisodeEvent.START), (3.0, EpisodeEvent.DISCARD),
              (3.1, EpisodeEvent.START), (5.0, EpisodeEvent.FAILURE))
    add(bag, "/hybridvla/episode/event", [(at, EpisodeEvent(event=event)) for at, event in events])
    add(bag, "/hybridvla/policy/proposal", [(at, ActionProposal(checkpoint_sha256=sha)) for at, sha in (
        (0.2, "a" * 64), (1.0, "a" * 64), (1.1, ""), (1.3, ""), (9.0, "a" * 64))])
    _, summary, data = result(bag)
    assert summary["episodes"] == 1 and summary["success"] == 1
    reasons = {entry["episode"]: entry["reason"] for entry in summary["flagged"]}
    assert "discard" in reasons["a.bag #2"] and "failure" in reasons["a.bag #3"]
    corrections = [data.sample(i).correction for i in range(len(data))]
    assert not corrections[0] and corrections[-1] and sorted(corrections) == corrections


def change_joints(factor):
    def change(topic, when, message, stamp):
        if topic == JOINTS:
            message.position = [value * factor for value in message.position]
        return message, stamp
    return change


def still(topic, when, message, stamp):
    if topic == JOINTS:
        message.position = [0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785, 0.04, 0.04]
    return message, stamp


def test_bad_episodes_are_flagged_by_name_and_the_rest_goes_on(result, motion, tmp_path):
    good = replay_bag.write(tmp_path / "good.bag", motion)
    replay_bag.write(tmp_path / "degrees.bag", motion, change=change_joints(180 / np.pi))
    replay_bag.write(tmp_path / "nan.bag", motion, change=change_joints(float("nan")))
    replay_bag.write(tmp_path / "still.bag", motion, change=still)
    replay_bag.write(tmp_path / "handless.bag", motion, change=without_fingers)
    replay_bag.write(tmp_path / "silent.bag", motion, instructions=())
    replay_bag.write(tmp_path / "blind.bag", motion, change=lambda topic, when, message, stamp: None if FRONT in topic
                     else (message, stamp))
    whole = good.read_bytes()
    (tmp_path / "cut.bag").write_bytes(whole[:len(whole) * 2 // 3])
    (tmp_path / "text.bag").write_text("not a bag at all")
    shutil.copy(good, tmp_path / "late.broken.bag")
    (tmp_path / "late.json").write_text(json.dumps({"complete": False, "problems": ["the disk did not keep up"]}))
    _, summary, data = result(tmp_path)
    wrong = {entry["episode"]: entry["reason"] for entry in summary["flagged"] if not entry["kept"]}
    for name, reason in (("degrees.bag", "other units"), ("nan.bag", ""), ("still.bag", "nothing moves"),
                         ("handless.bag", "the gripper of arm arm is never read, so no row could say whether it is open; record"),
                         ("silent.bag", "no instruction"), ("blind.bag", "no images of view front"),
                         ("text.bag", "not a ROS 1 bag"),
                         ("late.broken.bag", "the disk did not keep up")):
        assert reason in wrong.pop(name), (name, reason)
    assert not wrong and summary["episodes"] == len(data.episodes) == 2
    assert any(entry["episode"] == "cut.bag" and "truncated" in entry["reason"] for entry in summary["flagged"])
    assert main(["dataset", "inspect", str(data.folder)]) == 0


def test_labels_of_another_version_and_unforeseen_errors_are_flagged_and_the_rest_goes_on(result, motion, tmp_path, monkeypatch):
    names = ("a_older.bag", "b_odd.bag", "c_good.bag")
    bags = [replay_bag.write(tmp_path / name, motion) for name in names]
    with rosbag.Bag(str(bags[0]), "a") as bag:
        bag.write("/hybridvla/episode/event", replay_bag.older(EpisodeEvent, "uint8 event\n"), rospy.Time.from_sec(BEGIN + 1),
                  raw=True)
    replay_bag.fail_to_scan(monkeypatch, "b_odd.bag", AttributeError("no such field"))
    status, summary, _ = result(*bags)
    reasons = {entry["episode"]: entry["reason"] for entry in summary["flagged"]}
    assert summary["episodes"] == 1
    assert "labels cannot be read" in reasons["a_older.bag"] and "MD5" in reasons["a_older.bag"]
    assert reasons["b_odd.bag"] == "cannot be read (AttributeError: no such field)"


@pytest.mark.long
def test_swapped_cameras_and_a_gripper_that_never_moves_are_flagged(result, motion, tmp_path):
    policy = policy_file(tmp_path, second_view=True)
    rng = np.random.default_rng(3)
    pictures = [np.clip(rng.normal(mean, 10, (256, 256, 3)), 0, 255).astype(np.uint8) for mean in (60, 190)]
    encoded = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]

    def hold(topic, when, message, stamp):
        if topic == JOINTS:
            message.position = [*message.position[:-2], 0.04, 0.04]
        return None if FRONT in topic else (message, stamp)

    for number in range(4):
        bag = replay_bag.write(tmp_path / f"{number}.bag", motion, change=hold)
        for topic, data in zip((FRONT, "/camera_wrist/color/image_raw"), encoded[::-1] if number == 2 else encoded):
            add(bag, topic + "/compressed", [(at, CompressedImage(format="jpeg", data=data)) for at in np.arange(0.2, 5.8, 0.1)])
    _, summary, data = result(tmp_path, policy=policy)
    assert summary["episodes"] == 3 and list(data.description.views) == ["front", "wrist"]
    said = [(entry["episode"], entry["reason"], entry["kept"]) for entry in summary["flagged"]]
    assert any(name == "2.bag" and "cameras are swapped" in reason and not kept for name, reason, kept in said)
    assert sum("never moves" in reason and kept for _, reason, kept in said) == 3


def test_nothing_usable_writes_nothing(tmp_path, capsys):
    (tmp_path / "text.bag").write_text("not a bag")
    assert main(["dataset", "from-bags", str(tmp_path / "text.bag"), "-o", str(tmp_path / "set")]) == 1
    assert "no episode can be used" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.bag"]
