"""An unmodified openpi-client is answered by our server, and an unmodified openpi-server is asked by our client.

Both run in an environment of their own; the tests are skipped where it cannot be made."""
from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time

import numpy as np
import pytest
from remote_bench import Echo, observation

from hybridvla_core.errors import ConfigurationError, ObservationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.remote.client import RemotePolicy
from hybridvla_core.policy.remote.dialect import OwnDialect
from hybridvla_core.policy.remote.server import PolicyServer, ServerSettings
from hybridvla_core.policy.remote.settings import RemoteSource

SCRIPT, KEY = ROOT / "scripts/checks/openpi.sh", "k" * 24


@pytest.fixture(scope="module")
def openpi():
    made = subprocess.run([str(SCRIPT)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=300)
    if made.returncode:
        pytest.skip(f"openpi-client and openpi-server cannot be installed here: {made.stdout[-200:]}")
    return SCRIPT


@pytest.fixture(scope="module")
def openpi_server(openpi):
    """Yield the server's process and address."""
    with subprocess.Popen([str(openpi), "serve"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="ascii") as process:
        try:
            yield process, f"ws://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def test_an_unmodified_openpi_client_is_answered(openpi):
    server = PolicyServer(Echo(), OwnDialect(), ServerSettings(port=0, key=KEY))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        asked = subprocess.run([str(openpi), "ask", str(server.address[1]), KEY], stdout=subprocess.PIPE, encoding="utf-8",
                               timeout=120, check=True)
    finally:
        server.close()
    answer = json.loads(asked.stdout.splitlines()[-1])
    assert np.allclose(answer["actions"], Echo().predict(observation()).action)
    assert answer["timing"] == ["infer_ms", "prev_total_ms"]
    assert answer["metadata"]["cameras"] == ["front", "wrist"]
    assert answer["metadata"]["convention"]["gripper_sense"] == "one_is_open"
    assert "observation/front is missing" in answer["refused"] and "Traceback" not in answer["refused"].split("server:")[-1]


def test_an_unmodified_openpi_server_is_asked_in_liberos_dialect(openpi_server):
    process, address = openpi_server
    policy = RemotePolicy(RemoteSource(address, dialect="config/remote/libero.yaml", deadline_s=20.0, connect_timeout_s=60.0))
    try:
        shown = observation()               # pixels 10 and 20, state 0 .. 0.6
        answer = policy.predict(shown)
        # 1 on the wire stands for 0.05 m and 0.5 rad, -1 for an open gripper (an opening of 0.6 is 24 mm of finger).
        assert np.allclose(answer.action, np.tile([0.005, 0.01, 0.01, 0.0, 0.0, 0.25, 1.0], (10, 1)), atol=1e-6)
        with pytest.raises(ObservationError) as refusal:
            policy.predict(observation(instruction="crash"))
        # The last line of the traceback that the server sends says what is wrong.
        assert str(refusal.value).endswith("says: ZeroDivisionError: secret of the inside")
        until = time.monotonic() + 20
        again = None
        while again is None:        # openpi's server closes the connection after an error; our client opens another
            assert time.monotonic() < until
            with contextlib.suppress(ObservationError):
                again = policy.predict(shown)
        assert np.array_equal(again.action, answer.action)
        process.kill()
        while not policy.link_problem():
            assert time.monotonic() < until + 20
            time.sleep(0.02)
        with pytest.raises(ObservationError, match="ended"):
            policy.predict(shown)
    finally:
        policy.close()


def test_an_openpi_server_whose_numbers_have_no_stated_meaning_is_not_asked(openpi):
    with subprocess.Popen([str(openpi), "serve"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="ascii") as process:
        try:
            with pytest.raises(ConfigurationError, match="dialect"):
                RemotePolicy(RemoteSource(f"ws://127.0.0.1:{int(process.stdout.readline())}", connect_timeout_s=60.0))
        finally:
            process.kill()
