"""What ends a run, and what remains: state and pictures on a full disk, torn steps, data that it could not have used."""
from __future__ import annotations

import logging
import resource
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import toy_data
from test_hybrid_run import assert_same, go, rows, weights

from hybridvla_core.data.lerobot import layout, tables
from hybridvla_core.errors import DataError, HybridVLAError
from hybridvla_core.training import frames
from hybridvla_core.training.hybrid.run import Request, train


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
    """Runs until `last` is the newest saved step; the run keeps that step and the one before."""
    while not steps(folder) or steps(folder)[-1].name != last:
        go(folder, data, seconds=1e-9)
    assert len(steps(folder)) == 2


@pytest.mark.parametrize("tear", [halve, empty_index, empty_progress])
@pytest.mark.parametrize("last", [
    pytest.param("step-000000008-stage-1", id=""),
    pytest.param("step-000000004-stage-1", id="the stage's first", marks=pytest.mark.long)])
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
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))       # log and progress are smaller, weight files larger
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


@pytest.mark.parametrize("error, raised, words, done", [
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), HybridVLAError, "the same command goes on", 8),
    (DataError("episode 2: the video is damaged"), DataError, "is damaged", 8),
    (OSError(28, "No space left on device"), DataError, "cannot be kept there .No space left on device.; make room", 0)])
def test_kept_pictures_stay_whatever_ends_the_decoding_but_a_full_disk(data, tmp_path, monkeypatch, error, raised, words, done):
    config = toy_data.config(stages=[dict(name="act", steps=1, train="full")], keep_frames=True)
    fit, seen = frames.FrameSet._fit, []

    def ends(self, sample):
        seen.append(sample)
        if len(seen) == 12:
            raise error
        return fit(self, sample)

    [monkeypatch.setattr(frames, size, 4) for size in ("FLUSHED", "TOGETHER")]
    monkeypatch.setattr(frames.FrameSet, "_fit", ends)
    with pytest.raises(raised, match=words):
        go(tmp_path, data, config=config)
    kept = list((tmp_path / "work/pictures").glob(".toy-*.partial/done"))
    assert [int(file.read_text()) for file in kept] == [done] * bool(done)
    seen.clear()
    monkeypatch.setattr(frames.FrameSet, "_fit", lambda self, sample: seen.append(sample) or fit(self, sample))
    go(tmp_path, data, config=config)
    pictures = np.load(next((tmp_path / "work/pictures").glob("toy-*/0.npy")))
    assert len(seen) == len(pictures) - done + 2, "the first one twice: for its shape, and to see that it reads"


def test_pictures_that_the_disk_has_no_room_for_are_refused_before_the_first_is_decoded(data, tmp_path, monkeypatch):
    config = toy_data.config(stages=[dict(name="act", steps=1, train="full")], keep_frames=True)
    monkeypatch.setattr(frames.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    monkeypatch.setattr(frames.FrameSet, "decoded", lambda self, numbers: pytest.fail("decoded"))
    with pytest.raises(DataError, match="cannot be kept there .they need [0-9.e-]+ GiB, and 9.31e-10 GiB are free.; make room"):
        go(tmp_path, data, config=config)
    assert not list((tmp_path / "work/pictures").iterdir())


def test_a_set_of_held_out_episodes_alone_is_not_trained_on_and_validated_by_the_same_rows(tmp_path):
    data = toy_data.write(tmp_path / "toy", episodes=1)
    with pytest.raises(DataError, match=r'toy: has no frame to train on; its splits are {"validation": "0:1"}; write it again'):
        go(tmp_path, data)



@pytest.mark.parametrize("text, words", [("zzz qqq", "the model knows no word of 'zzz qqq'"), (" ", "the instruction is empty")])
def test_a_task_that_the_model_cannot_read_is_named_before_the_first_step(tmp_path, text, words):
    good, bad = toy_data.write(tmp_path / "good", name="good"), toy_data.write(tmp_path / "bad", name="bad")
    texts = pq.read_table(str(bad / layout.TASKS))["task"].to_pylist()
    tables.write_tasks(bad, [*texts[:-1], text])
    recipe = toy_data.config(stages=[dict(name="act", steps=1, train="full")], keep_frames=True)
    with pytest.raises(DataError, match=f"bad: nothing can be trained with the task '{text}': {words}.*or leave them"):
        train(Request(recipe, (good, bad), tmp_path / "work", tmp_path / "out", threads=1))
    assert not (tmp_path / "work").exists(), "no picture was decoded"
