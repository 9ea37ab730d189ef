"""A suite in several processes: a process that dies is named, and however the suite ends, no process is left behind."""
import functools
import os
import signal
import subprocess
import sys
import time

import pytest

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_sim import tasks
from hybridvla_sim.suite import run_suite

pytestmark = pytest.mark.robot_computer

#: `evaluate` with the policy replaced by one that never answers, so that no episode ends.
STUCK = """
import sys, time, types
from hybridvla_cli import evaluate
from hybridvla_core.evaluation import trained
from hybridvla_core.paths import ROOT
from hybridvla_core.policy import fit
def wait(folder, mode):
    print("loaded", flush=True)
    if {worker}:
        time.sleep(600)
    return types.SimpleNamespace(cameras=("front",))
evaluate.load_policy, fit.check_fit, trained.check_trained = wait, lambda *_: None, lambda *_: None
if __name__ == "__main__":
    from hybridvla_cli.__main__ import entry
    sys.argv = ["hybridvla", "evaluate", "--checkpoint", str(ROOT / "checkpoints/tiny"), "--processes", "2", "--episodes", "4"]
    entry()
"""


def test_a_worker_that_dies_is_named_and_is_no_failed_episode():
    seen = []
    task = tasks.load("blocks", rig="fr3")
    specs = task.draw(2_000_001, 3, switched=False)
    with pytest.raises(HybridVLAError, match="worker process ended without a result after 0 of 3"):
        run_suite(functools.partial(os._exit, 9), load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml"),
                  load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml"), task, specs, 2, seen.append)
    assert seen == []


def test_a_worker_that_cannot_start_says_why(tmp_path):
    task, missing = tasks.load("blocks", rig="fr3"), tmp_path / "gone.yaml"
    specs = task.draw(2_000_001, 3, switched=False)
    config = load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml")
    with pytest.raises(HybridVLAError, match=f"^{missing}: cannot be read"):
        run_suite(functools.partial(load_file, PolicyConfig, missing), config,
                  load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml"), task, specs, 2, print)


@pytest.mark.long
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_processes_without_a_traceback(tmp_path, number, status):
    script, said = tmp_path / "stuck.py", tmp_path / "said"
    script.write_text(STUCK.format(worker="__name__ != '__main__'"))
    with said.open("w") as out:
        process = subprocess.Popen([sys.executable, str(script)], stdout=out, stderr=out, start_new_session=True,
                                   env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
        deadline = time.monotonic() + 240.0
        while said.read_text().count("loaded") < 3:                   # here and in both workers
            assert process.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        assert process.wait(timeout=120) == status
    assert "Traceback" not in said.read_text()
    with pytest.raises(ProcessLookupError):
        for _ in range(600):
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@pytest.mark.parametrize("arguments", [["evaluate", "--checkpoint", "none", "--processes", "0"],
                                       ["train", "--config", "c", "--data", "d", "--work", "w", "--out", "o", "--threads", "0"]])
def test_counts_below_one_are_refused_by_their_option(arguments, capsys):
    from hybridvla_cli.__main__ import main

    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert arguments[-2] in said and "at least 1" in said
