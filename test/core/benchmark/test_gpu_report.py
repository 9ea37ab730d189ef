"""`scripts/gpu_report.sh` where there is no GPU, and wrong usage: one sentence each."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from hybridvla_core.paths import ROOT


@pytest.mark.long
@pytest.mark.parametrize("changes, message", [
    ({}, "no GPU here"), ({"BENCH_ROUNDS": "many"}, "whole numbers"), ({"PYTHON": "SCRIPT"}, "missing for")])
def test_what_cannot_be_measured_is_one_sentence(tmp_path, changes, message):
    if not changes and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    bare = tmp_path / "bare"
    bare.write_text(f"#!/bin/sh\nexec {sys.executable} -S -I \"$@\"\n")
    bare.chmod(0o755)
    environment = {**os.environ, "PYTHON": sys.executable, **changes}
    if environment["PYTHON"] == "SCRIPT":
        environment["PYTHON"] = str(bare)
    done = subprocess.run([str(ROOT / "scripts" / "gpu_report.sh"), str(tmp_path / "out")], env=environment, text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
