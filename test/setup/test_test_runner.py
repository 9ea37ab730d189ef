"""scripts/test.sh: what it asks pytest for, and which results of pytest make it fail."""
from __future__ import annotations

import os
import subprocess

import pytest

from hybridvla_core.paths import ROOT

FAILED, CRASHED, NOTHING = 1, 139, 5
#: Stands for python: writes its arguments down and ends as STATUS_OF says for the first word that they contain.
PYTHON = """#!/bin/bash
printf '%s\\n' "$*" >>"$CALLS"
for rule in $STATUS_OF; do
  case " $* " in *"${rule%=*}"*) exit "${rule##*=}" ;; esac
done
"""


@pytest.fixture
def test_sh(tmp_path):
    """Yield a function that runs the script with a stand-in for python and returns its status and the calls."""
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(*arguments, rules="", **environment):
        calls = tmp_path / "calls"
        calls.write_text("")
        ours = ("PART", "HYBRIDVLA_SECOND_TRY", "HYBRIDVLA_COVERAGE")
        kept = {key: value for key, value in os.environ.items() if key not in ours}
        kept.update(PATH=f"{tmp_path}:{kept['PATH']}", CALLS=str(calls), STATUS_OF=rules, **environment)
        done = subprocess.run(["bash", str(ROOT / "scripts/test.sh"), *arguments], env=kept, capture_output=True, timeout=60)
        return done.returncode, calls.read_text().splitlines()
    return run


def test_every_folder_of_tests_is_in_a_pass_and_success_is_success(test_sh):
    status, calls = test_sh()
    assert status == 0
    assert sum("not ros and not long" in call for call in calls) == 1
    on_a_master = [call.split()[2] for call in calls if "-m ros and not long" in call]
    assert on_a_master == ["test/ros", "test/faults", *sorted(f"test/rigs/{path.name}" for path in
                                                             (ROOT / "test/rigs").glob("test_*.py"))]


@pytest.mark.parametrize("rules, status", [
    ("worksteal=1", FAILED), ("test/ros=1", FAILED), ("test/faults=139", CRASHED), ("test/ros=5", NOTHING),
    ("test/rigs/=5", 0), ("test/rigs/=1", FAILED), ("test/ros=1 test/rigs/=5", FAILED)])
def test_a_pass_that_fails_dies_or_has_lost_its_tests_fails_and_a_file_of_the_rigs_may_have_none(test_sh, rules, status):
    assert test_sh(rules=rules)[0] == status


def test_what_failed_in_a_graph_is_tried_again_and_a_crash_is_not(test_sh):
    status, calls = test_sh(rules="--last-failed=0 test/ros=1", HYBRIDVLA_SECOND_TRY="1")
    assert status == 0 and sum("--last-failed" in call for call in calls) == 1
    status, calls = test_sh(rules="--last-failed=1 test/ros=1", HYBRIDVLA_SECOND_TRY="1")
    assert status == FAILED
    status, calls = test_sh(rules="--last-failed=5 test/rigs/=1", HYBRIDVLA_SECOND_TRY="1")
    assert status == FAILED, "a second try that finds nothing to try proves nothing"
    status, calls = test_sh(rules="--last-failed=0 test/ros=139", HYBRIDVLA_SECOND_TRY="1")
    assert status == CRASHED and not any("--last-failed" in call for call in calls)


def test_arguments_go_to_pytest_alone(test_sh):
    assert test_sh("test/core", "-k", "gate") == (0, ["-m pytest test/core -k gate"])
