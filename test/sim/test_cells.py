"""Cells of an ablation in several processes: a cell whose process dies is tried once more, then named; the rest goes on."""
import contextlib
import copy
import dataclasses
import multiprocessing
import threading
import time

import pytest

from hybridvla_core.checkpoints.format import read_checkpoint
from hybridvla_core.configuration import load_file
from hybridvla_core.evaluation.ablation.cells import Cell
from hybridvla_core.evaluation.ablation.opening import open_policy
from hybridvla_core.evaluation.ablation.variant import Variant
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_sim.cells import Bench, run_cells

TINY = str(ROOT / "checkpoints" / "tiny")
MANIFEST = read_checkpoint(ROOT / "checkpoints" / "tiny").manifest_sha256


@pytest.fixture(scope="module")
def shared():
    return Bench(load_file(PolicyConfig, ROOT / "config/policies/tiny.yaml"),
                 load_file(RobotConfig, ROOT / "config/robots/sim_fr3.yaml"), open_policy)


def cell(seed, **changes):
    return Cell(**{**dict(checkpoint=TINY, manifest=MANIFEST, variant=Variant("diffusion"), task="blocks", seed=seed, episodes=1),
                   **changes})


@contextlib.contextmanager
def killing(first):
    """Kill the first worker processes that appear."""
    over, killed = threading.Event(), set()

    def kill():
        while not over.is_set() and len(killed) < first:
            for process in multiprocessing.active_children():
                if process.pid not in killed and len(killed) < first:
                    killed.add(process.pid)
                    process.kill()
            time.sleep(0.05)
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_a_cell_whose_worker_dies_twice_is_named_and_counts_as_nothing(shared):
    seen = []
    with killing(3) as killed:
        failed = run_cells([cell(2_000_001)], shared, 2, lambda *done: seen.append(done))
    assert killed and seen == [] and list(failed) == [cell(2_000_001).key] and "died twice" in failed[cell(2_000_001).key]


def test_two_policies_elsewhere_without_a_digest_are_not_taken_for_one_and_the_left_one_is_closed(shared):
    opened, closed, first = [], [], open_policy(cell(2_000_001))

    def opening(asked):
        opened.append(asked.checkpoint)
        found = copy.copy(first)
        found.close = lambda: closed.append(asked.checkpoint)
        return found
    places = ["ws://127.0.0.1:1", "ws://127.0.0.1:1", "ws://127.0.0.1:2"]
    cells = [cell(2_000_001 + i, checkpoint=place, manifest="", task="juggling") for i, place in enumerate(places)]
    failed = run_cells(cells, dataclasses.replace(shared, open_policy=opening), 1, lambda *done: None)
    assert len(failed) == 3 and opened == closed == places[1:]


def test_the_same_cell_gives_the_same_outcome_and_a_refused_one_costs_nothing_else(shared):
    cells = [cell(2_000_001), cell(2_000_002, task="juggling"), cell(2_000_001, filtered=False)]
    runs = []
    for _ in range(2):
        seen = {}
        failed = run_cells(cells, shared, 1, lambda one, outcome, seen=seen: seen.update({one.key: outcome}))
        assert list(failed) == [cells[1].key] and "juggling" in failed[cells[1].key]
        runs.append(seen)
    assert runs[0] == runs[1] and set(runs[0]) == {cells[0].key, cells[2].key}
    assert runs[0][cells[0].key].success == (True,) and runs[0][cells[0].key].violations == (0,)
    assert runs[0][cells[2].key].violations[0] > 0            # the filter prevents this
