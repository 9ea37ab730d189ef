"""`hybridvla replay` on a bag of the AgileX rig: two arms, three views, one of them compressed, joints on two topics."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
import rosbag
import rospy
import torch
import yaml
from replay_bag import BEGIN, ROOT, options
from sensor_msgs.msg import CompressedImage, Image, JointState
from small_models import tiniest
from std_msgs.msg import String

from hybridvla_core.configuration import from_mapping, load_file, read_mapping
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_ros.replay import job as replay_job

SECONDS, JOINTS_S, IMAGES_S = 8.0, 0.02, 0.1
TOPICS = {"front": "/camera_f/color/image_raw/compressed", "right": "/camera_r/color/image_raw",
          "left": "/camera_l/color/image_raw"}
ROBOT = ROOT / "config/robots/agilex.yaml"
START = {arm.name: arm.start_joints_rad for arm in load_file(RobotConfig, ROBOT).arms}


def swing(arm, now):
    """Return joints (6,) rad and opening: the right arm turns out and closes its gripper, the left one turns in a little."""
    start = np.array(START[arm])
    share = np.interp(now % 4.0, [0.0, 1.5, 2.5, 3.5], [0.0, 1.0, 1.0, 0.0])
    start[0] += share * (-0.3 if arm == "right" else -0.1)
    return start, np.interp(now % 4.0, [1.7, 2.0, 3.6, 3.9], [1.0, 0.3, 0.3, 1.0]) if arm == "right" else 1.0


def write_bag(path, change=lambda topic, now: True):
    """Write a bag. change: whether the message on a topic at `now` s is included."""
    rng = np.random.default_rng(0)
    pixels = {view: rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for view in TOPICS}
    events = [(0.0, "/hybridvla/policy/instruction", String("carry the tray"))]
    for now in np.arange(0.0, SECONDS, JOINTS_S):
        for arm in ("right", "left"):
            joints, opening = swing(arm, now)
            events.append((now, f"/puppet/joint_{arm}", JointState(name=[f"joint{i}" for i in range(7)],
                                                                   position=[*joints, 0.07 * opening])))
    for now in np.arange(0.003, SECONDS, IMAGES_S):
        for view, topic in TOPICS.items():
            message = Image(height=48, width=64, encoding="rgb8", step=192, data=pixels[view].tobytes())
            if topic.endswith("compressed"):
                message = CompressedImage(format="jpeg", data=cv2.imencode(".jpg", pixels[view])[1].tobytes())
            events.append((now, topic, message))
    with rosbag.Bag(str(path), "w") as bag:
        for now, topic, message in sorted(events, key=lambda event: event[0]):
            if change(topic, now):
                if hasattr(message, "header"):
                    message.header.stamp = rospy.Time.from_sec(BEGIN + now)
                bag.write(topic, message, rospy.Time.from_sec(BEGIN + now + 0.004))
    return path


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """Make a checkpoint with random weights for both arms and three views, and its policy configuration."""
    from hybridvla_core.checkpoints.config import CheckpointConfig, EnsembleConfig
    from hybridvla_core.checkpoints.format import save_checkpoint
    from hybridvla_core.model.hybridvla import HybridVLA
    from hybridvla_core.training.tokenizer import build_tiny_tokenizer

    folder = tmp_path_factory.mktemp("policy")
    data = {**read_mapping(ROOT / "config/policies/agilex.yaml"), "device": "cpu", "dtype": "float32",
            "checkpoint": str(folder / "checkpoint")}
    (folder / "policy.yaml").write_text(yaml.safe_dump(data))
    # Random weights give another target every time: only a few of the motions are run to their end.
    thresholds = dict(read_mapping(ROOT / "config/replay/thresholds.yaml"))
    thresholds["filter"] = {**thresholds["filter"], "full_every_s": 100.0}
    (folder / "thresholds.yaml").write_text(yaml.safe_dump(thresholds))
    config = from_mapping(PolicyConfig, data, "agilex")
    torch.manual_seed(1)
    model = tiniest(views=3, action_dim=14)
    scale = {"q01": ([-1.0] * 6 + [0.0]) * 2, "q99": [1.0] * 14, "mask": ([True] * 6 + [False]) * 2}
    save_checkpoint(folder / "checkpoint", HybridVLA(model).initialise(0.2).state_dict(), CheckpointConfig(
        format=1, model=model, convention=config.convention, cameras=tuple(camera.view for camera in config.cameras),
        image_strategy="resize-naive", ensemble=EnsembleConfig.paper(), ddim_steps=2,
        autoregressive_condition="denoised", statistics_key="set"), {"set": {"action": scale, "proprio": scale}},
        build_tiny_tokenizer().to_str(), {"made": "by a test"}, torch.float32)
    return folder


def judged(bag, folder, **changes):
    return replay_job.Replay(options(bag, checkpoint=str(folder / "checkpoint"), policy_config=folder / "policy.yaml",
                                     robot_config=ROBOT, thresholds=folder / "thresholds.yaml", other_instructions=("stay",),
                                     **changes)).run()


@pytest.mark.long
def test_both_arms_and_all_views_reach_the_policy_in_its_own_order(policy, tmp_path):
    result = judged(write_bag(tmp_path / "two.bag"), policy, senses=True)
    rows, robot = result.contenders[0].evaluator.rows, load_file(RobotConfig, ROBOT)
    assert len(rows) > 20 and result.summary["bags"][0]["observing"]["missed"] <= 1   # at the very beginning
    for row in rows[::5]:
        assert [target.name for target in row.targets] == ["right", "left"]
        for arm, base in zip(("right", "left"), row.bases):
            joints = swing(arm, row.stamp_ns * 1e-9 - BEGIN)[0]
            assert np.abs(ArmKinematics(robot.arm(arm)).pose(joints)[0] - base.position).max() < 2e-3
    compared = [row for row in rows if row.truth is not None]
    assert compared and all(len(row.truth.arms) == 2 and row.error.shape == (2, 3) for row in compared)
    assert any(row.truth.arms[0].closed for row in compared) and not any(row.truth.arms[1].closed for row in compared)
    assert {"camera front", "camera right", "camera left"} <= set(result.summary["bags"][0]["streams"])
    assert {"joints right", "joints left"} <= set(result.summary["bags"][0]["streams"])
    assert all(any(view in text for text in map(str, result.summary["senses"].items())) for view in TOPICS)


@pytest.mark.long
@pytest.mark.parametrize("topic, words", [(TOPICS["left"], "camera left"), ("/puppet/joint_left", "arm left")])
def test_one_of_three_views_or_one_of_two_arms_that_dies_is_named(policy, tmp_path, topic, words):
    result = judged(write_bag(tmp_path / "dies.bag", lambda name, now: name != topic or now < 4.0), policy,
                    rate=0.5)      # the streams show what is missing; predictions take most of the time
    reasons = [text for text in result.summary["reasons"] if words in text]
    assert result.summary["verdict"] == "fail" and reasons and any("4." in text or "3.9" in text for text in reasons)
