"""Where `hybridvla convert` writes: links, mount points, `.`. Finished output is never deleted, unfinished output is cleared."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from small_models import convert_arguments, released_run

from hybridvla_cli.__main__ import main
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.checkpoints.target import Target
from hybridvla_core.paths import ROOT


@pytest.fixture
def source(tmp_path):
    released_run(tmp_path / "source")
    return tmp_path / "source"


def run(source, out, capsys, status=0):
    assert main(convert_arguments(source, out)) == status
    return capsys.readouterr().err


def test_a_link_a_folder_and_the_current_one_are_filled_and_stay_what_they_are(source, tmp_path, capsys, monkeypatch):
    disk, link, here = tmp_path / "disk", tmp_path / "link", tmp_path / "here"
    for folder in (disk, here):
        folder.mkdir()
    link.symlink_to(disk)
    number = disk.stat().st_ino
    run(source, link, capsys)
    monkeypatch.chdir(here)
    assert main(convert_arguments(source, ".")) == 0
    assert link.is_symlink() and disk.stat().st_ino == number
    for folder in (link, disk, here):
        read_checkpoint(folder)
        assert not list(folder.glob("partial-*"))


def test_a_mount_point_is_filled(source, tmp_path, capsys):
    """The target is a folder that cannot be renamed and holds the entries of a disk's root."""
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    run(source, disk, capsys)
    read_checkpoint(disk)
    assert (disk / "lost+found").is_dir()


def test_a_link_to_nothing_and_a_filled_folder_are_refused_before_anything_is_written(source, tmp_path, capsys):
    link, full = tmp_path / "link", tmp_path / "full"
    link.symlink_to(tmp_path / "nowhere")
    full.mkdir()
    (full / "mine.txt").write_text("x")
    assert "nowhere" in run(source, link, capsys, 1)
    assert "already there" in run(source, full, capsys, 1)
    assert [path.name for path in full.iterdir()] == ["mine.txt"] and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("inside", [False, True])
def test_finished_work_is_kept_when_it_cannot_have_its_name(source, tmp_path, capsys, monkeypatch, inside):
    out = tmp_path / "out"
    if inside:
        out.mkdir()

    def refuse(old, new):
        raise OSError(16, "Device or resource busy", old)

    monkeypatch.setattr("hybridvla_core.checkpoints.target.os.rename", refuse)
    said = run(source, out, capsys, 1)
    kept = next(iter(out.glob("partial-*") if inside else tmp_path.glob("out.partial-*")))
    assert "nothing is lost" in said and str(kept) in said and "busy" in said
    read_checkpoint(kept)


def test_what_somebody_else_put_there_meanwhile_stays(source, tmp_path):
    out = tmp_path / "out"
    target = Target(out)
    with target.writing() as partial:
        (partial / "a").write_text("x")
    out.mkdir()
    (out / "theirs").write_text("y")
    with pytest.raises(Exception, match="nothing is lost"):
        target.finish()
    assert (out / "theirs").read_text() == "y" and (partial / "a").read_text() == "x"


def test_leftovers_of_a_killed_conversion_are_named(source, tmp_path, capsys):
    dead, alive = tmp_path / "out.partial-999999999", tmp_path / f"out.partial-{os.getppid()}"
    same = tmp_path / f"out.partial-{os.getpid()}"      # as in a container, where process numbers start anew
    for folder in (dead, alive, same):
        folder.mkdir()
    (dead / "model.safetensors").write_bytes(b"x" * (1 << 20))
    said = run(source, tmp_path / "out", capsys)
    assert f"{dead} (0.0 GiB) was left by a conversion that was killed; remove it" in said
    assert f"{same} (0.0 GiB) was left by a conversion that was killed; remove it" in said and same.is_dir()
    assert f"{alive} (0.0 GiB) is being written by process {os.getppid()}" in said
    read_checkpoint(tmp_path / "out")


def test_a_full_disk_is_said_before_anything_is_written(source, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "free there" in run(source, tmp_path / "out", capsys, 1)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_clear_away_what_is_not_finished(tmp_path, number):
    released_run(tmp_path / "source", hidden=512, rows=40000)
    log = tmp_path / "log"
    with open(log, "w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "hybridvla_cli", *convert_arguments(tmp_path / "source", tmp_path / "out"),
                   "--shard-gib", "0.01"]
        paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(command, stderr=stream, cwd=str(tmp_path),
                                   env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"})
        try:
            deadline = time.monotonic() + 120.0
            while not list(tmp_path.glob("out.partial-*/model-*")):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.002)
            process.send_signal(number)
            assert process.wait(60.0) == 128 + number
        finally:
            process.kill()
            process.wait()
    assert not list(tmp_path.glob("out*")) and "Traceback" not in log.read_text()


def test_the_result_for_machines_names_the_folder(source, tmp_path, capsys):
    assert main([*convert_arguments(source, tmp_path / "out"), "--json", str(tmp_path / "r.json")]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["folder"] == str(tmp_path / "out") and isinstance(result["notes"], list)
