"""`hybridvla serve` and a policy node's loader, the two ends of one wire: the shipped checkpoint predicts as it does locally."""
from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import remote_bench

from hybridvla_cli.__main__ import main
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Observation
from hybridvla_core.errors import ConfigurationError, DeviceError, ObservationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import check_fit
from hybridvla_core.policy.predictor import Policy
from hybridvla_core.policy.remote.client import RemotePolicy
from hybridvla_core.policy.remote.settings import RemoteSource
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


class FailsAtTheThird:
    """A policy that fails like a GPU which is lost once the server has warmed up."""

    cameras, convention, manifest_sha256, asked = remote_bench.VIEWS, remote_bench.CONVENTION, "a" * 64, 0

    def predict(self, observation, mode=None, seed=0):
        self.asked += 1
        if self.asked > 2:
            raise DeviceError("cuda failed during a prediction (it is lost); restart the policy")


def test_a_lost_device_ends_the_command_with_1_although_a_client_stays(monkeypatch, capsys):
    monkeypatch.setattr(Policy, "from_checkpoint", lambda *arguments, **options: FailsAtTheThird())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def ask():
        client = RemotePolicy(RemoteSource(f"ws://127.0.0.1:{port}", connect_timeout_s=20.0))
        with contextlib.suppress(ObservationError):
            client.predict(remote_bench.observation())
        done.wait(20.0)
        client.close()

    done = threading.Event()
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    assert main(["serve", "--checkpoint", "lost", "--port", str(port)]) == 1
    assert "hybridvla: cuda failed during a prediction (it is lost)" in capsys.readouterr().err
    done.set()
    asking.join(5.0)


def test_a_remote_backend_needs_an_address_and_prepares_nothing_here():
    config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
    with pytest.raises(ConfigurationError, match=r"write remote.url into the policy configuration"):
        load_policy(replace(config, backend="remote"), load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml"))
    with pytest.raises(ConfigurationError, match="set prepare_on_arrival"):
        replace(config, backend="remote", prepare_on_arrival=True)
    with pytest.raises(ConfigurationError, match="backend is 'cloud'"):
        replace(config, backend="cloud")


@pytest.mark.parametrize("choice", [{"noise_samples": 4}, {"all_tokens": True}, {"graphs": "off"}, {"compile": "auto"}],
                         ids=lambda choice: "".join(choice))
def test_what_a_server_decides_is_not_asked_of_it_in_vain(choice):
    config = replace(load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml"), **choice)
    with pytest.raises(ConfigurationError, match="whose server decides how it predicts; set noise_samples to 1, all_tokens to "
                                                 "false, graphs to auto and compile to off"):
        config.on_server("ws://127.0.0.1:8000")


@pytest.mark.parametrize("arguments, all_tokens", [([], False), (["--all-tokens"], True)])
def test_tokens_that_change_no_action_are_decoded_only_where_they_are_asked_for(monkeypatch, arguments, all_tokens):
    asked = {}

    def load(folder, **options):
        asked.update(options)
        raise DeviceError("none here")

    monkeypatch.setattr(Policy, "from_checkpoint", load)
    assert main(["serve", "--checkpoint", "some", "--port", "0", *arguments]) == 1
    assert asked["all_tokens"] is all_tokens
