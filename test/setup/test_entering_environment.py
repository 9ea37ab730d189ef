"""`hybridvla` in a shell where nothing was sourced: only what needs ROS enters the clone's environment."""
from __future__ import annotations

import importlib
import importlib.util
import signal
import subprocess
import sys

import pytest

from hybridvla_cli import __main__ as command_line
from hybridvla_cli.shared import environment
from hybridvla_core.paths import ROOT


@pytest.fixture
def plain_shell(monkeypatch, tmp_path):
    """Return a function that runs `hybridvla` with nothing sourced, and returns its exit status.

    Its `clone` has no devel space yet; its `restarts` are the commands that would have replaced the process.
    """
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "with_env.sh").touch()
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.delenv("HYBRIDVLA_ENTERED", raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "hybridvla" else find(name, *rest))
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    restarts = []

    def restart(file, command, environ):
        restarts.append((file, command[1:], environ["HYBRIDVLA_ENTERED"]))
        raise SystemExit("restarted")

    def run(*words):
        module = importlib.import_module(f"hybridvla_cli.{next(word for word in words if word[0] != '-')}")
        monkeypatch.setattr(module, "run", lambda args: 0)
        monkeypatch.setattr(sys, "argv", ["hybridvla", *words])
        with pytest.raises(SystemExit) as end:
            command_line.entry()
        return end.value.code
    monkeypatch.setattr(environment.os, "execve", restart)
    run.clone, run.restarts = tmp_path, restarts
    return run


WITH_ROS = ["dataset from-bags a.bag -o out", "replay a.bag --checkpoint c", "watch", "evaluate --ros --checkpoint c",
            "ablate rigs", "ablate --quick all", "--debug ablate rigs"]
WITHOUT_ROS = ["dataset inspect d", "dataset stats d", "dataset merge a b -o out", "dataset export d -o out",
               "dataset from-rlds d -o out", "dataset stats --help", "dataset from-bags --help", "replay --help", "watch -h",
               "evaluate --checkpoint c", "evaluate --ros --help", "ablate modes", "ablate modes -o rigs", "ablate rigs --report"]


@pytest.mark.parametrize("words", WITH_ROS)
def test_what_needs_ros_enters_the_clone_s_environment_or_says_that_it_is_missing(plain_shell, capsys, words):
    runner, words = plain_shell.clone / "scripts" / "with_env.sh", words.split()
    if "all" in words:      # does what needs no ROS, and names the rest
        assert plain_shell(*words) == 0
    elif "--debug" not in words:
        assert plain_shell(*words) == 1
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1 and said.startswith(f"hybridvla: {words[0]}") and "run `make setup`" in said
    assert plain_shell.restarts == []
    (plain_shell.clone / "devel").mkdir()
    (plain_shell.clone / "devel" / "setup.bash").touch()
    assert plain_shell(*words) == "restarted"
    assert plain_shell.restarts == [(str(runner), [sys.executable, "-m", "hybridvla_cli", *words], "1")]


@pytest.mark.parametrize("words", WITHOUT_ROS)
@pytest.mark.parametrize("built", [False, True], ids=["without devel", "with devel"])
def test_what_needs_no_ros_runs_where_it_was_started(plain_shell, words, built):
    if built:
        (plain_shell.clone / "devel").mkdir()
        (plain_shell.clone / "devel" / "setup.bash").touch()
    assert plain_shell(*words.split()) == 0
    assert plain_shell.restarts == []


@pytest.mark.long
def test_replay_enters_the_clone_s_environment_by_itself():
    """With nothing sourced, the messages are found in the clone's devel space."""
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [str(ROOT / ".venv" / "bin" / "hybridvla"), "replay", str(ROOT / "no.bag"), "--checkpoint", "checkpoints/tiny"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", env=bare,
                          check=False)
    assert done.returncode == 1 and "no.bag" in done.stdout
    assert "not installed" not in done.stdout and "Traceback" not in done.stdout


def test_options_after_with_env_are_the_command_s():
    done = subprocess.run([str(ROOT / "scripts" / "with_env.sh"), "printf", "%s ", "--help", "--local"], stdout=subprocess.PIPE,
                          encoding="utf-8", check=True)
    assert done.stdout == "--help --local "
