"""Whole steps of the recipes for a GPU, on tensors without numbers: nothing meets over two devices, and the host hardly waits."""
from __future__ import annotations

import json
import os
import subprocess
import sys

import fake_gpu
import pytest
import torch

from hybridvla_core.model.layers import constant
from hybridvla_core.paths import ROOT

possible = pytest.mark.skipif(not fake_gpu.POSSIBLE, reason="this torch has no device for backends written in Python")


def program(*arguments):
    places = [ROOT / "src", ROOT / "test/support"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def stages():
    done = program(str(ROOT / "test/support/fake_steps.py"))
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.long
@possible
def test_every_stage_of_the_recipes_for_a_gpu_takes_steps_and_is_validated_and_exported(stages):
    names = {(row["recipe"], row["stage"]) for row in stages}
    assert names == {("tiny_gpu", "act"), ("suite_gpu", "see"), ("suite_gpu", "ground"), ("suite_gpu", "act"),
                     ("dual_gpu", "act"), ("lora", "tune"), ("paper", "finetune")}
    assert {row["precision"] for row in stages} == {"float32", "bfloat16"}
    for row in stages:
        assert row["values"] == row["terms"] == row["validated"], row
        assert row["moments"] > 0 and row["average"] in ([], [f"{fake_gpu.NAME} torch.float32"]), row
        assert row["exported"] == ["cpu"], row


@pytest.mark.long
@possible
def test_the_host_waits_for_the_losses_and_for_the_gradient_and_for_nothing_else(stages):
    for row in stages:
        parts = 2 if row["recipe"] in ("lora", "paper") else 1      # micro_batch
        assert row["waits"] == ["numbers"] * parts + ["a number"], row


MIXED = """
import fake_gpu, torch
fake_gpu.register()
gpu = fake_gpu.FakeGpu()
with gpu.on():
    weight = torch.nn.Parameter(torch.empty(4, 4, device=fake_gpu.NAME))
    torch.zeros(4, device=fake_gpu.NAME)[torch.tensor([1, 2])]
    assert gpu.waits, "an index of the host moves"
    two_types = lambda: weight @ torch.zeros(4, 4, device=fake_gpu.NAME).bfloat16()
    for number, wrong in enumerate((lambda: weight + torch.zeros(4), two_types)):
        try:
            wrong()
        except RuntimeError:
            continue
        raise SystemExit(f"not refused: {number}")
    with torch.autocast(fake_gpu.NAME, dtype=torch.bfloat16):
        made = weight @ weight
        assert made.dtype == torch.bfloat16 and made.sum().dtype == torch.float32
    made.float().sum().backward()
    assert weight.grad.dtype == torch.float32 and weight.grad.device.type == fake_gpu.NAME
"""


@possible
def test_the_gpu_that_is_not_there_refuses_what_a_gpu_refuses():
    done = program("-c", MIXED)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout


def test_a_constant_is_made_once_and_may_be_trained_through():
    with torch.inference_mode():
        first = constant(((3, 1),), torch.long, torch.device("cpu"))
    assert first is constant(((3, 1),), torch.long, torch.device("cpu")) and first.tolist() == [[3, 1]]
    table = torch.nn.Embedding(4, 2)
    table(first).sum().backward()
    assert table.weight.grad[[1, 3]].tolist() == [[1, 1], [1, 1]]
