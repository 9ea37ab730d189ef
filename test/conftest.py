"""Selection of tests: every test that works on a ROS master, through whichever fixture, is marked `ros`."""
from __future__ import annotations

import signal

import pytest

#: Fixtures that connect the test's process to a master; a process can know only one.
MASTERS = {"bench", "master"}


def pytest_configure():
    # A shell starts background jobs with SIGINT ignored, and processes that the tests start would inherit this setting.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        # Under nohup they would also inherit SIGHUP ignored. An empty handler protects this process and is not inherited.
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_modifyitems(items):
    for item in items:
        if MASTERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.ros)
