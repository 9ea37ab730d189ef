"""Too little memory: one sentence names what to lower, on CPU and GPU, for every verb that loads a model."""
from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small_policy import observation, write

from hybridvla_cli.__main__ import main
from hybridvla_core.errors import ConfigurationError, DeviceError
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.inference.device_memory import check_device
from hybridvla_core.policy.predictor import Policy

CPU_REFUSAL = ("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
               "allocate 90177536 bytes. Error code 12 (Cannot allocate memory)")
REFUSALS = (RuntimeError(CPU_REFUSAL), MemoryError(), torch.cuda.OutOfMemoryError("out"))
#: A limit of one gigabyte more than the process has when torch is imported, and a model of more than ten.
LIMITED = """
import resource, sys
import hybridvla_core.policy.predictor
import hybridvla_core.benchmark.run
from hybridvla_cli.__main__ import main
used = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize"))) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 2 ** 30, used + 2 ** 30))
sys.exit(main(["bench", "--preset", "hybridvla-7b", "--dtype", "bfloat16", "--rounds", "1", "--threads", "1"]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("checkpoint") / "small")


def refuse_weights(monkeypatch, error):
    def fail(*_, **__):
        raise error
    monkeypatch.setattr(torch.nn.Module, "to_empty", fail)


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_at_start_it_says_what_to_lower(folder, monkeypatch, error):
    refuse_weights(monkeypatch, error)
    with pytest.raises(DeviceError, match="cpu has too little memory.*billion parameters.*use dtype bfloat16"):
        Policy.from_checkpoint(folder)
    with pytest.raises(DeviceError, match="smaller model"):
        Policy.from_checkpoint(folder, dtype="bfloat16")


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_during_a_prediction_as_well(folder, monkeypatch, error):
    policy = Policy.from_checkpoint(folder)

    def fail(*_, **__):
        raise error
    monkeypatch.setattr(policy.path, "run", fail)
    with pytest.raises(DeviceError, match="cpu has too little memory.*use dtype bfloat16"):
        policy.predict(observation())


def test_an_error_of_ours_stays_one(folder, monkeypatch):
    refuse_weights(monkeypatch, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Policy.from_checkpoint(folder)


def test_the_verbs_print_the_sentence(folder, monkeypatch, tmp_path, capsys):
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(str(tmp_path / "front.png"))
    refuse_weights(monkeypatch, REFUSALS[0])
    for arguments in (["bench", "--preset", "tiny"], ["bench", "--checkpoint", str(folder)],
                      ["predict", "--checkpoint", str(folder), "--image", str(tmp_path / "front.png"), "--instruction",
                       "go", "--state=0,0,0,0,0,0,0"]):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "too little memory" in said and "use dtype bfloat16" in said


@pytest.mark.parametrize("said, message", [
    ("The NVIDIA driver on your system is too old (found version 11040)", "driver is older than torch's CUDA 12.8"),
    ("CUDA driver version is insufficient for CUDA runtime version", "update the driver, or install a torch made for it"),
    ("Found no NVIDIA driver on your system. Please check\nmore", r"\(Found no NVIDIA driver on your system. Please check\)"),
    (None, "no card is visible")])
def test_why_there_is_no_gpu_is_said(monkeypatch, said, message):
    def init():
        if said is not None:
            raise RuntimeError(said)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(ConfigurationError, match=f"no GPU that torch can use here.*{message}.*use --device cpu"):
        check_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigurationError, match="this torch is the one for processors"):
        check_device("cuda:0")


def test_another_gpu_than_the_first_is_refused_with_what_makes_it_the_first(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda")
    check_device("cuda:0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ConfigurationError, match="CUDA_VISIBLE_DEVICES=1 in the environment.*and device cuda$"):
        Policy.from_checkpoint(ROOT / "checkpoints/tiny", device="cuda:1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with pytest.raises(ConfigurationError, match="CUDA_VISIBLE_DEVICES=6 in"):
        check_device("cuda:1")


@pytest.mark.long
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the process's size is read from /proc")
def test_a_process_whose_memory_is_limited_ends_in_one_sentence():
    done = subprocess.run([sys.executable, "-c", LIMITED], env={**os.environ, "OMP_NUM_THREADS": "1"},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "cpu has too little memory for this model" in done.stderr and "use fewer views or a smaller model" in done.stderr
