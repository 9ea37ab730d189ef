"""make field: it judges an output by what a case's README expects; without the cases' folder it says so and passes."""
from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hybridvla_core.paths import ROOT

FOLDER = ROOT / "test" / "field"


@pytest.fixture(scope="module")
def field():
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("field_run", str(FOLDER / "run.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))


def test_an_output_is_judged_by_words_and_numbers(field):
    case = field.Case("x", "", wanted=("sentence",), refused=("accepted",), numbers=((r"(\d+) mm", 0, 5),))
    assert field.reasons(case, "one sentence, 3 mm and 4 mm") == []
    assert len(field.reasons(case, "accepted, 3 mm and 40 mm")) == 3
    assert field.reasons(case, "sentence") == [r"gives no number for '(\\d+) mm'"]
    assert field.reasons(field.Case("x", ""), "Traceback (most recent call last):\n") != []


def test_names_that_have_moved_are_replaced_in_the_copy(field, tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "case.py").write_text(
        "from hybridvla_core.safety.config import load_robot\nimport hybridvla_ros.images\n"
        "from hybridvla_core.safety.filter import SafetyFilter\n")
    text = (field.adapted(tmp_path / "from", tmp_path) / "case.py").read_text()
    assert text == ("from hybridvla_core.robots.config import load_robot\nimport hybridvla_ros.messages.images\n"
                    "from hybridvla_core.safety.filter import SafetyFilter\n")


@pytest.mark.parametrize("way", ["", "setsid "])           # roslaunch starts its nodes in sessions of their own
def test_what_a_script_leaves_running_is_ended(field, tmp_path, way):
    (tmp_path / "case").mkdir()
    outcome, why, said = field.run(field.Case("case", f"{way}sleep 300 >/dev/null 2>&1 & echo $!"), tmp_path, tmp_path)
    assert outcome == field.PASSED, why
    left = Path(f"/proc/{int(said)}/cmdline")
    deadline = time.monotonic() + 20.0
    while left.exists() and left.read_bytes():        # a zombie process has no command line
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_the_folder_it_says_so_and_passes(tmp_path):
    done = subprocess.run([sys.executable, str(FOLDER / "run.py")], stdout=subprocess.PIPE, encoding="utf-8", check=False,
                          env={**os.environ, "HYBRIDVLA_FIELD_CASES": str(tmp_path)})
    assert done.returncode == 0 and "holds no field cases" in done.stdout
