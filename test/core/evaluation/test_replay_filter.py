"""Proposals through the filter from recorded joints; whether a policy uses its images and instruction; the verdict."""
from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import ArmTarget, DeltaBase, Mode, Observation, Pose, Prediction, Proposal
from hybridvla_core.evaluation.replay import sensitivity
from hybridvla_core.evaluation.replay.filtering import FilterCheck, FilterJob
from hybridvla_core.evaluation.replay.report import junit
from hybridvla_core.evaluation.replay.rows import Frame
from hybridvla_core.evaluation.replay.settings import ReplayConfig
from hybridvla_core.evaluation.replay.verdict import Check, judge_senses, reasons, verdict
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.proposing.proposals import Inference
from hybridvla_core.robots.config import load_robot

ROBOT = load_robot(ROOT / "config/robots/sim_fr3.yaml")
SETTINGS = load_file(ReplayConfig, ROOT / "config/replay/thresholds.yaml")
CONFIG = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
START = np.array(ROBOT.arms[0].start_joints_rad)
DOWN = np.array([1.0, 0.0, 0.0, 0.0])
HOME = Pose(np.array([0.307, 0.0, 0.487]), DOWN)


def proposal(position, **changes):
    pose = Pose(np.array(position, dtype=float), DOWN)
    target = ArmTarget("arm", "fr3_link0", HOME, 1.0, pose, DeltaBase.MEASURED, 1.0)
    values = dict(stamp=1.0, epoch=1, sequence=1, instruction_sequence=1, instruction="do it", valid_for=10.0,
                  targets=(target,))
    return Proposal(**{**values, **changes})


@pytest.fixture(scope="module")
def check():
    return FilterCheck(ROBOT, run_s=0.1)


def test_a_target_within_reach_is_reached(check):
    result = check.check(FilterJob(proposal([0.34, 0.03, 0.46]), ((START, 1.0),), full=True))
    assert result.reached and not result.refused and not result.clipped


def test_a_short_run_says_nothing_about_arrival(check):
    assert check.check(FilterJob(proposal([0.5, 0.1, 0.3]), ((START, 1.0),), full=False)).reached is None


def test_a_target_outside_the_workspace_is_clipped_and_not_reached(check):
    result = check.check(FilterJob(proposal([0.34, 0.0, 0.9]), ((START, 1.0),), full=False))
    assert result.clipped


def test_what_is_no_motion_is_refused_by_name(check):
    result = check.check(FilterJob(proposal([float("nan"), 0.0, 0.3]), ((START, 1.0),), full=False))
    assert result.refused and result.interventions == ("refused/proposal_invalid",)


def test_recorded_joints_outside_a_limit_are_named(check):
    outside = START.copy()
    outside[6] = 3.014
    result = check.check(FilterJob(proposal([0.34, 0.0, 0.45]), ((outside, 1.0),), full=False))
    assert result.interventions == ("refused/outside_at_start",) and "joint_7" in result.refused


class Senses:
    """A policy whose target depends on its inputs with the given weights, and a little on the noise seed."""

    convention, cameras, manifest_sha256 = CONFIG.convention, ("front",), "0" * 64

    def __init__(self, language=1.0, camera=1.0, state=1.0):
        self.weights = language, camera, state

    def predict(self, observation, mode=None, seed=0):
        words = sum(map(ord, observation.instruction)) % 7 / 70.0
        picture = float(observation.images["front"].mean()) / 1000.0
        parts = [words, picture, float(observation.state[0]) / 5.0]
        action = np.zeros((1, 7))
        action[0, :3] = np.array(self.weights) * parts + np.random.default_rng(seed).normal(0.0, 0.001, 3)
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action)

    def predict_batch(self, observations, mode=None, seed=0):
        return [self.predict(observation, mode, seed) for observation in observations]


def sensed(policy, others=("take that", "and then this")):
    frames = []
    for k in range(6):
        image = np.full((8, 8, 3), 20 + 35 * k, dtype=np.uint8)
        observation = Observation({"front": image}, "do it now", np.full(7, 0.1 * k), 1000 + k)
        frames.append(Frame(float(k), Inference(observation, 1, float(k), 0.0, ((HOME, float(k)),)), ((START, 1.0),)))
    result = sensitivity.SensitivityCheck(policy, CONFIG, SETTINGS.senses, others).run(frames)
    return sensitivity.summarise(result, SETTINGS.senses)


def test_a_policy_that_looks_and_listens_passes():
    found = sensed(Senses())
    assert all(sense["used"] for sense in found["senses"].values())
    assert verdict(judge_senses(found, SETTINGS)) == "pass"


@pytest.mark.parametrize("missing, word", [("language", "deaf"), ("camera", "blind to camera front")])
def test_a_policy_without_a_sense_is_named(missing, word):
    found = sensed(Senses(**{missing: 0.0}))
    told = reasons(judge_senses(found, SETTINGS))
    assert len(told) == 1 and word in told[0]


def test_a_policy_without_a_state_is_shown_and_not_judged():
    found = sensed(Senses(state=0.0))
    assert not found["senses"]["state"]["used"] and verdict(judge_senses(found, SETTINGS)) == "pass"


def test_one_instruction_alone_cannot_show_deafness_and_that_is_said():
    found = sensed(Senses(language=0.0), others=())
    assert "instruction" not in found["senses"] and "--other-instruction" in found["skipped"]["instruction"]


def test_junit_holds_every_check():
    checks = [Check("errors", "a", "pass", "fine"), Check("errors", "b", "fail", "b is <bad> & \x01"),
              Check("senses", "c", "skipped", "not judged")]
    root = ElementTree.fromstring(junit.document(checks, [], "x"))
    assert root.attrib["tests"] == "3" and root.attrib["failures"] == "1" and root.attrib["skipped"] == "1"
    assert "b is <bad>" in root.find(".//failure").attrib["message"]
