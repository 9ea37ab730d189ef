"""A policy behind a connection: the same numbers, and a server that is killed, hangs, is slow, lies, or is replaced."""
from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import remote_bench
from remote_bench import Echo, observation
from remote_clients import client, until

from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Mode, PolicyState, Prediction
from hybridvla_core.errors import ConfigurationError, ObservationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import misfits
from hybridvla_core.policy.proposing.proposer import Proposer
from hybridvla_core.policy.remote import client as remote_client
from hybridvla_core.policy.remote.dialect import OwnDialect
from hybridvla_core.policy.remote.server import PolicyServer, ServerSettings
from hybridvla_core.policy.remote.settings import RemoteSource
from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.runtime.patience import patience

pytestmark = pytest.mark.robot_computer
KEY = "k" * 24


def test_a_remote_prediction_is_the_local_one(answering, asking):
    policy = asking(answering())
    local = Echo().predict(observation(), Mode.DIFFUSION, seed=3)
    remote = policy.predict(observation(), "diffusion", seed=3)
    for name in ("action", "diffusion", "autoregressive", "token_confidence"):
        assert np.array_equal(getattr(remote, name), getattr(local, name)), name
    assert (remote.mode, remote.fused, remote.mean_confidence, remote.passes) == (Mode.DIFFUSION, True, 0.5, 3)
    assert np.isnan(remote.path_distance) and remote.stage_ms["vision"] == 1.5 and remote.stage_ms["remote"] > 0
    assert (policy.cameras, policy.convention, policy.manifest_sha256) == (Echo.cameras, Echo.convention, "a" * 64)


class Chunked(Echo):
    """A policy that predicts K = 4 steps by diffusion and the first by tokens; `confidence`: how many confidences it gives."""

    def __init__(self, tokens=1, confidence=7):
        super().__init__()
        self.tokens, self.confidence = tokens, confidence

    def predict(self, observation, mode=None, seed=0):
        steps = np.arange(28.0).reshape(4, 7)
        return Prediction(action=steps, mode=Mode.ENSEMBLE, fused=True, diffusion=steps + 1, autoregressive=steps[:self.tokens],
                          token_confidence=np.linspace(0, 1, self.confidence), mean_confidence=0.5)


def test_a_chunk_of_actions_comes_with_the_one_step_that_the_tokens_say(answering, asking):
    local, remote = Chunked().predict(observation()), asking(answering(Chunked())).predict(observation())
    for name in ("action", "diffusion", "autoregressive", "token_confidence"):
        assert np.array_equal(getattr(remote, name), getattr(local, name)), name


@pytest.mark.parametrize("policy, said", [(Chunked(tokens=3), r"autoregressive of shape \(3, 7\); \(1, 7\)"),
                                          (Chunked(confidence=14), r"token_confidence of shape \(14,\); \(7,\)")])
def test_paths_of_another_shape_than_the_contracts_are_refused(answering, asking, policy, said):
    with pytest.raises(ObservationError, match=said):
        asking(answering(policy)).predict(observation())


