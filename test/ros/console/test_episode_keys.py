"""Labels by keys, through a real pseudo-terminal."""
from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from types import SimpleNamespace

import pytest

from hybridvla_core.paths import ROOT
from hybridvla_ros.console import episode_keys
from hybridvla_ros.console.episode_keys import KEYS, KeyReader, loop
from hybridvla_ros.recording import episode_node


@pytest.fixture
def terminal():
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_each_key_calls_its_service_and_q_ends(terminal):
    master, slave = terminal
    before = termios.tcgetattr(slave)
    asked, said = [], []
    with KeyReader(slave) as reader:
        os.write(master, b"syxnDq")
        loop(reader, lambda name: asked.append(name) or f"did {name}", said.append)
    assert asked == ["start", "success", "failure", "discard"]
    assert said[1] == "did start" and said[3].startswith("s start"), "an unknown key shows the help"
    assert termios.tcgetattr(slave) == before, "the terminal is as it was"


@pytest.mark.parametrize("key", [b"\x1b[D", b"\x1bOS", b"\x1b[15~", b"\x1bd"], ids=["left arrow", "F4", "F5", "Alt and d"])
def test_a_key_that_a_terminal_says_in_several_bytes_is_none_of_its_letters(terminal, key):
    master, slave = terminal
    asked, said = [], []
    with KeyReader(slave) as reader:
        os.write(master, key)
        assert reader.read(1.0) == key.decode()
        os.write(master, key)
        loop(EndsWhenIdle(reader), lambda name: asked.append(name) or "", said.append)
    assert not asked and len(said) == 2, "an unknown key shows the help"


class EndsWhenIdle:
    """A reader whose input ends when nothing comes any more."""

    def __init__(self, reader: KeyReader) -> None:
        self._reader = reader

    def read(self, timeout: float) -> str:
        return self._reader.read(timeout) or ""


def test_without_a_terminal_it_says_so_instead_of_waiting_for_ever():
    done = subprocess.run([sys.executable, str(ROOT / "nodes/episode_keys")], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "needs a terminal" in done.stderr


def test_an_answer_is_waited_for_longer_than_the_episodes_may_take(monkeypatch):
    waited = {}

    def ask(service, _kind, answer_s):
        waited[service.rpartition("/")[2]] = answer_s
        return SimpleNamespace(success=True, message="episode 1: success")

    monkeypatch.setattr(episode_keys, "ask", ask)
    assert {episode_keys.call(name) for name in KEYS.values()} == {"episode 1: success"}
    assert waited["start"] > episode_node.ANSWER_S + episode_node.LOOK_S
    assert min(waited["success"], waited["failure"]) > episode_node.CLOSED_S + episode_node.LOOK_S and waited["discard"] > 0.0
