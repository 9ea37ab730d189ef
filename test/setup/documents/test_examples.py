"""Every example runs as its first lines say, and shows what it is meant to show."""
from __future__ import annotations

import json
import subprocess
import sys

import pytest
import replay_bag

from hybridvla_core.paths import ROOT

pytestmark = pytest.mark.long      # because of the module's fixture

#: Example -> its arguments; BAG is a small bag.
RUNS = {"filter_without_ros.py": [], "policy_in_process.py": [], "own_policy.py": ["--once"], "replay_as_a_library.py": ["BAG"]}
#: One interpreter for all of them, because their imports take longer than their work.
RUNNER = """
import contextlib, json, runpy, sys, traceback
runs = json.loads(sys.argv[1])
for path, arguments in runs.items():
    sys.argv = [path, *arguments]
    with open(sys.stdin.readline().strip(), "w") as said, contextlib.redirect_stdout(said):
        try:
            runpy.run_path(path, run_name="__main__")
        except BaseException:
            traceback.print_exc()
            print("ended with an error")
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Return what each example printed, by its name."""
    folder = tmp_path_factory.mktemp("examples")
    bag = str(replay_bag.write(folder / "motion.bag", replay_bag.Motion(4.0)))
    runs = {str(ROOT / "examples" / name): [bag if one == "BAG" else one for one in given] for name, given in RUNS.items()}
    files = {name: folder / f"{name}.txt" for name in RUNS}
    done = subprocess.run([sys.executable, "-c", RUNNER, json.dumps(runs)], input="\n".join(map(str, files.values())),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    texts = {name: file.read_text(encoding="utf-8") for name, file in files.items()}
    assert not [name for name, text in texts.items() if text.endswith("ended with an error\n")], done.stderr
    return texts


def test_the_filter_without_ros_keeps_a_target_inside(said):
    text = said["filter_without_ros.py"]
    assert "asked for   [1.25 0.95 1.15] m" in text and text.splitlines()[-1] == "inside: yes"


def test_a_policy_in_process_predicts(said):
    text = said["policy_in_process.py"]
    assert "put the red block on the green pad" in text and "mean confidence" in text


def test_replay_as_a_library_judges_a_bag(said):
    text = said["replay_as_a_library.py"]
    assert "verdict" in text and "filter/workspace" in text and "lines, the first: {" in text


def test_a_policy_of_ones_own_answers_by_the_wire(said):
    text = said["own_policy.py"]
    assert "answering at ws://127.0.0.1:" in text and "move by [0.   0.   0.04] m" in text


def test_every_example_is_run_here():
    assert sorted(RUNS) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))
