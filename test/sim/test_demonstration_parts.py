"""Parts of demonstrations: encoded where they are recorded, kept however the run ends, never mixed with those of other code."""
import builtins
import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from hybridvla_cli.__main__ import main
from hybridvla_core.data.lerobot import video
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.paths import ROOT
from hybridvla_sim import origin
from hybridvla_sim.demonstrations import build as building
from hybridvla_sim.demonstrations.build import Order, build
from hybridvla_sim.demonstrations.record import Recording, Settings

CONFIG, ROBOT = load_configs(ROOT / "config/policies/tiny.yaml", ROOT / "config/robots/sim_fr3.yaml", "diffusion")
ORDER = Order(("blocks", "phone_on_base"), 2, 5, 1.0, 0.5, Settings("fr3", ("front",), size=32, states=2))


class Painted:
    """A stand-in for a recorder: it gives noise from the seed instead of scenes, which take a second each."""

    def __init__(self, name, settings, *_others):
        self.name, self.settings = name, settings

    def record(self, seed, kind, turn=0):
        rng = np.random.default_rng(seed)
        images = {view: list(rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)) for view in self.settings.views}
        rows = [rng.normal(size=7).astype(np.float32) for _ in range(3)]
        return Recording(images, rows, rows, ["go"] * 3, [[]] * 3, [False] * 3, ["reach"] * 3)

    def close(self):
        pass


@pytest.fixture
def recorded(monkeypatch):
    """Return the names of the parts that were recorded."""
    found, record = [], building._record
    monkeypatch.setattr(building, "Recorder", Painted)
    monkeypatch.setattr(building, "_record", lambda job, parts: found.append(job.file) or record(job, parts))
    yield found
    building._close()


@pytest.fixture
def stopped(recorded, monkeypatch, tmp_path):
    """Make a run that has all parts and ended before they became a data set."""
    with monkeypatch.context() as patch:
        patch.setattr(building, "DatasetWriter", lambda *_given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path)
    assert len(recorded) == 4
    recorded.clear()
    return tmp_path / ".some.parts"


def make(tmp_path, order=ORDER, **changes):
    return build(order, tmp_path / "some", CONFIG.convention, ROBOT, **changes)


def frames(folder):
    found = LeRobotDataset(folder)
    try:
        return [found.sample(index).state.tolist() for index in range(len(found))], found.info["splits"]
    finally:
        found.close()


def test_when_all_parts_are_there_nothing_is_recorded_or_encoded_any_more(recorded, stopped, tmp_path, monkeypatch):
    monkeypatch.setattr(video.VideoWriter, "add", lambda *_given: pytest.fail("a picture is encoded after its episode"))
    rows, splits = frames(make(tmp_path))
    assert len(rows) == 12 and splits == {"train": "0:2", "validation": "2:4"} and not recorded
    assert not stopped.exists()


def test_the_command_counts_the_pictures_of_the_whole_set_after_it_was_interrupted(recorded, tmp_path, monkeypatch, capsys):
    summary = tmp_path / "summary.json"
    command = ["demonstrate", "--tasks", "blocks", "phone_on_base", "--count", "2", "--sampled", "1", "--validation", "0.5",
               "--size", "32", "--views", "front", "--processes", "1", "-o", str(tmp_path / "some"), "--json", str(summary)]
    record = building._record

    def interrupted(job, parts):
        if len(recorded) == 3:
            raise KeyboardInterrupt
        return record(job, parts)

    with monkeypatch.context() as patch:
        patch.setattr(building, "_record", interrupted)
        assert main(command) == 130
    assert len(recorded) == 3 and not summary.exists()
    capsys.readouterr()
    assert main(command) == 0 and len(recorded) == 4
    found = json.loads(summary.read_text())
    assert (found["episodes"], found["pictures"]) == (4, 12) == (4, len(frames(tmp_path / "some")[0]))
    said = capsys.readouterr().err
    assert " 3/4 " in said and " 4/4 " in said, "the bar begins with what is there"


@pytest.mark.parametrize("count, more", [(1, 0), (3, 2)])
def test_another_number_of_episodes_of_the_same_order_goes_on_with_the_parts(recorded, stopped, tmp_path, count, more):
    rows, _ = frames(make(tmp_path, replace(ORDER, count=count)))
    assert len(rows) == 2 * 3 * count and len(recorded) == more


@pytest.mark.parametrize("changed, word", [
    ({"mujoco": "9.9"}, "mujoco"), ({"renderer": "glfw"}, "renderer"), ({"version": "0"}, "version"),
    ({"sources": "other", "renderer": "glfw"}, r"not the same: renderer, sources\)")])
def test_parts_of_other_code_or_another_renderer_are_refused(recorded, stopped, tmp_path, monkeypatch, changed, word):
    before = origin.origin()
    monkeypatch.setattr(building, "origin", lambda: {**before, **changed})
    with pytest.raises(HybridVLAError, match=f"made by other code or another renderer .*{word}"):
        make(tmp_path)
    assert len(list(stopped.glob("*.npz"))) == 4 and not recorded


def test_parts_of_which_nobody_can_say_whose_they_are_are_refused(stopped, tmp_path):
    (stopped / "order.json").write_text("{")
    with pytest.raises(HybridVLAError, match="holds parts of another order"):
        make(tmp_path)


