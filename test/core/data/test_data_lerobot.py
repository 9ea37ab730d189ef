"""Data sets on disk: what is written is read back, damage is named, and an unfinished set is not a data set."""
from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hybridvla_core.data.lerobot import layout, writer
from hybridvla_core.data.lerobot.layout import Description
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.data.lerobot.video import VideoWriter
from hybridvla_core.data.lerobot.writer import DatasetWriter
from hybridvla_core.data.sample import GroundedObject
from hybridvla_core.errors import DataError

NAMES = tuple(f"c{i}" for i in range(7))
DESCRIPTION = Description("toy", 10.0, {"front": (48, 64), "wrist": (32, 32)}, NAMES, NAMES, grippers=(6,), grounded=True)


def picture(shade, size):
    image = np.full((*size, 3), shade, dtype=np.uint8)
    image[: size[0] // 2, :, 1] = 255 - shade
    return image


def values(rng, frames):
    found = rng.normal(size=(frames, 7)).astype(np.float32)
    found[:, 5] = 0.25
    return found


def write(folder, lengths=(5, 9, 4), description=DESCRIPTION, seed=0):
    rng, kept = np.random.default_rng(seed), []
    with DatasetWriter(folder, description) as out:
        for number, frames in enumerate(lengths):
            states, actions = values(rng, frames), values(rng, frames)
            kept.append((states, actions))
            split = writer.VALIDATION if number == len(lengths) - 1 and number else writer.TRAIN
            with out.episode(f"source {number}", success=(None, True, False)[number % 3], split=split) as episode:
                for i in range(frames):
                    images = {view: picture(20 * i + 10 + 3 * number, size) for view, size in description.views.items()}
                    item = GroundedObject(((8, 17),), {"front": np.array([1, 2])}, np.array([0.1, 0.2, 0.3]), 0.3, 4)
                    episode.add(images, states[i], actions[i], f"take the red cube {number % 2}", correction=i == 2,
                                grounding=[item] if description.grounded else [])
        out.finish()
    return kept


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "toy"


def test_what_is_written_is_read_back_in_any_order(folder):
    kept = write(folder)
    data = LeRobotDataset(folder)
    assert len(data) == 18 and data.description == DESCRIPTION
    for index in (17, 0, 9, 4, 5, 13):
        episode, frame = data.locate(index)
        sample = data.sample(index, chunk=3)
        states, actions = kept[episode]
        np.testing.assert_array_equal(sample.state, states[frame])
        inside = min(3, len(actions) - frame)
        np.testing.assert_array_equal(sample.actions[:inside], actions[frame:frame + inside])
        assert sample.padding.tolist() == [False] * inside + [True] * (3 - inside)
        assert sample.instruction == f"take the red cube {episode % 2}"
        assert sample.success == (None, True, False)[episode] and sample.correction == (frame == 2)
        for view, size in DESCRIPTION.views.items():
            wanted = picture(20 * frame + 10 + 3 * episode, size).astype(int)
            assert np.abs(sample.images[view].astype(int) - wanted).mean() < 6.0
        assert sample.grounding[0].spans == ((8, 17),) and sample.grounding[0].patches["front"].tolist() == [1, 2]
        assert (sample.grounding[0].yaw, sample.grounding[0].symmetry) == (0.3, 4)
    assert json.loads((folder / layout.INFO).read_text())["splits"] == {"train": "0:2", "validation": "2:3"}


def test_a_chunk_ends_where_the_rows_change_their_instruction(folder):
    tasks, actions = ("a", "a", "a", "b", "b", "a", "a"), values(np.random.default_rng(0), 7)
    with DatasetWriter(folder, Description("turns", 10.0, {"front": (48, 64)}, NAMES, NAMES)) as out:
        with out.episode("one") as episode:
            for frame, task in enumerate(tasks):
                episode.add({"front": picture(9, (48, 64))}, np.zeros(7), actions[frame], f"do {task}")
        out.finish()
    data = LeRobotDataset(folder)
    labelled = []
    for frame, task in enumerate(tasks):
        sample = data.sample(frame, chunk=4)
        labelled.append(4 - int(sample.padding.sum()))
        last = frame + labelled[-1] - 1
        np.testing.assert_array_equal(sample.actions, actions[[min(frame + step, last) for step in range(4)]])
        assert sample.instruction == f"do {task}" and sample.padding.tolist() == sorted(sample.padding.tolist())
    assert labelled == [3, 2, 1, 2, 1, 2, 1]


def moments(folder, numbers, **changes):
    """Write episodes whose frames show these moments."""
    description = Description("many", 10.0, {"front": (48, 64)}, NAMES, NAMES, labels=layout.NEXT_KEYFRAME, moments=True)
    with DatasetWriter(folder, replace(description, **changes)) as out:
        for episode_numbers in numbers:
            with out.episode("one") as episode:
                for frame, moment in enumerate(episode_numbers):
                    again = frame > 0 and moment == episode_numbers[frame - 1]
                    episode.add({"front": picture(40 * moment, (48, 64))}, np.full(7, float(moment)), np.full(7, frame / 10),
                                f"go {frame}", same_moment=again)
        out.finish()
    return folder


def test_rows_say_which_moment_they_show(folder, tmp_path):
    data = LeRobotDataset(moments(folder, [(0, 0, 0, 1), (0, 1, 1)]))
    assert data.description.moments and data.moments().tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert data.rows(1).moments.tolist() == [0, 1, 1] and data.info["features"][layout.MOMENT]["dtype"] == "int64"
    assert [data.sample(frame).instruction for frame in range(3)] == ["go 0", "go 1", "go 2"]
    # as older versions and other programs write data sets
    file = folder / layout.OURS
    told = json.loads(file.read_text())
    del told["description"]["moments"]
    file.write_text(json.dumps(told))
    assert LeRobotDataset(folder).moments().tolist() == list(range(7))
    with pytest.raises(DataError, match="rows that share a moment make no chunk; with moments, labels are next_keyframe"):
        moments(tmp_path / "other", [(0,)], labels=layout.NEXT_POSE)


def test_rows_name_the_step_of_the_task(folder, tmp_path):
    description = Description("steps", 10.0, {"front": (48, 64)}, NAMES, NAMES, subtasks=True)
    with DatasetWriter(folder, description) as out:
        for names in (("reach", "grasp", ""), ("lift", "reach")):
            with out.episode("one") as episode:
                for frame, name in enumerate(names):
                    episode.add({"front": picture(40 * frame, (48, 64))}, np.zeros(7), np.zeros(7), "go", subtask=name)
        out.finish()
    data = LeRobotDataset(folder)
    assert data.subtasks() == ("grasp", "lift", "reach") and data.info["features"][layout.SUBTASK]["dtype"] == "string"
    assert [data.sample(index).subtask for index in range(5)] == ["reach", "grasp", "", "lift", "reach"]
    assert LeRobotDataset(moments(tmp_path / "other", [(0, 1)])).subtasks() == ()


def test_a_moment_has_one_state(folder):
    with DatasetWriter(folder, DESCRIPTION) as out:
        images = {view: picture(9, size) for view, size in DESCRIPTION.views.items()}
        with pytest.raises(DataError, match="frame 0: shows no moment of the frame before it: there is none"):
            with out.episode("bad") as episode:
                episode.add(images, np.zeros(7), np.zeros(7), "go", same_moment=True)
        with pytest.raises(DataError, match="frame 1: shows no moment of the frame before it: its state is another"):
            with out.episode("bad") as episode:
                episode.add(images, np.zeros(7), np.zeros(7), "go")
                episode.add(images, np.ones(7), np.zeros(7), "go", same_moment=True)


def test_statistics_are_exact_over_all_frames_and_name_the_constant_channel(folder, tmp_path):
    kept = write(folder)
    actions = np.concatenate([action for _, action in kept]).astype(np.float64)
    entry = json.loads((folder / layout.STATISTICS).read_text())["toy"]["action"]
    np.testing.assert_array_equal(entry["q99"], np.quantile(actions, 0.99, axis=0))
    np.testing.assert_array_equal(entry["q01"], np.quantile(actions, 0.01, axis=0))
    assert entry["constant"] == [False] * 5 + [True, False] and entry["mask"] == [True] * 6 + [False]
    np.testing.assert_array_equal(LeRobotDataset(folder).column(layout.ACTION, tmp_path / "scratch"), actions)


def test_an_episode_that_breaks_off_leaves_nothing_and_the_rest_goes_on(folder):
    with DatasetWriter(folder, DESCRIPTION) as out:
        images = {view: picture(9, size) for view, size in DESCRIPTION.views.items()}
        for bad in (np.full(7, np.nan), np.zeros(6)):
            with pytest.raises(DataError, match="frame 1"):
                with out.episode("bad") as episode:
                    episode.add(images, np.zeros(7), np.zeros(7), "go")
                    episode.add(images, bad, np.zeros(7), "go")
        with pytest.raises(DataError, match="no frame"):
            with out.episode("empty"):
                pass
        with out.episode("good") as episode:
            episode.add(images, np.zeros(7), np.ones(7), "go")
        out.finish()
    assert len(LeRobotDataset(folder)) == 1 and len(list(folder.rglob("*.mp4"))) == 2


def test_nothing_bears_the_name_before_the_end(folder):
    with pytest.raises(RuntimeError):
        with DatasetWriter(folder, DESCRIPTION) as out:
            with out.episode("one") as episode:
                episode.add({view: picture(9, size) for view, size in DESCRIPTION.views.items()}, np.zeros(7), np.zeros(7), "go")
            assert not folder.exists()
            raise RuntimeError
    assert not list(folder.parent.iterdir())
    write(folder)
    with pytest.raises(DataError, match="not empty"):
        DatasetWriter(folder, DESCRIPTION)


def test_what_a_killed_run_of_the_same_process_number_left_is_in_nobodys_way(folder):
    left = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    left.mkdir()
    (left / "half").write_text("x")
    write(folder)
    assert len(LeRobotDataset(folder)) == 18 and sorted(folder.parent.iterdir()) == sorted([folder, left])
    assert (left / "half").is_file()     # on a disk that containers share, it may belong to a living process


def test_a_full_disk_is_one_sentence_and_keeps_nothing(folder, monkeypatch):
    def full(self, image):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(VideoWriter, "add", full)
    with pytest.raises(DataError, match="the disk is full"):
        write(folder)
    assert not list(folder.parent.iterdir())


def test_a_name_that_cannot_be_taken_keeps_the_finished_work(folder, monkeypatch):
    take = os.replace

    def refuse(source, target):
        if Path(target) == folder:
            raise OSError(errno.EBUSY, "Device or resource busy")
        take(source, target)
    monkeypatch.setattr(writer.os, "replace", refuse)
    with pytest.raises(DataError, match=r"complete and is in (\S+):") as caught:
        write(folder)
    kept = str(caught.value).split("and is in ")[1].split(":")[0]
    monkeypatch.undo()
    (folder.parent / kept).rename(folder)
    assert len(LeRobotDataset(folder)) == 18


@pytest.mark.parametrize("damage", ["video", "short", "absent"])
def test_a_damaged_video_is_named_by_episode(folder, damage):
    write(folder)
    path = sorted((folder / "videos").rglob("*.mp4"))[1]
    if damage == "video":
        path.write_bytes(b"\0" * 4000)
    elif damage == "short":
        path.write_bytes((sorted((folder / "videos").rglob("*.mp4"))[0]).read_bytes())
    else:
        path.unlink()
    data = LeRobotDataset(folder)
    assert data.sample(0).frame == 0
    with pytest.raises(DataError, match="episode 1, frame 8"):
        data.sample(13)


def test_damaged_tables_are_refused(folder):
    write(folder)
    table = folder / layout.DATA.format(chunk_index=0, file_index=0)
    whole = table.read_bytes()
    table.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(DataError, match="episode 0: .*damaged"):
        LeRobotDataset(folder).sample(0)
    info = json.loads((folder / layout.INFO).read_text())
    (folder / layout.INFO).write_text(json.dumps({**info, "total_frames": 19}))
    with pytest.raises(DataError, match="total_frames is 19"):
        LeRobotDataset(folder)
    (folder / layout.INFO).unlink()
    with pytest.raises(DataError, match="not a complete data set"):
        LeRobotDataset(folder)


def test_chunks_of_rows_that_lead_to_keyframes_are_refused(folder):
    write(folder, description=Description("key", 10.0, {"front": (48, 64)}, NAMES, NAMES, labels=layout.NEXT_KEYFRAME))
    data = LeRobotDataset(folder)
    assert data.sample(3).actions.shape == (1, 7)
    with pytest.raises(DataError, match="chunk"):
        data.sample(3, chunk=2)


def test_the_older_version_is_read(folder, tmp_path):
    """The same frames are laid out as v2.1: one parquet file and one video per episode, and lines of JSON."""
    kept = write(folder)
    old, info = tmp_path / "old", json.loads((folder / layout.INFO).read_text())
    table = pq.read_table(str(folder / layout.DATA.format(chunk_index=0, file_index=0)))
    for number in range(3):
        path = old / f"data/chunk-000/episode_{number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = np.flatnonzero(table["episode_index"].to_numpy() == number)
        pq.write_table(table.slice(int(rows[0]), len(rows)), str(path))
        for view in DESCRIPTION.views:
            key = layout.IMAGE_PREFIX + view
            target = old / f"videos/chunk-000/{key}/episode_{number:06d}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((folder / layout.VIDEO.format(video_key=key, chunk_index=0, file_index=number)).read_bytes())
    info.update(codebase_version="v2.1", data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
                video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4")
    (old / "meta").mkdir()
    (old / layout.INFO).write_text(json.dumps(info))
    (old / "meta/episodes.jsonl").write_text("".join(
        json.dumps({"episode_index": n, "tasks": [], "length": length}) + "\n" for n, length in enumerate((5, 9, 4))))
    (old / "meta/tasks.jsonl").write_text("".join(
        json.dumps({"task_index": n, "task": f"take the red cube {n}"}) + "\n" for n in (0, 1)))
    data = LeRobotDataset(old)
    assert len(data) == 18 and data.sample(6).instruction == "take the red cube 1"
    np.testing.assert_array_equal(data.sample(16).actions[0], kept[2][1][2])
    assert np.abs(data.sample(6).images["front"].astype(int) - picture(33, (48, 64)).astype(int)).mean() < 6.0
