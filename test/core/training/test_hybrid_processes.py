"""Several processes act as one: the same run on two, a run resumed on another number, and a run whose reader is killed."""
from __future__ import annotations

import datetime
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import toy_data
from test_hybrid_run import GROUNDED, STAGES, go, program, rows, weights

from hybridvla_core.errors import ConfigurationError, HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.training.distributed import Processes, check_torch

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
EPSILON = 1e-4
several = pytest.mark.skipif(tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 6),
                             reason="needs fully_shard")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data.write(tmp_path_factory.mktemp("data") / "toy", sentences=2)


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), data)


def run(folder, data, launcher=()):
    """Train, in this process when there is no launcher, so that nothing is imported again."""
    # AdamW turns a gradient of nothing but rounding into a full step; a larger epsilon prevents that.
    if launcher:
        process = program(folder, data, launcher, epsilon=EPSILON, labels=2)
        said = process.communicate(timeout=400)[0].decode()
        assert process.returncode == 0, said
    else:
        with pytest.MonkeyPatch.context() as patch:
            toy_data.add_preset(patch)
            go(folder, data, config=toy_data.config(grounding=GROUNDED, stages=STAGES, augment="photometric", export="float32",
                                                    labels=2, optimizer=dict(epsilon=EPSILON)))
    return folder


def assert_close(one, other):
    """Assert that weights and losses agree to 1e-6."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        np.testing.assert_allclose(theirs[name].float(), tensor.float(), atol=1e-6, rtol=0, err_msg=name)
    for a, b in zip(rows(one), rows(other)):
        assert a.keys() == b.keys() and a["total"] == b["total"]
        for key, value in a.items():
            if isinstance(value, float):
                assert b[key] == pytest.approx(value, abs=2e-6, rel=1e-6), (a["total"], key)


@pytest.mark.long
@several
def test_two_processes_do_what_one_does_and_go_on_as_one(data, alone, tmp_path):
    two = run(tmp_path, data, TWO)
    assert_close(alone, two)
    # One process resumes from the last but one state of two processes.
    states = sorted((two / "work/state").glob("step-*"))
    shutil.rmtree(states[-1])
    shutil.rmtree(two / "out")
    assert_close(alone, run(two, data))


@pytest.mark.long
@several
def test_one_process_goes_on_as_two(data, alone, tmp_path):
    shutil.copytree(alone / "work", tmp_path / "work")
    shutil.rmtree(sorted((tmp_path / "work/state").glob("step-*"))[-1])
    assert_close(alone, run(tmp_path, data, TWO))


@pytest.mark.long
@several
def test_two_processes_go_on_from_the_step_before_a_torn_one(data, alone, tmp_path):
    shutil.copytree(alone / "work", tmp_path / "work")
    last = sorted((tmp_path / "work/state").glob("step-*"))[-1]
    for file in last.glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])
    assert_close(alone, run(tmp_path, data, TWO))
    assert (tmp_path / "work/state" / f"torn-{last.name}").is_dir()


@pytest.mark.parametrize("version, fits", [("2.4.1", False), ("2.5.1+cpu", False), ("2.6.0", True), ("2.13.0+cpu", True)])
def test_a_torch_that_cannot_share_says_so(version, fits):
    if fits:
        check_torch(version)
    else:
        with pytest.raises(ConfigurationError, match="single process; several need torch 2.6"):
            check_torch(version)


def test_processes_wait_longer_than_the_first_one_decodes_pictures(monkeypatch):
    asked = {}
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend, **options: asked.update(options, backend=backend))
    monkeypatch.setattr("hybridvla_core.training.distributed.check_torch", lambda version: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert not Processes.start("cpu").first
    assert asked["backend"] == "gloo" and asked["timeout"] >= datetime.timedelta(hours=24)


ALONE = """
import sys
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.training.distributed import Processes

processes = Processes.start("cpu")

def fails():
    raise OSError(28, "No space left on device")

done = []
processes.first_alone(lambda: done.append(1))
try:
    processes.first_alone(fails)
except (OSError, HybridVLAError) as error:
    done.append(str(error))
print(f"rank {processes.rank}: {done}\\n", end="")
processes.stop()
"""


@pytest.mark.long
@several
def test_what_the_first_process_does_alone_fails_on_all(tmp_path):
    (tmp_path / "alone.py").write_text(ALONE)
    done = subprocess.run([*TWO, str(tmp_path / "alone.py")], env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    said = done.stdout.decode()
    assert done.returncode == 0 and "rank 0: [1, '[Errno 28] No space left on device']" in said, said
    assert "rank 1: ['process 1 ends because the first one failed; its message says why']" in said


def test_processes_take_their_rows():
    one, other = (Processes(rank, 2, torch.device("cpu")) for rank in range(2))
    assert (one.rows(8), other.rows(8)) == (slice(0, 4), slice(4, 8))


def test_a_reading_process_that_is_killed_is_named_and_the_files_are_not_blamed(data, tmp_path, monkeypatch):
    from hybridvla_core.training.hybrid.feed import Feed

    toy_data.add_preset(monkeypatch)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    monkeypatch.setattr(Feed, "training", lambda *_: os.kill(os.getpid(), signal.SIGKILL))     # in the reading process
    with pytest.raises(HybridVLAError, match="reads training data was killed .*workers.*goes on from the last"):
        go(tmp_path, data, config=toy_data.config(stages=STAGES[1:], workers=1))
