"""Labels: their order, their file, and the effects of a crash, a cut line or a full disk."""
from __future__ import annotations

import errno
import io
import json
import os
import resource

import pytest

from hybridvla_core import files
from hybridvla_ros.recording.episodes import EpisodeError, EpisodeLog, read_events


class Stuck(io.FileIO):
    """A file on a disk that refuses to truncate it."""

    def truncate(self, size=None):
        raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels" / "episodes.jsonl"


def test_a_day_of_episodes_is_a_line_an_event(path):
    log = EpisodeLog(path, 100.0)
    log.set_instruction("put the red block away")
    first = log.start(100.0)
    log.set_instruction("put the blue block away")
    log.set_instruction("put the blue block away")
    assert log.label("success", 107.5, "clean").elapsed_s == 7.5
    log.start(110.0)
    log.label("failure", 111.0)
    log.start(120.0)
    log.label("discard", 121.0)
    events = read_events(path)
    assert [(event["number"], event["event"]) for event in events] == [
        (1, "start"), (1, "success"), (2, "start"), (2, "failure"), (3, "start"), (3, "discard")]
    assert events[1]["instructions"] == ["put the red block away", "put the blue block away"]
    assert events[1]["id"] == first.id and events[1]["note"] == "clean" and events[2]["id"] != first.id
    assert log.counts["start"] == 3 and log.current is None


@pytest.mark.parametrize("label", ["success", "failure", "discard"])
def test_a_label_needs_an_episode_and_an_episode_its_label(path, label):
    log = EpisodeLog(path, 1.0)
    with pytest.raises(EpisodeError, match=f"called a {label}; call start"):
        log.label(label, 1.0)
    log.start(2.0)
    with pytest.raises(EpisodeError, match="episode 1 is running"):
        log.start(3.0)
    with pytest.raises(EpisodeError, match="not a label"):
        log.label("start", 3.0)
    log.label(label, 4.0)
    assert len(read_events(path)) == 2


def test_numbers_go_on_after_a_restart_and_an_open_episode_is_closed_as_aborted(path):
    EpisodeLog(path, 1.0).start(5.0)
    log = EpisodeLog(path, 9.0)
    assert (log.recovered.event, log.recovered.number, log.recovered.elapsed_s) == ("aborted", 1, 4.0)
    assert log.start(10.0).number == 2
    log.label("success", 11.0)
    log.close()
    assert EpisodeLog(path, 12.0).recovered is None
    assert [event["event"] for event in read_events(path)] == ["start", "aborted", "start", "success"]


def test_a_line_cut_off_by_a_power_cut_spoils_nothing_else(path):
    log = EpisodeLog(path, 1.0)
    log.start(1.0)
    log.label("success", 2.0)
    log.close()
    with open(path, "a") as stream:
        stream.write('{"number": 2, "id": "x", "eve')
    log = EpisodeLog(path, 3.0)
    assert log.recovered is None and log.start(3.0).number == 2
    assert [event["event"] for event in read_events(path)] == ["start", "success", "start"]
    assert json.loads(path.read_text().splitlines()[-1])["number"] == 2


def test_a_label_that_cannot_be_written_is_refused_and_the_episode_runs_on(path):
    log = EpisodeLog(path, 1.0)
    log.start(1.0)
    os.replace(str(path), str(path) + ".away")
    path.mkdir()
    with pytest.raises(EpisodeError, match="cannot be written"):
        log.label("success", 2.0)
    assert log.current is not None
    path.rmdir()
    os.replace(str(path) + ".away", str(path))
    assert log.label("success", 3.0).elapsed_s == 2.0


@pytest.mark.parametrize("cleaned", [True, False])
def test_half_a_line_of_a_full_disk_spoils_no_label_that_is_kept_later(path, monkeypatch, cleaned):
    log = EpisodeLog(path, 1.0)
    log.start(1.0)
    whole = path.read_bytes()
    if not cleaned:
        monkeypatch.setattr(files, "open", lambda *given, **more: Stuck(*given), raising=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, limits[1]))
    try:
        with pytest.raises(EpisodeError, match="cannot be written"):
            log.label("success", 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (path.read_bytes() == whole) is cleaned
    log.label("success", 3.0)
    log.close()
    assert [event["event"] for event in read_events(path)] == ["start", "success"]
    assert EpisodeLog(path, 4.0).recovered is None


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EpisodeError, match="cannot be used"):
        EpisodeLog(tmp_path / "file" / "labels.jsonl", 1.0)
