"""An unmodified openpi-client is answered by our server (in an environment of its own; left out where it cannot be made)."""
from __future__ import annotations

import json
import subprocess
import threading

import numpy as np
import pytest
from remote_bench import Echo, observation

from hybridvla_core.paths import ROOT
from hybridvla_core.policy.remote.dialect import OwnDialect
from hybridvla_core.policy.remote.server import PolicyServer, ServerSettings

SCRIPT, KEY = ROOT / "scripts/checks/openpi_client.sh", "k" * 24


@pytest.fixture(scope="module")
def openpi_client():
    made = subprocess.run([str(SCRIPT)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=300)
    if made.returncode:
        pytest.skip(f"openpi-client cannot be installed here: {made.stdout[-200:]}")
    return SCRIPT


def test_an_unmodified_openpi_client_is_answered(openpi_client):
    server = PolicyServer(Echo(), OwnDialect(), ServerSettings(port=0, key=KEY))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        asked = subprocess.run([str(openpi_client), str(server.address[1]), KEY], stdout=subprocess.PIPE, encoding="utf-8",
                               timeout=120, check=True)
    finally:
        server.close()
    answer = json.loads(asked.stdout.splitlines()[-1])
    assert np.allclose(answer["actions"], Echo().predict(observation()).action)
    assert answer["timing"] == ["infer_ms", "prev_total_ms"]
    assert answer["metadata"]["cameras"] == ["front", "wrist"]
    assert answer["metadata"]["convention"]["gripper_sense"] == "one_is_open"
    assert "observation/front is missing" in answer["refused"] and "Traceback" not in answer["refused"].split("server:")[-1]
