"""How data files are read: in other programs' layouts, no more than is asked for, and in forked processes."""
from __future__ import annotations

import gc
import json
import multiprocessing
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.layout import Description
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.data.lerobot.writer import DatasetWriter
from hybridvla_core.errors import DataError

NAMES = tuple(f"c{i}" for i in range(7))
VIEW = layout.IMAGE_PREFIX + "front"
SIZE = (48, 64)


def describe(**changes):
    return Description("toy", 10.0, {"front": SIZE}, NAMES, NAMES, **changes)


def noise(frames, seed=0):
    """Return pictures that no encoder can compress."""
    return np.random.default_rng(seed).integers(0, 256, (frames, *SIZE, 3), dtype=np.uint8)


def lay(folder, lengths, rows=1, files=1, statistics=True, shown=None, cut=None):
    """Write a v3 data set as others do, with pictures in its tables. A row group has `rows` rows (0: one group per episode), and
    the episodes are spread over `files` files. Two rows of an episode show one moment. Returns states and moment numbers."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.concatenate([np.arange(length) for length in lengths])
    states = np.random.default_rng(1).normal(size=(len(episode), 7)).astype(np.float32)
    shown = np.zeros((1, *SIZE, 3), dtype=np.uint8) if shown is None else shown
    encoded = [cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes() for picture in shown]
    if cut is not None:      # the one picture that is damaged
        encoded[cut] = encoded[cut][:50]
    fixed = pa.FixedSizeListArray.from_arrays
    table = pa.table({
        layout.STATE: fixed(pa.array(states.ravel()), 7), layout.ACTION: fixed(pa.array(-states.ravel()), 7),
        VIEW: pa.array([{"bytes": encoded[i % len(encoded)], "path": f"{i}.png"} for i in range(len(episode))]),
        layout.MOMENT: pa.array(frame // 2), "timestamp": pa.array((frame / 10).astype(np.float32)),
        "frame_index": pa.array(frame), "episode_index": pa.array(episode), "index": pa.array(np.arange(len(episode))),
        "task_index": pa.array(np.zeros(len(episode), dtype=np.int64))})
    file_of = np.arange(len(lengths)) * files // len(lengths)
    for file in range(files):
        path = folder / layout.DATA.format(chunk_index=0, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(str(path), table.schema, write_statistics=statistics) as out:
            inside = np.flatnonzero(file_of[episode] == file)
            part = table.slice(inside[0], len(inside))
            if rows:
                out.write_table(part, row_group_size=rows)
            else:
                for number in np.flatnonzero(file_of == file):
                    out.write_table(table.slice(int(np.sum(lengths[:number])), lengths[number]))
    description = describe(labels=layout.NEXT_KEYFRAME, moments=True)
    begins = np.cumsum([0, *lengths[:-1]])
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table({"episode_index": list(range(len(lengths))), "length": list(lengths), "dataset_from_index": begins,
                             "data/chunk_index": [0] * len(lengths), "data/file_index": file_of}),
                   str(folder / "meta/episodes/chunk-000/file-000.parquet"))
    pq.write_table(pa.table({"task_index": [0], "task": ["go"]}), str(folder / layout.TASKS))
    (folder / layout.OURS).write_text(json.dumps({"description": asdict(description)}))
    features = {**description.features(), VIEW: {"dtype": "image", "shape": [*SIZE, 3], "names": ["height", "width", "channels"]}}
    (folder / layout.INFO).write_text(json.dumps({
        "codebase_version": "v3.0", "total_episodes": len(lengths), "total_frames": len(episode), "fps": 10,
        "data_path": layout.DATA, "features": features}))
    firsts = np.cumsum([0, *((length + 1) // 2 for length in lengths[:-1])])
    return states, firsts[episode] + frame // 2


LENGTHS = (5, 9, 4, 1, 7, 6)


@pytest.mark.parametrize("laid", [
    dict(rows=0), dict(rows=1000), dict(rows=14), dict(rows=3), dict(rows=4, statistics=False), dict(rows=6, files=3),
    dict(rows=0, files=len(LENGTHS))], ids=str)
def test_every_layout_of_rows_is_read_the_same(tmp_path, laid, monkeypatch):
    shown = noise(sum(LENGTHS))
    states, moments = lay(tmp_path / "set", LENGTHS, shown=shown, **laid)
    for at_once in (65536, 10):
        monkeypatch.setattr("hybridvla_core.data.lerobot.data_files.ROWS_AT_ONCE", at_once, raising=False)
        data = LeRobotDataset(tmp_path / "set", kept_episodes=2)
        assert data.moments().tolist() == moments.tolist()
        np.testing.assert_array_equal(data.column(layout.STATE, tmp_path / "scratch"), states)
        np.testing.assert_array_equal(data.column(layout.ACTION, tmp_path / "scratch"), -states)
        for index in np.random.default_rng(2).permutation(len(data)):
            sample = data.sample(int(index))
            np.testing.assert_array_equal(sample.state, states[index])
            np.testing.assert_array_equal(sample.actions, -states[[index]])
            np.testing.assert_array_equal(sample.images["front"], shown[index])


@pytest.mark.parametrize("names, found", [
    ({f"j{i}": 6 - i for i in range(7)}, [f"j{6 - i}" for i in range(7)]),
    ({"arm": [f"j{i}" for i in range(6)], "hand": ["g"]}, [*(f"j{i}" for i in range(6)), "g"]),
    ({"arm": "joints", "hand": "gripper"}, list("0123456")),
    (None, list("0123456"))], ids=("numbered", "grouped", "else", "none"))
def test_names_of_channels_are_read_in_every_form(tmp_path, names, found):
    lay(tmp_path / "set", LENGTHS)
    (tmp_path / "set" / layout.OURS).unlink()
    info = json.loads((tmp_path / "set" / layout.INFO).read_text())
    info["features"][layout.ACTION]["names"] = names
    info["features"][VIEW].update(names={"height": 1, "width": 2, "channel": 0}, shape=[3, *SIZE])
    (tmp_path / "set" / layout.INFO).write_text(json.dumps(info))
    description = LeRobotDataset(tmp_path / "set").description
    assert list(description.action_names) == found and description.views == {"front": SIZE}


def held():
    """Return the bytes that Python, numpy and Arrow have in use."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes()


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_pictures_in_tables_do_not_stay_in_memory(tmp_path, traced):
    lay(tmp_path / "set", (10,) * 24, rows=20, shown=noise(240))
    data = LeRobotDataset(tmp_path / "set", kept_episodes=4096)
    group = 20 * SIZE[0] * SIZE[1] * 3
    before = held()
    for index in range(len(data)):
        data.sample(index)
    assert held() - before < 2 * group, "twelve row groups were read"


