"""Replay without a model, for tests that do not depend on the predictions: a policy that keeps the arm still and open."""
from __future__ import annotations

import numpy as np
from replay_bag import ROOT, options

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Mode, Prediction
from hybridvla_core.evaluation.replay.filtering import FilterPool
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import check_fit
from hybridvla_ros.replay import job as replay_job


class Still:
    """A policy that keeps the arm where it is, with the gripper open."""

    cameras, manifest_sha256, config = ("front",), "0" * 64, None

    def __init__(self):
        self.convention = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml").convention

    def predict(self, observation, mode=None, seed=0):
        action = np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action)

    def predict_batch(self, observations, mode=None, seed=0):
        return [self.predict(observation, mode, seed) for observation in observations]


def without_a_model(monkeypatch):
    """Make all later replays of the test predict with `Still`."""
    def still(self, folder):
        check_fit(Still(), self.config, self.robot)
        return Still()

    monkeypatch.setattr(replay_job.Replay, "_policy", still)
    monkeypatch.setattr(replay_job, "FilterPool", lambda robot, run_s: FilterPool(robot, run_s, processes=0))


def replay(*bags, **changes):
    """Return the result of a replay of these bags. changes: changed options of `replay_bag.options`."""
    return replay_job.Replay(options(*bags, **changes)).run()
