"""`hybridvla serve` and a policy node's loader are the two ends of one wire: the shipped checkpoint predicts as it does here."""
from __future__ import annotations

import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Observation
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import check_fit
from hybridvla_core.policy.predictor import Policy
from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.policy_node import load_policy

TINY = ROOT / "checkpoints/tiny"


@pytest.fixture(scope="module")
def address():
    process = subprocess.Popen([sys.executable, "-m", "hybridvla_cli", "serve", "--checkpoint", str(TINY), "--port", "0"],
                               stdout=subprocess.PIPE, encoding="utf-8", cwd=str(ROOT / "src"))
    yield re.search(r"ws://\S+?:\d+", process.stdout.readline()).group(0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    process.stdout.close()


def test_the_served_checkpoint_predicts_as_it_does_here(address):
    config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml").on_server(address)
    robot = load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml")
    policy = load_policy(config, robot)
    check_fit(policy, config, robot)
    image = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    seen = Observation({"front": image}, "put the red block on the green pad", np.array([0.4, 0, 0.3, 3.1, 0, 0, 1]), 12345)
    here = Policy.from_checkpoint(TINY)
    assert policy.manifest_sha256 == here.manifest_sha256
    assert np.allclose(policy.predict(seen, seed=4).action, here.predict(seen, seed=4).action, atol=1e-6)
    policy.close()


def test_a_remote_backend_needs_an_address_and_prepares_nothing_here():
    config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
    from dataclasses import replace

    with pytest.raises(ConfigurationError, match=r"write remote.url into the policy configuration"):
        load_policy(replace(config, backend="remote"), load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml"))
    with pytest.raises(ConfigurationError, match="set prepare_on_arrival"):
        replace(config, backend="remote", prepare_on_arrival=True)
    with pytest.raises(ConfigurationError, match="backend is 'cloud'"):
        replace(config, backend="cloud")