def test_the_digest_is_another_when_a_scene_changes(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/scene.py").write_text("A = 1\n")
    found = []
    for text in ("A = 1\n", "A = 2\n", "A = 1\n"):
        (tmp_path / "tasks/scene.py").write_text(text)
        (tmp_path / "__pycache__").mkdir(exist_ok=True)
        (tmp_path / f"__pycache__/{len(found)}.pyc").touch()
        monkeypatch.setattr(origin, "FOLDERS", {"sim": tmp_path})
        origin.sources.cache_clear()
        found.append(origin.sources())
    origin.sources.cache_clear()
    assert found[0] == found[2] != found[1]
    assert json.dumps(origin.origin())


@pytest.mark.parametrize("name, decides", [
    ("core/data/lerobot/video.py", True), ("core/evaluation/episode.py", True), ("core/policy/proposing/proposer.py", True),
    ("core/robots/franka.py", True), ("core/model/layers.py", True), ("sim/report/page.py", True),
    ("core/report/page.py", False), ("core/training/trainer.py", False), ("core/evaluation/ablation/page.py", False)])
def test_the_digest_is_of_what_can_decide_an_episode_or_its_bytes(tmp_path, monkeypatch, name, decides):
    monkeypatch.setattr(origin, "FOLDERS", {"sim": tmp_path / "sim", "core": tmp_path / "core"})
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    found = set()
    for text in ("A = 1\n", "A = 2\n"):
        path.write_text(text)
        found.add(origin.sources.__wrapped__())
    assert len(found) == 1 + decides


def test_what_is_left_out_of_the_digest_is_there():
    assert all((origin.FOLDERS["core"].parent / name.replace("core/", "hybridvla_core/", 1)).is_dir() for name in origin.LEFT_OUT)


@pytest.mark.parametrize("damage", [lambda text: b"", lambda text: text[:len(text) // 2],
                                    lambda text: text[:400] + bytes(200) + text[600:]])
def test_a_part_that_the_disk_has_lost_is_recorded_again(recorded, stopped, tmp_path, damage):
    broken = sorted(stopped.glob("*.npz"))[1]
    broken.write_bytes(damage(broken.read_bytes()))
    missed = []
    rows, _ = frames(make(tmp_path, left_out=missed.append))
    assert len(rows) == 12 and recorded == [broken.name] and not missed


def test_a_disk_that_loses_every_part_ends_the_run_by_name(recorded, tmp_path, monkeypatch):
    write = building.part.write

    def lost(made, path, fps):
        write(made, path, fps)
        text = path.read_bytes()
        path.write_bytes(text[:400] + bytes(200) + text[600:])

    monkeypatch.setattr(building.part, "write", lost)
    with pytest.raises(HybridVLAError, match="npz: cannot be read .*remove it, and it is made again"):
        make(tmp_path)
    assert not (tmp_path / "some").exists() and not list(tmp_path.glob(".some.partial*"))


def test_processes_that_write_one_part_at_once_do_not_touch_each_others_file(tmp_path, monkeypatch):
    recording, path = Painted("blocks", ORDER.settings).record(5, "sampled"), tmp_path / "blocks.npz"
    replaced = building.part.os.replace

    def beside(ours, target):
        with monkeypatch.context() as patch:
            patch.setattr(building.part.os, "getpid", lambda: 7)
            patch.setattr(building.part.os, "replace", replaced)
            building.part.write(recording, path, 10.0)
        replaced(ours, target)

    monkeypatch.setattr(building.part.os, "replace", beside)
    building.part.write(recording, path, 10.0)
    found, footage = building.part.read(path)
    assert found.texts == recording.texts and footage["front"].frames == 3
    assert [file.name for file in tmp_path.iterdir()] == ["blocks.npz"]


def test_a_part_that_cannot_be_read_at_the_moment_ends_the_run_and_stays(recorded, stopped, tmp_path, monkeypatch):
    def busy(path, mode="r", *others, **named):
        if str(path).endswith(".npz") and mode == "rb":
            raise OSError(errno.EMFILE, "Too many open files")
        return really(path, mode, *others, **named)

    really = builtins.open
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", busy)
        with pytest.raises(OSError, match="Too many open files"):
            make(tmp_path)
        with pytest.raises(OSError, match="Too many open files"):
            building.part.remove_damaged(next(stopped.glob("*.npz")))
    assert len(list(stopped.glob("*.npz"))) == 4 and not recorded
    assert len(frames(make(tmp_path))[0]) == 12 and not recorded


def test_a_part_for_which_the_disk_has_no_room_leaves_nothing(tmp_path, monkeypatch):
    def full(stream, **_arrays):
        stream.write(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(building.part.np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        building.part.write(Painted("blocks", ORDER.settings).record(5, "sampled"), tmp_path / "blocks.npz", 10.0)
    assert not list(tmp_path.iterdir())


def test_what_killed_workers_have_half_written_is_removed_and_what_is_being_written_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    writing, half = tmp_path / f"blocks.npz.part-{os.getpid()}", tmp_path / f"blocks.npz.part-{ended.pid}"
    for path in (writing, half, tmp_path / "blocks.npz"):
        path.touch()
    building.part.remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocks.npz", writing.name]


def test_a_run_begins_with_removing_what_is_half_written(recorded, stopped, tmp_path, monkeypatch):
    (stopped / "blocks.npz.part-99999999").touch()       # more than any process number
    monkeypatch.setattr(building, "DatasetWriter", lambda *_given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path)
    assert not list(stopped.glob("*.part-*"))


def test_an_episode_with_fewer_pictures_than_rows_is_refused(recorded, tmp_path, monkeypatch):
    record = Painted.record
    monkeypatch.setattr(Painted, "record", lambda *given: replace(made := record(*given), images={
        view: pictures[:2] for view, pictures in made.images.items()}))
    with pytest.raises(HybridVLAError, match="the footage has no 3 frames of view front"):
        make(tmp_path)
