"""Two recorders or two episode nodes on one folder: neither touches the other's files, and the end of one frees its files."""
from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from recordings import files, finish, record

from hybridvla_core.paths import ROOT
from hybridvla_ros.recording import locks
from hybridvla_ros.recording.episodes import EpisodeError, EpisodeLog, read_events
from hybridvla_ros.recording.locks import Busy, FileLock
from hybridvla_ros.recording.recording import RecordingError, recover

#: Locks a bag and a label file as their writers do, prints that it holds them, and waits to be killed.
HOLDER = """
import os, sys, time
from pathlib import Path
from hybridvla_ros.recording.locks import FileLock, OnlyUser
bag = FileLock(Path(sys.argv[1]) / "one.bag.active", os.O_CREAT | os.O_EXCL)
labels = OnlyUser(Path(sys.argv[1]) / "episodes.jsonl")
print("holds", flush=True)
time.sleep(300)
"""


@pytest.fixture
def no_locks(monkeypatch):
    """Simulate a file system without locks."""
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    monkeypatch.setattr(locks.fcntl, "flock", refuse)


def test_a_recorder_that_starts_leaves_the_bag_of_a_living_one_alone(tmp_path):
    made, said = record(tmp_path), []
    assert recover(tmp_path, said.append) == [] and files(tmp_path) == ["one.bag.active"]
    assert "recording one is being written by another recorder" in said[0]
    assert finish(made)["complete"] and files(tmp_path) == ["one.bag", "one.json"]
    made = record(tmp_path, "two")
    made.discard()
    assert recover(tmp_path) == [] and files(tmp_path) == ["one.bag", "one.json"]


def test_two_recorders_that_want_one_name_at_the_same_moment_do_not_share_a_file(tmp_path, monkeypatch):
    made = record(tmp_path)
    monkeypatch.setattr(type(tmp_path), "exists", lambda _path: False)     # as if both had checked before either wrote
    with pytest.raises(RecordingError, match="never overwritten"):
        record(tmp_path)
    monkeypatch.undo()
    assert finish(made)["complete"]


def test_a_bag_that_is_closed_while_it_is_looked_at_keeps_its_sidecar(tmp_path, monkeypatch):
    made, opened = record(tmp_path), os.open

    def slow(path, *arguments):
        descriptor = opened(path, *arguments)
        if str(path).endswith(".active"):
            monkeypatch.setattr(locks.os, "open", opened)
            finish(made)
        return descriptor
    monkeypatch.setattr(locks.os, "open", slow)
    assert recover(tmp_path) == [] and files(tmp_path) == ["one.bag", "one.json"]
    assert json.loads((tmp_path / "one.json").read_text())["complete"]


def test_the_locks_of_a_killed_process_are_gone_with_it(tmp_path):
    path = tmp_path / "episodes.jsonl"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}"})
    try:
        assert holder.stdout.readline() == "holds\n"
        assert recover(tmp_path) == []
        with pytest.raises(EpisodeError, match=f"process {holder.pid} on {socket.gethostname()} since 20.*labels:="):
            EpisodeLog(path, 1.0)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert recover(tmp_path) == ["one"]
    assert EpisodeLog(path, 1.0).start(2.0).number == 1


def test_a_lock_ends_with_its_holder_though_a_process_that_it_forked_lives_on(tmp_path):
    held = FileLock(tmp_path / "one", os.O_CREAT)
    (there, begun), (end, here) = os.pipe(), os.pipe()
    forked = os.fork()
    if not forked:
        os.close(here)
        os.write(begun, b"x")
        os.read(end, 1)       # until the parent closes its side
        os._exit(0)
    assert os.read(there, 1) == b"x"
    with pytest.raises(Busy):
        FileLock(tmp_path / "one")
    held.release()
    try:
        assert FileLock(tmp_path / "one").held
    finally:
        os.close(here)
        os.waitpid(forked, 0)
        [os.close(descriptor) for descriptor in (there, begun, end)]


def test_a_second_log_on_one_file_is_refused_and_the_open_episode_of_the_first_goes_on(tmp_path):
    path = tmp_path / "episodes.jsonl"
    first = EpisodeLog(path, 1.0)
    first.start(2.0)
    with pytest.raises(EpisodeError, match="stop that episode_node, or name another file"):
        EpisodeLog(path, 3.0)
    first.label("success", 4.0)
    assert [event["event"] for event in read_events(path)] == ["start", "success"]
    first.close()
    assert EpisodeLog(path, 5.0).recovered is None


def test_without_locks_a_recording_goes_on_and_what_lies_there_is_left_for_a_person(tmp_path, no_locks):
    made, said = record(tmp_path), []
    assert not made.locked
    assert recover(tmp_path, said.append) == [] and files(tmp_path) == ["one.bag.active"]
    assert "without locks; if none runs, rename it to one.broken.bag" in said[0]
    assert finish(made)["complete"]


def note(pid, host=None):
    return json.dumps({"pid": pid, "host": host or socket.gethostname(), "since": "today"})


@pytest.mark.parametrize("text, free", [
    ("", True), ("{", True), (note(0), True), (note(2 ** 22 + 1), True), (note(os.getppid()), False), (note(os.getpid()), True),
    (note(2 ** 22 + 1, "elsewhere"), False)],
    ids=["empty", "torn", "nobody", "dead", "living", "own", "elsewhere"])
def test_without_locks_the_note_decides_who_may_keep_labels(tmp_path, no_locks, text, free):
    path = tmp_path / "episodes.jsonl"
    (tmp_path / "episodes.jsonl.lock").write_text(text)
    if free:
        EpisodeLog(path, 1.0).close()
        assert (tmp_path / "episodes.jsonl.lock").read_text() == "", "who ends in order leaves no note"
    else:
        with pytest.raises(EpisodeError, match=r"the file system has no locks, so delete .*episodes\.jsonl\.lock"):
            EpisodeLog(path, 1.0)


def test_a_lock_that_fails_for_another_reason_is_said(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    (tmp_path / "one.bag.active").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(locks.fcntl, "flock", fail)
        with pytest.raises(RecordingError, match="Input/output error"):
            recover(tmp_path)
        with pytest.raises(EpisodeError, match="Input/output error"):
            EpisodeLog(tmp_path / "episodes.jsonl", 1.0)
        with pytest.raises(RecordingError, match="Input/output error"):
            record(tmp_path, "two")
    held = FileLock(tmp_path / "one.bag.active")
    with pytest.raises(Busy):
        FileLock(tmp_path / "one.bag.active")
    held.release()
    assert recover(tmp_path) == ["one"], "nothing is left of the one that could not be locked"
