"""Runs the cells that are still to be run, with a bar."""
from __future__ import annotations

from typing import Dict, List

from tqdm import tqdm

from hybridvla_core.evaluation.ablation.cells import Cell, CellStore, Outcome
from hybridvla_sim.cells import Bench, run_cells


def sweep(cells: List[Cell], store: CellStore, bench: Bench, processes: int) -> Dict[str, str]:
    """Runs what has no result yet, and keeps each result at once. Whenever it is stopped, all rows have about as many episodes.

    What a policy without a digest did in an earlier run is forgotten, since it may be another policy now.

    Args:
        cells: All that are wanted.
        store: Of results.
        bench: What they share.
        processes: How many at a time.

    Returns:
        Why a cell was not run, by its key.
    """
    nameless = [cell for cell in cells if not cell.manifest]
    again = store.forget(nameless)
    if again:
        print(f"{again} earlier results are run again, since these policies have no digest and may have changed: "
              f"{', '.join(sorted({cell.checkpoint for cell in nameless}))}")
    missing = sorted(store.missing(cells), key=lambda cell: cell.seed)
    wanted = {cell.key: cell.episodes for cell in cells}
    total = sum(wanted.values())
    with tqdm(total=total, initial=total - sum(cell.episodes for cell in missing), desc="episodes") as bar:
        def done(cell: Cell, outcome: Outcome) -> None:
            store.keep(cell, outcome)
            bar.set_postfix_str(f"{cell.variant.mode}: {sum(outcome.success)}/{cell.episodes}")
            bar.update(cell.episodes)

        return run_cells(missing, bench, processes, done)
