"""`hybridvla dataset inspect | stats | merge | export` on small data sets."""
from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridvla_cli.__main__ import main
from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.layout import Description
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.data.lerobot.writer import TRAIN, VALIDATION, DatasetWriter

NAMES = tuple(f"c{i}" for i in range(7))
VIEWS = {"front": (32, 48)}


def write(folder, shift=0.0, splits=(TRAIN, TRAIN, VALIDATION), views=VIEWS, seed=1, sentences=1, **changes):
    rng = np.random.default_rng(seed)
    with DatasetWriter(folder, Description(folder.name, 10.0, views, NAMES, NAMES, grippers=(6,), **changes)) as out:
        for number, split in enumerate(splits):
            with out.episode(f"{folder.name} {number}", success=True, split=split) as episode:
                for _ in range(30):
                    images = {view: np.full((*size, 3), 80 + number, np.uint8) for view, size in views.items()}
                    state = rng.normal(size=7) + shift
                    for sentence in range(sentences):
                        episode.add(images, state, rng.normal(size=7) + shift, f"do {number}", same_moment=sentence > 0)
        out.finish()
    return folder


def numbers(folder, key):
    data = LeRobotDataset(folder)
    return np.concatenate([getattr(data.rows(i), key) for i in range(len(data.episodes))]).astype(np.float64)


def test_merged_statistics_are_those_of_all_frames_and_never_averaged(tmp_path):
    one, two = write(tmp_path / "one"), write(tmp_path / "two", shift=5.0, splits=(TRAIN,), seed=2)
    assert main(["dataset", "merge", str(one), str(two), "-o", str(tmp_path / "both")]) == 0
    entry = json.loads((tmp_path / "both" / layout.STATISTICS).read_text())["both"]["action"]
    together = np.concatenate([numbers(one, "action"), numbers(two, "action")])
    np.testing.assert_array_equal(entry["q99"], np.quantile(together, 0.99, axis=0))
    data = LeRobotDataset(tmp_path / "both")
    assert len(data) == 120 and data.info["splits"] == {"train": "0:3", "validation": "3:4"}
    assert abs(int(data.sample(0).images["front"].mean()) - 80) < 4 and data.sample(119).instruction == "do 2"


def test_a_merge_names_what_it_would_hold_out_and_train_on(tmp_path, caplog):
    held, trained = write(tmp_path / "a/one"), write(tmp_path / "b/one", splits=(TRAIN,) * 3)
    assert main(["dataset", "merge", str(held), str(trained), "-o", str(tmp_path / "both")]) == 0
    assert f"1 episode(s) that {held} holds out are trained on in {trained}, such as 'one 2'" in caplog.text


