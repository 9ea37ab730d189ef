"""Runs the cells that have not run yet, with a progress bar."""
from __future__ import annotations

from typing import Dict, List

from tqdm import tqdm

from hybridvla_core.evaluation.ablation.cells import Cell, CellStore, Outcome
from hybridvla_sim.cells import Bench, run_cells


def sweep(cells: List[Cell], store: CellStore, bench: Bench, processes: int) -> Dict[str, str]:
    """Runs the cells without a result and saves each result at once. Wherever it stops, all rows have about as many episodes.

    Forgets earlier results of a policy without a digest, since it may be another policy now.

    Args:
        cells: All wanted cells.
        store: Store of the results.
        bench: What the cells share.
        processes: Number of cells to run at a time.

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
