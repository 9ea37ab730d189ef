"""Normalisation of a run: channels that hardly ever move, and how much of a channel's range is cut off at its ends."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import toy_data
from toy_data import SHORT, config, go, origins, write

from hybridvla_cli.__main__ import main
from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.errors import ConfigurationError, DataError, HybridVLAError
from hybridvla_core.training.hybrid import scales
from hybridvla_core.training.hybrid.run import Request, train
from hybridvla_core.training.hybrid.start import prepare

#: One of 250 frames moves channel 3, from 0.2 to 0.9.
RARE = dict(episodes=2, frames=125, rare=(3,))


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    toy_data.add_preset(monkeypatch)


def as_before(data):
    """Rewrites the data set's statistics by the rule of older versions, in which quantiles alone decide."""
    file = data / layout.STATISTICS
    said = json.loads(file.read_text())
    for part in ("action", "proprio"):
        for key, value in (("q01", 0.2), ("q99", 0.2), ("constant", True)):
            said["toy"][part][key][3] = value
    file.write_text(json.dumps(said))
    return data


@pytest.mark.parametrize("older", [False, True])
def test_what_moves_in_few_rows_is_learned_and_can_be_asked_for(tmp_path, older):
    data = write(tmp_path / "toy", **RARE)
    if older:
        as_before(data)
    start = prepare(config(), (data,), None)
    entry = start.statistics["toy"]
    for part in ("action", "proprio"):
        assert (entry[part]["q01"][3], entry[part]["q99"][3]) == pytest.approx((0.2, 0.9)), part
        assert not entry[part]["constant"][3]
    action, pour, other = start.sets[0].scales.action, np.full(7, 0.9), np.full(7, 0.2)
    assert action.normalise(pour)[3] == pytest.approx(1.0) and action.normalise(other)[3] == pytest.approx(-1.0)
    assert action.unnormalise(action.normalise(pour), (6,))[3] == pytest.approx(0.9)
    go(tmp_path, data)
    assert read_checkpoint(tmp_path / "out").statistics["toy"]["action"]["q99"][3] == pytest.approx(0.9)


def test_the_data_sets_own_statistics_and_the_check_against_them_agree(tmp_path, capsys):
    data, file = write(tmp_path / "toy", **RARE), tmp_path / "statistics.json"
    assert main(["dataset", "stats", str(data), "-o", str(file)]) == 0
    assert json.loads(file.read_text())["toy"]["action"]["q99"][3] == pytest.approx(0.9)
    assert main(["dataset", "stats", str(data), "--against", str(file)]) == 0, capsys.readouterr().err
    stats = json.loads((data / layout.STATS).read_text())
    assert stats["action"]["q99"][3] == pytest.approx(0.2), "LeRobot's file has true quantiles"


@pytest.mark.parametrize("content, words", [
    (lambda entry: {}, "has no entry toy (its entries: none)"),
    (lambda entry: {"one": entry, "two": entry}, "has no entry toy (its entries: one, two)"),
    (lambda entry: {"toy": [entry], "two": entry}, "toy is list"), (lambda entry: {"one": 3}, "has no entry toy")])
def test_a_file_without_an_entry_of_the_set_is_refused_with_the_command_that_writes_one(tmp_path, content, words):
    data = write(tmp_path / "toy", episodes=2, frames=4)
    file, wanted = data / layout.STATISTICS, prepare(config(), (data,), None).statistics["toy"]
    file.write_text(json.dumps(content(wanted)))
    with pytest.raises(DataError) as caught:
        prepare(config(), (data,), None)
    command = f"hybridvla dataset stats {data} -o {file}"
    assert words in str(caught.value) and str(caught.value).endswith(f"`{command}`")
    assert str(caught.value).startswith(f"{file}: ") and main(command.split()[1:]) == 0
    assert prepare(config(), (data,), None).statistics["toy"] == wanted


def test_the_only_entry_of_a_file_is_the_sets_whatever_its_name(tmp_path):
    data = write(tmp_path / "toy", episodes=2, frames=4)
    wanted = prepare(config(), (data,), None).statistics["toy"]
    (data / layout.STATISTICS).write_text(json.dumps({"before": wanted}))
    assert prepare(config(), (data,), None).statistics == {"toy": wanted}


def test_a_channel_that_moves_by_rounding_alone_stays_constant(tmp_path):
    data = write(tmp_path / "toy", episodes=2, frames=4, still=(3,))
    assert prepare(config(), (data,), None).sets[0].scales.state.constant.tolist() == [False] * 3 + [True] + [False] * 3


