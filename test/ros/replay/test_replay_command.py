"""`hybridvla replay` on the command line: which moments are predicted, and a second checkpoint on the report page."""
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import replay_bag
import rosbag
import rospy
import yaml
from replay_bag import ROOT

from hybridvla.msg import ActionProposal
from hybridvla_cli.__main__ import main
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Mode, Prediction
from hybridvla_core.evaluation.replay.filtering import FilterPool
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_ros.replay import job as replay_job

JUDGED, OTHER = str(ROOT / "checkpoints/tiny"), "/elsewhere/other_checkpoint"
IMAGES = 40           # ten per second for 4 s


class Constant:
    """A policy without a model that always predicts the same step."""

    cameras, manifest_sha256, config = ("front",), "0" * 64, None

    def __init__(self, step):
        self.convention = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml").convention
        self._action = np.array([[*step, 0.0, 0.0, 0.0, 1.0]])

    def predict_batch(self, observations, mode=None, seed=0):
        return [Prediction(self._action, Mode.DIFFUSION, False, diffusion=self._action) for _ in observations]

    def predict(self, observation, mode=None, seed=0):
        return self.predict_batch([observation])[0]


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return replay_bag.write(tmp_path_factory.mktemp("bags") / "motion.bag", replay_bag.Motion(4.0))


@pytest.fixture
def replay(monkeypatch, bag, tmp_path, capsys):
    """Runs the verb with two constant policies for the two folders; returns its status, JSON result and page."""
    policies = {JUDGED: (0.0, 0.0, 0.0), OTHER: (0.2, 0.0, 0.0)}
    monkeypatch.setattr(replay_job.Replay, "_policy", lambda self, folder: Constant(policies[str(folder)]))
    monkeypatch.setattr(replay_job, "FilterPool", lambda robot, run_s: FilterPool(robot, run_s, processes=0))
    out, page = tmp_path / "out.json", tmp_path / "out.html"

    def run(*arguments):
        status = main(["replay", str(bag), "--checkpoint", JUDGED, "--no-senses", "--json", str(out), "--report", str(page),
                       *arguments])
        return (status, json.loads(out.read_text()), page.read_text()) if out.exists() else (status, capsys.readouterr().err)
    return run


@pytest.mark.long
def test_every_frame_asks_at_every_image_and_a_rate_at_some(replay):
    every, some = replay("--every-frame")[1]["frames"], replay("--rate", "2")[1]["frames"]
    assert IMAGES - 2 <= every <= IMAGES and 8 <= some <= 10


class Seeing(Constant):
    """A policy that keeps the states that it was shown."""

    def __init__(self, step):
        super().__init__(step)
        self.states = []

    def predict_batch(self, observations, mode=None, seed=0):
        self.states += [seen.state for seen in observations]
        return super().predict_batch(observations, mode, seed)


def test_without_recorded_commands_a_policy_of_last_commands_is_shown_the_measured_poses(replay, monkeypatch, tmp_path):
    seeing = Seeing((0.0, 0.0, 0.0))
    monkeypatch.setattr(replay_job.Replay, "_policy", lambda self, folder: seeing)
    data = yaml.safe_load((ROOT / "config/policies/tiny.yaml").read_text())
    data["convention"].update(state_source="last_command", first_state=[0.5, 0.1, 0.9, 0.0, 0.0, 0.0, 1.0])
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    _, found, _ = replay("--rate", "2", "--policy-config", str(tmp_path / "policy.yaml"))
    assert np.ptp([state[1] for state in seeing.states]) > 0.1
    assert any("the states are the measured poses and not the last commands" in note for note in found["notes"])


def test_proposals_that_left_out_their_first_steps_are_compared_by_the_steps_they_kept(replay, monkeypatch, tmp_path):
    policy = Constant((0.0, 0.0, 0.0))
    policy._action = np.arange(28.0).reshape(4, 7) / 1000
    monkeypatch.setattr(replay_job.Replay, "_policy", lambda self, folder: policy)
    data = yaml.safe_load((ROOT / "config/policies/tiny.yaml").read_text())
    data["convention"]["action_period_s"] = 0.1
    policy.convention = dataclasses.replace(policy.convention, action_period_s=0.1)
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    with rosbag.Bag(str(tmp_path / "live.bag"), "w") as live:
        for index, (rows, off) in enumerate(((4, 0.0), (2, 0.0), (1, 0.02))):       # pictures are 0.1 s apart
            steps = policy._action[-rows:] + off
            message = ActionProposal(chunk=rows, action_dim=7, action=list(steps.ravel()),
                                     checkpoint_sha256=policy.manifest_sha256)
            message.header.stamp = rospy.Time.from_sec(replay_bag.BEGIN + 1.005 + 0.5 * index)
            live.write("/hybridvla/policy/proposal", message, message.header.stamp)
    _, found, _ = replay("--recorded-only", "--policy-config", str(tmp_path / "policy.yaml"),
                         "--proposals-from", str(tmp_path / "live.bag"))
    assert found["reproduction"]["of_this_checkpoint"] == 3
    assert found["reproduction"]["max_m"] == pytest.approx(0.02 * 3 ** 0.5, abs=1e-6) and found["reproduction"]["median_m"] < 1e-9


def test_the_verdict_is_said_although_the_disk_takes_no_result(bag, monkeypatch, capsys, tmp_path):
    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(replay_job.Replay, "_policy", lambda self, folder: Constant((0.0, 0.0, 0.0)))
    monkeypatch.setattr(replay_job, "FilterPool", lambda robot, run_s: FilterPool(robot, run_s, processes=0))
    monkeypatch.setattr("hybridvla_core.files.write_text", full)
    assert main(["replay", str(bag), "--checkpoint", JUDGED, "--no-senses", "--rate", "2", "--json", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "verdict: fail" in said.out and "No space left on device" in said.err


def test_two_ways_of_choosing_moments_exclude_each_other(replay):
    status, said = replay("--every-frame", "--rate", "2")
    assert status == 1 and "exclude each other" in said


@pytest.mark.long
def test_a_compared_checkpoint_stands_beside_the_judged_one_and_is_not_judged(replay):
    status, alone, plain = replay("--rate", "2")
    again, both, page = replay("--rate", "2", "--compare", OTHER)
    assert (status, alone["verdict"], alone["reasons"]) == (again, both["verdict"], both["reasons"])
    assert both["errors"] == alone["errors"] and "compared" not in alone
    assert both["compared"]["errors"]["median_m"] > both["errors"]["median_m"] + 0.05
    assert "blue: the compared checkpoint" in page and "other_checkpoint" in page
    assert "blue" not in plain and "other_checkpoint" not in plain
