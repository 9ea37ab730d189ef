"""Every example runs as its first lines say, and shows what it is there for."""
from __future__ import annotations

import subprocess
import sys

import pytest
import replay_bag

from hybridvla_core.paths import ROOT


def run(name, *arguments):
    done = subprocess.run([sys.executable, str(ROOT / "examples" / name), *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_filter_without_ros_keeps_a_target_inside():
    said = run("filter_without_ros.py")
    assert "asked for   [1.25 0.95 1.15] m" in said and said.splitlines()[-1] == "inside: yes"


def test_a_policy_in_process_predicts():
    said = run("policy_in_process.py")
    assert "put the red block on the green pad" in said and "mean confidence" in said


def test_replay_as_a_library_judges_a_bag(tmp_path):
    said = run("replay_as_a_library.py", str(replay_bag.write(tmp_path / "motion.bag", replay_bag.Motion(4.0))))
    assert "verdict" in said and "filter/workspace" in said and "lines, the first: {" in said


def test_a_policy_of_ones_own_answers_by_the_wire():
    said = run("own_policy.py", "--once")
    assert "answering at ws://127.0.0.1:" in said and "move by [ 0.    0.   -0.02] m" in said


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_every_example_is_run_here(path):
    assert f'run("{path.name}"' in (ROOT / "test" / "setup" / "test_examples.py").read_text(encoding="utf-8")