def test_numbers_of_an_episode_do_not_keep_those_of_its_row_group(tmp_path, traced):
    lay(tmp_path / "set", (2,) * 400, rows=800)
    data = LeRobotDataset(tmp_path / "set", kept_episodes=4096)
    before = held()
    for position in range(400):
        data.rows(position)
    assert held() - before < 400 * 4000


def test_numbers_are_read_without_the_pictures_beside_them(tmp_path):
    states, moments = lay(tmp_path / "set", LENGTHS, rows=14, shown=noise(sum(LENGTHS)))
    path = tmp_path / "set" / layout.DATA.format(chunk_index=0, file_index=0)
    group = pq.read_metadata(str(path)).row_group(1)
    chunk = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == f"{VIEW}.bytes")
    with path.open("r+b") as stream:
        stream.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        stream.write(b"\xff" * chunk.total_compressed_size)
    data = LeRobotDataset(tmp_path / "set")
    np.testing.assert_array_equal(data.column(layout.STATE, tmp_path / "scratch"), states)
    np.testing.assert_array_equal(data.rows(2).state, states[14:18])
    assert data.moments().tolist() == moments.tolist() and data.sample(13).frame == 8
    with pytest.raises(DataError, match="episode 2: .*damaged"):
        data.sample(14)


def test_a_damaged_picture_in_a_table_is_named_by_episode_and_frame(tmp_path):
    lay(tmp_path / "set", LENGTHS, rows=14, shown=noise(sum(LENGTHS)), cut=14)
    data = LeRobotDataset(tmp_path / "set")
    assert data.sample(13).frame == 8
    with pytest.raises(DataError, match="episode 2, frame 0, view front: a picture .* cannot be decoded"):
        data.sample(14)


def bytes_read():
    """Return the bytes that this process has read from files so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("rows", [0, 1000])
def test_reading_every_episode_reads_every_byte_but_a_few_times(tmp_path, rows):
    states, _ = lay(tmp_path / "set", (2,) * 120, rows=rows)
    size = (tmp_path / "set" / layout.DATA.format(chunk_index=0, file_index=0)).stat().st_size
    data = LeRobotDataset(tmp_path / "set", kept_episodes=4096)
    for every in (data.moments, lambda: data.column(layout.STATE, tmp_path / "scratch"),
                  lambda: [data.sample(index) for index in range(len(data))] if not rows else None):
        before = bytes_read()
        every()
        assert bytes_read() - before < 3 * size


def wrong(data, wanted, order):
    """Return the frames that are read as another picture, or not at all."""
    found = []
    for index in order:
        try:
            same = np.array_equal(data.sample(int(index)).images["front"], wanted[index])
        except DataError:
            same = False
        if not same:
            found.append(int(index))
    return found


@pytest.mark.parametrize("kind", ["video", "tables"])
def test_forked_processes_read_other_frames_at_once(tmp_path, kind):
    lengths = (60, 60)
    if kind == "tables":
        lay(tmp_path / "set", lengths, rows=20, shown=noise(120))
    else:
        with DatasetWriter(tmp_path / "set", describe()) as out:
            for number, frames in enumerate(lengths):
                with out.episode("one") as episode:
                    for picture in noise(frames, number):
                        episode.add({"front": picture}, np.zeros(7), np.zeros(7), "go")
            out.finish()
    alone = LeRobotDataset(tmp_path / "set")
    wanted = [alone.sample(index).images["front"] for index in range(len(alone))]
    alone.close()
    data = LeRobotDataset(tmp_path / "set")
    data.sample(0)
    data.sample(60)
    forked = multiprocessing.get_context("fork")
    begin, answers = forked.Barrier(3, timeout=60), forked.Queue()

    def work(order):
        begin.wait()
        answers.put(wrong(data, wanted, order))
        data.close()

    orders = [np.random.default_rng(seed).permutation(len(data)) for seed in range(2)]
    workers = [forked.Process(target=work, args=(order,)) for order in orders]
    for worker in workers:
        worker.start()
    begin.wait()
    assert wrong(data, wanted, range(len(data))) == []
    assert [answers.get(timeout=60) for _ in workers] == [[], []]
    for worker in workers:
        worker.join()
    assert wrong(data, wanted, range(len(data))) == [], "a worker that closes its files leaves the parent's open"