def test_moments_stay_in_a_merge_and_go_with_what_other_trainers_do_not_know(tmp_path, capsys):
    kind = dict(splits=(TRAIN,), labels=layout.NEXT_KEYFRAME)
    many, one = write(tmp_path / "many", sentences=2, moments=True, **kind), write(tmp_path / "one", seed=2, **kind)
    assert main(["dataset", "merge", str(one), str(many), "-o", str(tmp_path / "both")]) == 0
    data = LeRobotDataset(tmp_path / "both")
    assert data.moments().tolist() == [*range(30), *(30 + frame // 2 for frame in range(60))]
    assert main(["dataset", "inspect", str(tmp_path / "both")]) == 0
    assert "moments: 60\n" in capsys.readouterr().out
    assert main(["dataset", "export", str(tmp_path / "both"), "-o", str(tmp_path / "plain")]) == 0
    assert layout.MOMENT not in LeRobotDataset(tmp_path / "plain").info["features"]


def test_sets_of_another_kind_are_not_merged(tmp_path, capsys):
    one, two = write(tmp_path / "one"), write(tmp_path / "two", views={"wrist": (32, 48)})
    assert main(["dataset", "merge", str(one), str(two), "-o", str(tmp_path / "both")]) == 1
    assert "views are" in capsys.readouterr().err and not (tmp_path / "both").exists()


def test_a_set_that_is_named_twice_is_not_merged(tmp_path, capsys):
    one, link = write(tmp_path / "one"), tmp_path / "link"
    link.symlink_to(one)
    for again in (one, tmp_path / "one/../one", link):
        assert main(["dataset", "merge", str(one), str(again), "-o", str(tmp_path / "both")]) == 1
        assert f"{again}: is named twice" in capsys.readouterr().err and not (tmp_path / "both").exists()


def test_a_damaged_episode_is_left_out_of_a_merge_by_name(tmp_path):
    one, summary = write(tmp_path / "one"), tmp_path / "s.json"
    sorted((one / "videos").rglob("*.mp4"))[1].write_bytes(b"\0" * 999)
    assert main(["dataset", "inspect", str(one), "--json", str(summary)]) == 1
    assert [entry["episode"] for entry in json.loads(summary.read_text())["problems"]] == [1]
    assert main(["dataset", "merge", str(one), "-o", str(tmp_path / "rest"), "--json", str(summary)]) == 0
    said = json.loads(summary.read_text())
    assert said["episodes"] == 2 and said["flagged"][0]["episode"] == "one 1"
    assert LeRobotDataset(tmp_path / "rest").description.name == "rest"      # the way in which training renames a set
    assert list(json.loads((tmp_path / "rest" / layout.STATISTICS).read_text())) == ["rest"]


def test_statistics_of_another_set_are_refused(tmp_path, capsys):
    one, two, file = write(tmp_path / "one"), write(tmp_path / "two", shift=0.8, seed=4), tmp_path / "statistics.json"
    assert main(["dataset", "stats", str(one), "-o", str(file)]) == 0
    assert json.loads(file.read_text()) == json.loads((one / layout.STATISTICS).read_text())
    assert main(["dataset", "stats", str(one), "--against", str(file)]) == 0
    assert main(["dataset", "stats", str(two), "--against", str(file)]) == 1
    assert "another data set's" in capsys.readouterr().err


def test_a_file_of_several_sets_that_does_not_name_this_one_is_refused_and_not_guessed(tmp_path, capsys):
    one, file = write(tmp_path / "one"), tmp_path / "statistics.json"
    (entry,) = json.loads((one / layout.STATISTICS).read_text()).values()
    file.write_text(json.dumps({"before": entry}))
    assert main(["dataset", "stats", str(one), "--against", str(file)]) == 0
    file.write_text(json.dumps({"before": entry, "after": entry}))
    assert main(["dataset", "stats", str(one), "--against", str(file)]) == 1
    assert "holds statistics of after, before, none named one" in capsys.readouterr().err


def test_statistics_of_a_number_that_is_not_finite_are_refused_by_its_place_on_either_side(tmp_path, capsys):
    one, file, new = write(tmp_path / "one"), tmp_path / "statistics.json", tmp_path / "new.json"
    good = json.loads((one / layout.STATISTICS).read_text())
    good["one"]["action"]["q01"][2] = float("nan")
    file.write_text(json.dumps(good))
    assert main(["dataset", "stats", str(one), "--against", str(file)]) == 1
    assert "the statistics hold a number that is not finite" in capsys.readouterr().err
    (path,) = (one / "data").rglob("*.parquet")
    table = pq.read_table(str(path))
    values = table[layout.STATE].to_pylist()
    values[35][3] = float("nan")
    place = table.column_names.index(layout.STATE)
    pq.write_table(table.set_column(place, table.field(place), pa.array(values, table.field(place).type)), str(path),
                   row_group_size=30)
    for options in (["-o", str(new)], ["--against", str(one / layout.STATISTICS)]):
        assert main(["dataset", "stats", str(one), *options]) == 1
        assert ("observation.state holds a number that is not finite in 1 row(s), first in episode 1, frame 5"
                in capsys.readouterr().err)
    assert not new.exists()


def test_one_split_is_exported(tmp_path):
    one = write(tmp_path / "one")
    assert main(["dataset", "export", str(one), "--split", "validation", "-o", str(tmp_path / "held")]) == 0
    data = LeRobotDataset(tmp_path / "held")
    assert len(data) == 30 and data.sample(0).instruction == "do 2"
    assert (len(data.frames_of("train")), len(data.frames_of("validation"))) == (0, 30)


def test_what_a_set_of_others_holds_out_under_another_name_is_not_trained_on_in_a_copy(tmp_path, capsys):
    one = write(tmp_path / "one", splits=(TRAIN,) * 3)
    info = json.loads((one / layout.INFO).read_text())
    for name, splits, kept in (("apart", {"train": "0:2", "test": "2:3"}, {"train": "0:2", "validation": "2:3"}),
                               ("whole", None, {"train": "0:3"})):
        (one / layout.INFO).write_text(json.dumps({**info, "splits": splits}))
        assert main(["dataset", "merge", str(one), "-o", str(tmp_path / name)]) == 0
        assert LeRobotDataset(tmp_path / name).info["splits"] == kept
    (one / layout.INFO).write_text(json.dumps({**info, "splits": {"train": "0:2", "test": "the rest"}}))
    assert main(["dataset", "merge", str(one), "-o", str(tmp_path / "odd")]) == 1
    assert "split test is 'the rest'; it must be BEGIN:END in episodes" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["nowhere", "empty"])
def test_what_is_no_data_set_is_one_sentence(tmp_path, capsys, word):
    (tmp_path / "empty").mkdir()
    assert main(["dataset", "inspect", str(tmp_path / word)]) == 1
    assert "not a complete data set" in capsys.readouterr().err
