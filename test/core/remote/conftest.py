"""A server in this process, and clients that are closed at the end."""
from __future__ import annotations

import threading

import pytest
from remote_bench import Echo
from remote_clients import client

from hybridvla_core.policy.remote.dialect import OwnDialect
from hybridvla_core.policy.remote.server import PolicyServer, ServerSettings


@pytest.fixture
def answering():
    """Yield a function that starts a server in this process and returns its port."""
    begun = []

    def start(policy=None, dialect=None, **settings):
        begun.append(PolicyServer(policy or Echo(), dialect or OwnDialect(), ServerSettings(port=0, **settings)))
        threading.Thread(target=begun[-1].serve_forever, daemon=True).start()
        return begun[-1].address[1]
    yield start
    for server in begun:
        server.close()


@pytest.fixture
def asking():
    """Yield the function `client`; its clients are closed at the end."""
    made = []

    def make(port, **changes):
        made.append(client(port, **changes))
        return made[-1]
    yield make
    for policy in made:
        policy.close()
