"""Runs the cells that are still to be run, with a bar."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Dict, List

from tqdm import tqdm

from hybridvla_core.evaluation.ablation.cells import Cell, CellStore, Outcome
from hybridvla_core.evaluation.ablation.opening import open_policy
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_sim.cells import Bench, run_cells


def sweep(cells: List[Cell], store: CellStore, args: argparse.Namespace) -> Dict[str, str]:
    """Runs what has no result yet, and keeps each result at once. Whenever it is stopped, all rows have about as many episodes.

    Args:
        cells: All that are wanted.
        store: Of results.
        args: Of the command line: `processes`, `policy_config`, `robot_config`.

    Returns:
        Why a cell was not run, by its key.
    """
    missing = sorted(store.missing(cells), key=lambda cell: cell.seed)
    wanted = {cell.key: cell.episodes for cell in cells}
    total = sum(wanted.values())
    config, robot = load_configs(Path(args.policy_config), Path(args.robot_config), "ensemble")
    with tqdm(total=total, initial=total - sum(cell.episodes for cell in missing), desc="episodes") as bar:
        def done(cell: Cell, outcome: Outcome) -> None:
            store.keep(cell, outcome)
            bar.set_postfix_str(f"{cell.variant.mode}: {sum(outcome.success)}/{cell.episodes}")
            bar.update(cell.episodes)

        return run_cells(missing, Bench(config, robot, open_policy), args.processes, done)
