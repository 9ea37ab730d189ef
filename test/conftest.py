"""Selection of tests: every test that works on a ROS master, through whichever fixture, is marked `ros`."""
from __future__ import annotations

import signal
from pathlib import Path

import pytest

#: Fixtures that connect the test's process to a master; a process can know only one.
MASTERS = {"bench", "master"}
#: Folders whose tests scripts/test.sh runs on a master; elsewhere nobody would run a test marked `ros`.
ON_A_MASTER = ("ros", "faults", "rigs")


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
        if item.get_closest_marker("ros") and item.path.relative_to(Path(__file__).parent).parts[0] not in ON_A_MASTER:
            raise pytest.UsageError(
                f"{item.nodeid}: uses a master (a fixture named {' or '.join(sorted(MASTERS))}, or the marker ros), but no pass "
                f"runs it outside {', '.join(ON_A_MASTER)}; rename the fixture or move it")
