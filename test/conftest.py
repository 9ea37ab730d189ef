"""Which tests run where: a test that works on a ROS master, by whatever fixture, is marked `ros`."""
from __future__ import annotations

import signal

import pytest

#: Fixtures that bring a master to the test's process, which can know only one.
MASTERS = {"bench", "master"}


def pytest_configure():
    # A shell starts background jobs with SIGINT ignored, and processes that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        # Under nohup they would inherit that, too. A handler that does nothing keeps this process, and is not inherited.
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_modifyitems(items):
    for item in items:
        if MASTERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.ros)