def test_what_does_not_fit_the_policy_configuration_is_refused_by_name(answering, asking):
    config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
    found = misfits(asking(answering()), replace(config, convention=replace(config.convention, gripper_sense="one_is_closed")),
                    load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml"))
    assert any("cameras ['front', 'wrist'] in this order" in text for text in found)
    assert any("has gripper_sense 'one_is_open'" in text for text in found)
    with pytest.raises(ConfigurationError, match="serves checkpoint aaaaaaaaaaaa, and remote.checkpoint_sha256 asks for bbbbbb"):
        client(answering(), checkpoint_sha256="b" * 64)


@pytest.mark.parametrize("digest", ["a" * 12, "A" * 64, "a" * 64 + "\n", "g" * 64, ""])
def test_a_digest_that_is_none_is_refused_with_the_place_where_it_stands(digest):
    with pytest.raises(ConfigurationError, match="all 64 digits, .* as `hybridvla convert` prints them after manifest"):
        RemoteSource("ws://127.0.0.1:8000", checkpoint_sha256=digest)


def test_a_chunk_that_the_robot_refuses_is_known_from_the_handshake(answering, asking):
    class Long(Echo):
        cameras, chunk = ("front",), 65

    config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
    robot = load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml")
    long, silent = asking(answering(Long())), asking(answering())
    assert (long.chunk, silent.chunk) == (65, None)
    assert any("predicts 65 steps at once, but robot sim_fr3 accepts at most 64" in text for text in misfits(long, config, robot))
    assert not any("steps at once" in text for text in misfits(silent, config, robot))


def test_an_error_of_the_policy_is_a_sentence_without_a_traceback(answering, asking, caplog):
    policy = asking(answering())
    with caplog.at_level(logging.CRITICAL), pytest.raises(ObservationError) as refusal:
        policy.predict(observation(instruction="crash"))
    assert "the prediction failed; look at the server's log" in str(refusal.value)
    assert "secret" not in str(refusal.value) and "Traceback" not in str(refusal.value)
    assert policy.predict(observation()).fused and policy.link_problem() == ""


def test_a_killed_server_is_noticed_at_once_and_its_return_as_well(asking):
    with remote_bench.server() as (process, port):
        policy = asking(port)
        process.kill()
        killed = time.monotonic()
        until(lambda: policy.link_problem())
        assert time.monotonic() - killed < patience(0.3)
        with pytest.raises(ObservationError, match="connection to ws://127.0.0.1"):
            policy.predict(observation())
    with remote_bench.server(port=port):
        until(lambda: policy.link_problem() == "", 10)
        assert policy.predict(observation()).fused


def test_the_client_goes_on_connecting_after_an_error_that_nobody_foresaw(asking, monkeypatch, caplog):
    with remote_bench.server() as (process, port):
        policy = asking(port)
        opened, failures = remote_client.Link, [RuntimeError("no more threads")]

        def failing_once(*arguments):
            if failures:
                raise failures.pop()
            return opened(*arguments)

        monkeypatch.setattr(remote_client, "Link", failing_once)
        process.kill()
        until(lambda: not failures)
    with remote_bench.server(port=port):
        until(lambda: policy.link_problem() == "", 10)
        assert policy.predict(observation()).fused
    assert f"ws://127.0.0.1:{port}: RuntimeError: no more threads; trying again" in caplog.text


def test_the_desktops_proxy_is_not_asked_for_the_way_to_the_server(answering, asking, monkeypatch):
    for name in ("http", "https", "ws", "wss", "socks", "all"):
        for key in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.setenv(key, "http://127.0.0.1:1")      # no server listens there
    for key in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(key, raising=False)
    assert asking(answering(), connect_timeout_s=0.1).predict(observation()).fused


def test_a_server_that_is_still_to_come_is_waited_for_whatever_its_address_says(asking):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    begun = []

    def begin():
        begun.append(PolicyServer(Echo(), OwnDialect(), ServerSettings(port=port)))
        begun[0].serve_forever()

    late = threading.Timer(0.3, begin)
    late.start()
    try:
        assert asking(f"{port}/status").predict(observation()).fused
    finally:
        late.join(0.5)
        begun[0].close()
        late.join()


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_ends_is_waited_for_until_it_has_been_started_anew(asking, caplog, status):
    class Ending(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_error(status)

        def log_message(self, *words):
            pass

    old, begun = HTTPServer(("127.0.0.1", 0), Ending), []
    port = old.server_address[1]

    def restart():
        with old:
            old.handle_request()
        begun.append(PolicyServer(Echo(), OwnDialect(), ServerSettings(port=port)))
        begun[0].serve_forever()

    supervisor = threading.Thread(target=restart, daemon=True)
    supervisor.start()
    assert asking(port).predict(observation()).fused
    begun[0].close()
    supervisor.join(5.0)
    assert f"status {status}: the server is ending or its device has failed; restart it; trying again" in caplog.text


def test_a_server_that_comes_back_as_another_policy_is_refused_by_name(asking):
    with remote_bench.server() as (_, port):
        policy = asking(port)
    with remote_bench.server("swapped", port):
        until(lambda: "another policy" in policy.link_problem(), 10)
        assert "checkpoint_sha256 'aaa" in policy.link_problem()
        assert "cameras ('front', 'wrist') became ('wrist', 'front')" in policy.link_problem()
        with pytest.raises(ObservationError, match="serves another policy than before"):
            policy.predict(observation())


def test_a_server_that_hangs_is_a_fault_in_the_heartbeat_before_the_filters_patience_ends(asking):
    config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
    with remote_bench.server() as (process, port):
        policy = asking(port)
        proposer = Proposer(policy, config)
        until(lambda: proposer.heartbeat().state == PolicyState.WAITING)
        os.kill(process.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        until(lambda: proposer.heartbeat().state == PolicyState.FAULT)
        assert time.monotonic() - stopped < patience(0.3) and "has been silent" in proposer.heartbeat().message
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: proposer.heartbeat().state == PolicyState.WAITING)


def test_a_server_that_hangs_while_it_is_asked_ends_the_question_at_its_deadline(asking):
    big = replace(observation(), images={view: np.zeros((1500, 1500, 3), np.uint8) for view in Echo.cameras})
    with remote_bench.server() as (process, port):
        policy = asking(port)
        os.kill(process.pid, signal.SIGSTOP)
        for seen in (observation(), big):
            began = time.monotonic()
            with pytest.raises(ObservationError):
                policy.predict(seen)
            assert time.monotonic() - began < 1.5


@pytest.mark.long
def test_a_slow_server_lives_but_its_late_answer_is_never_taken_for_the_next(asking):
    with remote_bench.server("slow") as (_, port):
        patient = asking(port, deadline_s=2.0)
        assert patient.predict(observation(stamp=1)).fused      # pings are still answered
        assert patient.link_problem() == ""
        hasty = asking(port, deadline_s=0.3)
        with pytest.raises(ObservationError, match="silence for 0.3 s where an answer was due"):
            hasty.predict(observation(stamp=2))
        until(lambda: hasty.link_problem() == "")               # a new connection, on which the old answer cannot arrive
        with pytest.raises(ObservationError, match="silence"):
            hasty.predict(observation(stamp=3))


@pytest.mark.parametrize("lie, said", [("nan", "not finite"), ("two_arms", r"shape \(1, 14\)"), ("nothing", "actions is missing"),
                                       ("text", "must be an array"), ("late", "another observation than the one it was sent")])
def test_a_lie_is_refused_by_name_and_the_connection_made_anew(asking, lie, said):
    with remote_bench.server(lie) as (_, port):
        policy = asking(port)
        with pytest.raises(ObservationError, match=said):
            policy.predict(observation())
        until(lambda: policy.link_problem() == "")
        with pytest.raises(ObservationError, match=said):       # answered on a new connection
            policy.predict(observation())


def test_a_server_without_our_metadata_needs_a_dialect(answering, asking, monkeypatch):
    monkeypatch.setattr("hybridvla_core.policy.remote.handshake.Handshake.metadata", lambda self: {})
    with pytest.raises(ConfigurationError, match="does not say what its policy's numbers mean"):
        client(answering())
