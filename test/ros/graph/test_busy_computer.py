"""A computer with other work: threads that wait without spinning, and a policy that says what it waits for."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_ros.runtime.overload import Overload, waited_s
from hybridvla_ros.runtime.patience import patience
from hybridvla_ros.runtime.threads import processors, use_threads


def run(code, **environment):
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    return subprocess.run([sys.executable, "-c", code], env={**variables, **environment}, capture_output=True, text=True,
                          check=True)


@pytest.mark.long
def test_the_policy_node_makes_idle_threads_sleep_before_torch_can_be_loaded():
    code = ("import os, runpy, sys, hybridvla_ros.runtime.node_support as support\n"
            "support.run_node = lambda *_, **__: print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])\n"
            f"runpy.run_path({str(ROOT / 'nodes' / 'policy_node')!r})")
    assert run(code).stdout.split() == ["False", "PASSIVE"]
    assert run(code, OMP_WAIT_POLICY="ACTIVE").stdout.split() == ["False", "ACTIVE"]     # a person's own setting stays


@pytest.mark.long
def test_openmp_reads_it_and_torch_takes_the_configured_number_of_threads():
    pytest.importorskip("torch")
    done = run("from hybridvla_ros.runtime.threads import use_threads, wait_quietly\n"
               "wait_quietly(); use_threads(1)\n"
               "import torch\nprint(torch.get_num_threads())\nuse_threads(2)\nprint(torch.get_num_threads())",
               OMP_DISPLAY_ENV="TRUE")
    assert done.stdout.split() == ["1", "2"] and "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


@pytest.mark.parametrize("given, wanted, count", [("", 0, max(1, processors() - 1)), ("4", 0, 4), ("4", 2, 2), ("6,2", 0, 6)])
def test_the_number_of_threads_is_the_configured_one_or_the_environments_or_leaves_a_processor_free(monkeypatch, given, wanted,
                                                                                                   count):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert use_threads(wanted) == count and os.environ["OMP_NUM_THREADS"] == str(count)


def test_a_wrong_number_of_threads_is_refused_by_name():
    config = load_file(PolicyConfig, ROOT / "config" / "policies" / "tiny.yaml")
    assert config.threads == 0
    with pytest.raises(ConfigurationError, match="threads"):
        PolicyConfig(**{**vars(config), "threads": -1})


@pytest.mark.parametrize("waited, wall, named", [(3.0, 4.0, True), (0.5, 4.0, False), (0.05, 0.06, False)])
def test_overload_is_named_when_a_thread_waited_long_for_a_processor(waited, wall, named):
    counters, now = {"1": 10.0, "2": 5.0}, [100.0]
    overload = Overload(lambda: dict(counters), lambda: now[0])
    overload.begin()
    counters["2"] += waited
    now[0] += wall
    overload.end()
    assert bool(overload.problem) is named
    if named:
        assert "overloaded" in overload.problem and f"{waited} s" in overload.problem and "threads" in overload.problem
    overload.begin()
    now[0] += wall
    overload.end()
    assert overload.problem == ""       # the next piece of work is timed by itself


def test_the_kernels_counters_of_this_process_are_read():
    if not os.path.exists("/proc/self/schedstat"):
        pytest.skip("this kernel does not count it")
    assert str(os.getpid()) in waited_s() and all(seconds >= 0.0 for seconds in waited_s().values())


@pytest.mark.parametrize("load, processors_, factor", [(0.3, 2, 1.0), (5.0, 2, 2.5), (500.0, 2, 6.0)])
def test_time_limits_grow_with_the_load_within_a_bound(monkeypatch, load, processors_, factor):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: processors_)
    assert patience(10.0) == pytest.approx(10.0 * factor)
