"""The state of a run on a disk that fills up, and steps that were torn there: one sentence, and the step before is taken."""
from __future__ import annotations

import logging
import resource
import shutil

import pytest
import toy_data
from test_hybrid_run import assert_same, go, rows, weights

from hybridvla_core.errors import HybridVLAError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data.write(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        toy_data.add_preset(patch)
        folder = tmp_path_factory.mktemp("unbroken")
        go(folder, data)
    return folder


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    toy_data.add_preset(monkeypatch)


def steps(folder):
    return sorted((folder / "work/state").glob("step-*"))


def halve(step):
    for file in step.glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])


def empty_index(step):
    (step / ".metadata").write_bytes(b"")


def empty_progress(step):
    (step / "run.json").write_text("")


def go_until(folder, data, last):
    """Ends the run behind the step after which `last` is the last one saved; it keeps that one and the one before."""
    while not steps(folder) or steps(folder)[-1].name != last:
        go(folder, data, seconds=1e-9)
    assert len(steps(folder)) == 2


@pytest.mark.parametrize("tear", [halve, empty_index, empty_progress])
@pytest.mark.parametrize("last", ["step-000000008-stage-1", "step-000000004-stage-1"], ids=["", "the stage's first"])
def test_a_torn_step_is_left_out_and_the_run_goes_on_from_the_one_before(data, tmp_path, caplog, unbroken, tear, last):
    go_until(tmp_path, data, last)
    torn, before = steps(tmp_path)[-1], steps(tmp_path)[0]
    tear(torn)
    with caplog.at_level(logging.WARNING):
        assert go(tmp_path, data)["finished"]
    assert f"{torn}: " in caplog.text and f"going on from {before.name}" in caplog.text and "Traceback" not in caplog.text
    assert_same(weights(tmp_path), weights(unbroken))
    assert rows(tmp_path) == rows(unbroken)
    assert len(steps(tmp_path)) == 2 and [path.name for path in (tmp_path / "work/state").glob("torn-*")] == [f"torn-{last}"]


@pytest.mark.parametrize("tear", [halve, empty_index, empty_progress])
def test_where_no_step_can_be_read_one_sentence_says_so_and_nothing_is_removed(data, tmp_path, unbroken, tear):
    shutil.copytree(unbroken / "work", tmp_path / "work")
    there = steps(tmp_path)
    for step in there:
        tear(step)
    with pytest.raises(HybridVLAError, match="not a state of this .*give another --work folder") as caught:
        go(tmp_path, data)
    assert "\n" not in str(caught.value) and "CheckpointException" not in str(caught.value)
    assert steps(tmp_path) == there


def test_a_full_disk_is_one_sentence_and_the_last_whole_step_is_gone_on_from(data, tmp_path, unbroken):
    go_until(tmp_path, data, "step-000000004-stage-1")
    there, (soft, hard) = steps(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))       # files of log and progress are smaller, the weights' larger
    try:
        with pytest.raises(HybridVLAError, match="the state cannot be saved .*make room and start again") as caught:
            go(tmp_path, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value) and "File too large" in str(caught.value)
    assert steps(tmp_path) == there
    go(tmp_path, data)
    assert_same(weights(tmp_path), weights(unbroken))


def test_ctrl_c_while_a_step_is_written_stays_ctrl_c(data, tmp_path, monkeypatch):
    from torch.distributed.checkpoint import FileSystemWriter

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(FileSystemWriter, "write_data", interrupt)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, data)
