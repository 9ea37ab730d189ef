"""Tables of the paper: what may be claimed after a number of episodes, and what is kept of a stopped sweep."""
import dataclasses
import json

import numpy as np
import pytest

from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.errors import ConfigurationError, HybridVLAError
from hybridvla_core.evaluation.ablation import page
from hybridvla_core.evaluation.ablation.cells import Cell, CellStore, Outcome
from hybridvla_core.evaluation.ablation.failures import LIMIT_TICKS, LIMITS, OTHER, ROTATION, TWO_ARMS, classify
from hybridvla_core.evaluation.ablation.opening import check_paths
from hybridvla_core.evaluation.ablation.results import table_result
from hybridvla_core.evaluation.ablation.tables import TABLES, Claim, Row, Table, chosen
from hybridvla_core.evaluation.ablation.variant import Variant
from hybridvla_core.evaluation.ablation.words import markdown
from hybridvla_core.model.schedule import DiffusionSchedule
from hybridvla_core.paths import ROOT
from hybridvla_core.report.comparisons import FAILS, HOLDS, OPEN, compare, holm, is_better, is_no_worse

TINY = ROOT / "checkpoints" / "tiny"


def outcomes(rate, count, seed):
    return list(np.random.default_rng(seed).random(count) < rate)


def test_twenty_episodes_tell_no_difference_of_a_fifth_and_four_hundred_do():
    few = compare([True] * 12 + [False] * 8, [True] * 8 + [False] * 12)
    assert few.p > 0.05 and is_better([few]) == OPEN
    many = compare(outcomes(0.7, 400, 1), outcomes(0.5, 400, 2))
    assert is_better([many]) == HOLDS and many.interval[0] < many.difference < many.interval[1]
    assert is_better([compare(outcomes(0.5, 400, 2), outcomes(0.7, 400, 1))]) == FAILS


def test_better_than_all_needs_all_and_a_correction():
    clear, open_case = compare([True] * 20, [False] * 20), compare([True] * 20, [True] * 19 + [False])
    assert is_better([clear, clear]) == HOLDS and is_better([clear, open_case]) == OPEN
    assert holm([0.04, 0.03]) == [False, False] and holm([0.01, 0.04]) == [True, True]


def test_as_good_as_is_not_the_same_as_no_difference_seen():
    same = [True] * 350 + [False] * 50
    assert is_no_worse(compare(same, same)) == HOLDS
    assert is_no_worse(compare(outcomes(0.6, 20, 1), outcomes(0.6, 20, 2))) == OPEN
    assert is_no_worse(compare([False] * 100 + [True] * 300, [True] * 400)) == FAILS


def test_episodes_of_different_number_are_not_paired():
    with pytest.raises(HybridVLAError, match="same seeds"):
        compare([True], [True, False])


def cell(**changes):
    return dataclasses.replace(Cell("folder", "abc", Variant("ensemble", theta=0.96), "blocks", 2_000_001, 4), **changes)


def outcome(*success):
    return Outcome(success=success, violations=(0,) * len(success), confidence=(0.5,), errors_mm=(3.0,))


def test_a_sweep_goes_on_where_it_was_stopped_and_takes_nothing_else_for_it(tmp_path):
    store = CellStore(tmp_path)
    done, other = cell(), cell(variant=Variant("ensemble", theta=0.94))
    store.keep(done, outcome(True, False, True, True))
    assert store.missing([done, other, other]) == [other]
    assert CellStore(tmp_path).find(cell(checkpoint="moved")) == outcome(True, False, True, True)
    for changed in (cell(manifest="other weights"), cell(seed=2_000_002), cell(filtered=False), cell(episodes=5),
                    cell(policy_config="other"), cell(robot_config="other"), cell(checkpoint="ws://127.0.0.1:8765")):
        assert store.find(changed) is None
    next(tmp_path.glob("*.json")).write_text('{"outcome": {')
    with pytest.raises(HybridVLAError, match="delete it"):
        store.find(done)


