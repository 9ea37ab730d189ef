"""Runs the cells of an ablation, several at a time; a worker that dies loses its own cell and nothing else."""
from __future__ import annotations

import contextlib
import math
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.ablation.cells import Cell, Outcome
from hybridvla_core.evaluation.ablation.failures import classify
from hybridvla_core.evaluation.ablation.variant import Variant
from hybridvla_core.evaluation.unfiltered import Unfiltered
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.fit import check_fit
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.report.statistics import correlation
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_sim import tasks
from hybridvla_sim.pool import workers, workers_ignore_interrupts
from hybridvla_sim.suite import Suite


@dataclass(frozen=True)
class Bench:
    """What all cells share.

    Attributes:
        config: Configuration of the policy; the cell sets its mode.
        robot: Robot whose limits the filter enforces and the rig's monitor checks.
        open_policy: Function that loads a cell's checkpoint; it must be at module level, since workers import it by name.
    """

    config: PolicyConfig
    robot: RobotConfig
    open_policy: Callable[[Cell], PolicyInterface]


class CellRunner:
    """Runs cells one after the other; keeps the checkpoint and the rig while the next cell uses the same ones.

    Args:
        bench: What all cells share.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._policies: Dict[Tuple[str, str, Variant], PolicyInterface] = {}
        self._suites: Dict[Tuple[str, bool, str], Suite] = {}

    def run(self, cell: Cell) -> Outcome:
        """Runs a cell.

        Args:
            cell: Checkpoint, variant and task, and the seeds of its episodes.

        Returns:
            The outcome of its episodes, summed.

        Raises:
            HybridVLAError: The checkpoint does not fit the configuration, lacks the path, or the task is unknown.
        """
        policy, suite = self._policy(cell), self._suite(cell)
        suite.runner.policy = policy
        suite.runner.config = replace(self._bench.config, mode=cell.variant.mode)
        episodes = [suite.run(spec) for spec in suite.task.draw(cell.seed, cell.episodes, cell.switched)]
        return summed(episodes)

    def close(self) -> None:
        """Releases the rigs and the policy."""
        self._close_rigs()
        self._close_policy()

    def _close_rigs(self) -> None:
        for suite in self._suites.values():
            suite.rig.close()
        self._suites = {}

    def _close_policy(self) -> None:
        """Closes the connection to a remote policy; local policies have none."""
        for policy in self._policies.values():
            getattr(policy, "close", lambda: None)()
        self._policies = {}

    def _policy(self, cell: Cell) -> PolicyInterface:
        wanted = cell.manifest, cell.place, cell.variant
        if wanted not in self._policies:
            self._close_policy()
            policy = self._bench.open_policy(cell)
            check_fit(policy, replace(self._bench.config, mode=cell.variant.mode), self._bench.robot)
            self._policies = {wanted: policy}
        return self._policies[wanted]

    def _suite(self, cell: Cell) -> Suite:
        wanted = cell.task, cell.filtered, cell.variation
        if wanted not in self._suites:
            self._close_rigs()
            task = tasks.load(cell.task)
            task = task.varied(cell.variation) if cell.variation else task
            safety = SafetyFilter if cell.filtered else Unfiltered
            self._suites = {wanted: Suite(self._policy(cell), self._bench.config, self._bench.robot, task, safety)}
        return self._suites[wanted]


def summed(episodes: Sequence[Mapping[str, Any]]) -> Outcome:
    """Returns the summed outcome of episodes as `Suite.run` returns them."""
    rows = [row for episode in episodes for row in episode["decisions"]]
    both = [row for row in rows if row["diffusion"] is not None and row["autoregressive"] is not None]
    interventions: Dict[str, int] = {}
    for episode in episodes:
        for name, count in episode["counters"].items():
            if name.startswith(("limited/", "rejected/", "holds")):
                interventions[name] = interventions.get(name, 0) + count
    apart = correlation([np.array(row["diffusion"]) for row in both],
                        [np.array(row["autoregressive"]) for row in both]) if both else math.nan
    return Outcome(
        success=tuple(bool(episode["success"]) for episode in episodes),
        violations=tuple(int(episode["violations"]) for episode in episodes), interventions=interventions,
        failures={str(episode["seed"]): classify(episode["decisions"], episode["reasons"])
                  for episode in episodes if not episode["success"]},
        fused=sum(row["fused"] for row in rows) / len(rows) if rows else 0.0,
        predictions=tuple(len(episode["decisions"]) for episode in episodes),
        confidence=tuple(None if math.isnan(row["confidence"]) else round(float(row["confidence"]), 5) for row in rows),
        errors_mm=tuple(round(float(np.linalg.norm(row["error"])) * 1e3, 3) for row in rows),
        correlation=None if math.isnan(apart) else round(apart, 4))


_RUNNER: Optional[CellRunner] = None


def _begin(bench: Bench) -> None:
    global _RUNNER
    _RUNNER = CellRunner(bench)


def _run(cell: Cell) -> Outcome:
    assert _RUNNER is not None, "a worker starts with _begin"
    return _RUNNER.run(cell)


def run_cells(cells: Sequence[Cell], bench: Bench, processes: int, done: Callable[[Cell, Outcome], None]) -> Dict[str, str]:
    """Runs cells.

    Args:
        cells: Cells to run.
        bench: What they share.
        processes: Number of cells that run at a time.
        done: Callback, called with each cell and its outcome as soon as there is one.

    Returns:
        The reason why a cell was not run, by the cell's key. A cell whose worker died is tried once more by itself.
    """
    if processes <= 1:
        return _one_after_another(cells, bench, done)
    pending: List[Cell] = list(cells)
    suspects: List[Cell] = []
    failed: Dict[str, str] = {}
    while pending:
        pending, broken = _until_broken(pending, bench, processes, done, failed)
        suspects += broken
    for cell in suspects:
        _, broken = _until_broken([cell], bench, 1, done, failed)
        if broken:
            failed[cell.key] = "its worker process died twice (killed, or out of memory?)"
    return failed


def _one_after_another(cells: Sequence[Cell], bench: Bench, done: Callable[[Cell, Outcome], None]) -> Dict[str, str]:
    runner = CellRunner(bench)
    failed: Dict[str, str] = {}
    try:
        for cell in cells:
            try:
                done(cell, runner.run(cell))
            except HybridVLAError as error:
                failed[cell.key] = str(error)
    finally:
        runner.close()
    return failed


def _until_broken(cells: List[Cell], bench: Bench, processes: int, done: Callable[[Cell, Outcome], None],
                  failed: Dict[str, str]) -> Tuple[List[Cell], List[Cell]]:
    """Returns the cells that were not started and those that were running when a worker died."""
    waiting = list(cells[processes:])
    broken: List[Cell] = []
    with workers(processes, _begin, (bench,)) as executor:
        with workers_ignore_interrupts():
            running = {executor.submit(_run, cell): cell for cell in cells[:processes]}
        while running and not broken:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                cell = running.pop(future)
                try:
                    done(cell, future.result())
                except BrokenProcessPool:
                    broken.append(cell)
                except HybridVLAError as error:
                    failed[cell.key] = str(error)
                if waiting and not broken:
                    with contextlib.suppress(BrokenProcessPool):        # the cells still running will report it
                        running[executor.submit(_run, waiting[0])] = waiting[0]
                        del waiting[0]
    return waiting, broken + list(running.values())