def test_a_run_in_the_middle_of_which_a_channel_would_change_its_meaning_is_refused(tmp_path, monkeypatch):
    data = as_before(write(tmp_path / "toy", **RARE))
    with monkeypatch.context() as patch:
        patch.setattr(scales, "widened", dict)
        patch.setattr(scales, "rare", lambda statistics: [])
        go(tmp_path, data)
    with pytest.raises(HybridVLAError, match="begun with another statistics"):
        go(tmp_path, data)


@pytest.mark.parametrize("tail", [0.0, 0.001, 0.05])
def test_the_tail_of_a_recipe_is_cut_exactly_from_every_row(tmp_path, tail, capsys):
    data = write(tmp_path / "toy", episodes=3, frames=120)
    found = prepare(config(statistics_tail=tail), (data,), None).statistics["toy"]
    dataset = LeRobotDataset(data)
    for part, key in (("action", layout.ACTION), ("proprio", layout.STATE)):
        rows = np.array(dataset.column(key, tmp_path / "scratch"), dtype=np.float64)
        np.testing.assert_array_equal(found[part]["q01"], np.quantile(rows, tail, axis=0))
        np.testing.assert_array_equal(found[part]["q99"], np.quantile(rows, 1.0 - tail, axis=0))
        assert found[part]["tail"] == tail
    go(tmp_path, data, statistics_tail=tail)
    exported = tmp_path / "out/dataset_statistics.json"
    assert json.loads(exported.read_text())["toy"] == found
    assert main(["dataset", "stats", str(data), "--against", str(exported)]) == 0, capsys.readouterr().err


def test_runs_begun_before_there_was_a_tail_go_on_and_with_another_they_are_others(tmp_path):
    data, recipe = write(tmp_path / "toy"), config(stages=SHORT)
    train(Request(recipe, (data,), tmp_path / "work", tmp_path / "out", threads=1))
    for origin in origins(tmp_path):
        assert "statistics_tail" not in origin["configuration"] and "statistics" not in origin
    train(Request(recipe, (data,), tmp_path / "work", tmp_path / "out", threads=1))
    with pytest.raises(HybridVLAError, match=r"another configuration \(statistics_tail\)"):
        train(Request(replace(recipe, statistics_tail=0.001), (data,), tmp_path / "work", tmp_path / "out", threads=1))


@pytest.mark.parametrize("changes, words", [
    (dict(statistics_tail=0.06), "statistics_tail"), (dict(statistics_tail=-0.1), "statistics_tail"),
    (dict(statistics="init", statistics_tail=0.001), "statistics_tail 0.001 is for statistics: data")])
def test_a_tail_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        config(**changes)
    assert config(statistics="init").statistics_tail == 0.01


def test_a_channel_that_the_checkpoint_cannot_move_is_named(tmp_path, caplog):
    still, moving = write(tmp_path / "still/toy", **RARE), write(tmp_path / "moving/toy", **RARE)
    file = as_before(still) / layout.STATISTICS
    said = json.loads(file.read_text())
    for part in ("action", "proprio"):
        said["toy"][part]["max"][3] = 0.2       # as if nothing had moved there
    file.write_text(json.dumps(said))
    go(tmp_path / "base", still)
    go(tmp_path / "on", moving, init=tmp_path / "base/out", preset="", statistics="init")
    assert "state channel 3 moves, and never did in the data of" in caplog.text
    assert "action channel 3 moves, and never did" in caplog.text and "no answer of the model moves it" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("statistics", ["data", "init"])
def test_a_number_that_is_not_finite_in_a_set_of_others_is_named_before_the_first_step(tmp_path, monkeypatch, statistics, value):
    """Quantiles do not show it, because it is one of 240 rows."""
    go(tmp_path / "base", write(tmp_path / "base/toy"))
    data = write(tmp_path / "toy", episodes=4, frames=60)
    (data / layout.STATISTICS).unlink()
    matrix = LeRobotDataset._matrix

    def broken(self, table, key, where):
        found = matrix(self, table, key, where).copy()
        if key == layout.ACTION and self.folder == data and "episode 2" in where:
            found[7, 1] = value
        return found

    monkeypatch.setattr(LeRobotDataset, "_matrix", broken)
    init = dict(init=tmp_path / "base/out", preset="") if statistics == "init" else {}
    with pytest.raises(DataError, match="toy: action holds a number that is not finite in 1 row.s., first in episode 2, frame 7"):
        go(tmp_path / "run", data, statistics=statistics, **init)
    (tmp_path / "mended").mkdir()
    assert main(["dataset", "merge", str(data), "-o", str(tmp_path / "mended/toy")]) == 0
    assert len(LeRobotDataset(tmp_path / "mended/toy").episodes) == 3
