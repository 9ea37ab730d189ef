"""Clients of a server on this computer, and a wait until a condition holds."""
from __future__ import annotations

import time

from hybridvla_core.policy.remote.client import RemotePolicy
from hybridvla_core.policy.remote.settings import RemoteSource


def client(port, **changes):
    return RemotePolicy(RemoteSource(f"ws://127.0.0.1:{port}", **{"deadline_s": 0.4, "connect_timeout_s": 5.0, **changes}))


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)