def test_what_was_not_run_is_no_failure(tmp_path):
    table = Table("two", "Two", (Row("a", Variant("ensemble"), 0.74), Row("b", Variant("diffusion"))),
                  (Claim("a is better", "a", ("b",)),))
    cells = {row.label: [cell(variant=row.variant, seed=2_000_001 + 4 * i) for i in range(2)] for row in table.rows}
    known = {one.key: outcome(True, True, False, True) for one in cells["a"] + cells["b"][:1]}
    result = table_result(table, lambda row: cells[row.label], lambda one: known.get(one.key))
    a, b = result["rows"]
    assert (a["episodes"], a["successes"], a["cells_not_run"]) == (8, 6, 0)
    assert (b["episodes"], b["successes"], b["cells_not_run"]) == (4, 3, 1)
    claim = result["claims"][0]
    assert claim["verdict"] == OPEN and claim["compared"]["b"]["episodes"] == 4      # only pairs that both ran
    nothing = table_result(table, lambda row: cells[row.label], lambda one: None)
    assert nothing["rows"][0]["episodes"] == 0 and nothing["claims"][0]["compared"]["b"] is None
    page.write({"meta": {"sentence": "s", "command": "c", "machine": "m"}, "tables": [nothing], "not_run": ["why"]}, tmp_path)
    assert "not run" in (tmp_path / "images" / "results-two.svg").read_text() and "why" in (tmp_path / "results.md").read_text()


def test_results_in_words_say_the_numbers_of_the_json(tmp_path):
    table = TABLES["steps"]
    result = table_result(table, lambda row: [cell(variant=row.variant)], lambda one: outcome(True, False, True, True))
    whole = {"meta": {"sentence": "s", "command": "c", "machine": "m"}, "tables": [result], "not_run": []}
    page.write(whole, tmp_path)
    read = json.loads((tmp_path / "results.json").read_text())
    text = (tmp_path / "results.md").read_text()
    assert markdown(read) == text
    for row in read["tables"][0]["rows"]:
        assert f"| {row['label']} | 0.750 | " in text


def test_tables_name_only_ways_that_the_shipped_checkpoint_can_be_asked_in():
    checkpoint = read_checkpoint(TINY)
    for table in TABLES.values():
        for row in table.rows:
            config = row.variant.altered(checkpoint.config)
            assert row.variant.theta is None or config.ensemble.theta == row.variant.theta
    with pytest.raises(HybridVLAError, match="threshold, "):
        chosen("modus")
    with pytest.raises(HybridVLAError, match="must differ"):
        Table("x", "X", (Row("a", Variant()), Row("a", Variant("diffusion"))))
    assert {row.label for row in TABLES["steps"].rows} >= {"4 steps", "30 steps, spread evenly"}


def test_thirty_steps_are_spread_evenly_because_the_released_spacing_has_no_thirty():
    with pytest.raises(ConfigurationError, match="30 DDIM steps"):
        Variant("diffusion", steps=30).altered(read_checkpoint(TINY).config)
    steps = DiffusionSchedule(spacing="even").ddim_timesteps(30)
    assert len(steps) == 30 and steps[0] == 0 and steps[-1] == 96 and set(np.diff(steps)) <= {3, 4}
    with pytest.raises(ConfigurationError, match="ddim_spacing"):
        DiffusionSchedule(spacing="odd")


def test_a_checkpoint_without_one_path_is_refused_for_it_by_name():
    checkpoint = read_checkpoint(TINY)
    alone = dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, trained=("diffusion",)))
    check_paths(alone.config, "folder", "diffusion")
    for mode in ("ensemble", "autoregressive"):
        with pytest.raises(HybridVLAError, match=f"autoregressive, so mode {mode}"):
            check_paths(alone.config, "folder", mode)


def test_failures_are_sorted_as_the_paper_sorts_them():
    right, turned = {"yaw_error": 0.01, "errors": [[0.001, 0, 0]]}, {"yaw_error": 0.5, "errors": [[0.001, 0, 0]]}
    off = {"yaw_error": 0.0, "errors": [[0.05, 0, 0]]}
    assert classify([right, turned, turned], {}) == ROTATION
    assert classify([right, off, off], {}) == OTHER and classify([], {}) == OTHER
    assert classify([turned], {"WORKSPACE": LIMIT_TICKS}) == LIMITS
    assert classify([turned], {"WORKSPACE": LIMIT_TICKS - 1, "DEADMAN": 900}) == ROTATION
    one_arm = {"yaw_error": 0.0, "errors": [[0.05, 0, 0], [0.0, 0, 0]]}
    assert classify([one_arm, one_arm], {}) == TWO_ARMS
