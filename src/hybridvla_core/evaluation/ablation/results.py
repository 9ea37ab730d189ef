"""Turns outcomes into tables: rates with intervals, and whether the paper's claims hold here."""
from __future__ import annotations

from dataclasses import asdict
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.evaluation.ablation.cells import Cell, Outcome
from hybridvla_core.evaluation.ablation.tables import Claim, Row, Table
from hybridvla_core.report.comparisons import FAILS, HOLDS, OPEN, Comparison, compare, is_better, is_no_worse
from hybridvla_core.report.statistics import rate, wilson

#: Gives the cells of a row, by task and by repeat of a task.
CellsOf = Callable[[Row], List[Cell]]
Find = Callable[[Cell], Optional[Outcome]]


def table_result(table: Table, cells_of: CellsOf, find: Find) -> Dict[str, Any]:
    """Returns a table for machines. A cell that was not run does not count, and is named.

    Args:
        table: Table to fill.
        cells_of: Gives the cells of a row, in the same order for every row.
        find: Gives the outcome of a cell, or None if it was not run.
    """
    outcomes = {row.label: [(cell, find(cell)) for cell in cells_of(row)] for row in table.rows}
    rows = [_row(row, outcomes[row.label]) for row in table.rows]
    against = next((row for row in rows if row["label"] == table.reference), None)
    for row in rows:
        told = against is not None and row is not against and row["episodes"] and against["successes"]
        row["change"] = round(row["rate"] / against["rate"] - 1.0, 4) if told and against is not None else None
    return {"name": table.name, "title": table.title, "about": table.about, "rows": rows,
            "elsewhere": [list(other) for other in table.elsewhere],
            "claims": [_claim(claim, outcomes) for claim in table.claims]}


Run = Sequence[Tuple[Cell, Optional[Outcome]]]


def _row(row: Row, run: Run) -> Dict[str, Any]:
    done = [(cell, outcome) for cell, outcome in run if outcome is not None]
    wins = [win for _, outcome in done for win in outcome.success]
    tasks: Dict[str, List[bool]] = {}
    failures: Dict[str, int] = {}
    for cell, outcome in done:
        tasks.setdefault(cell.task, []).extend(outcome.success)
        for kind in outcome.failures.values():
            failures[kind] = failures.get(kind, 0) + 1
    rates = [sum(outcome.success) / len(outcome.success) for _, outcome in done]
    mean = sum(rates) / len(rates) if rates else 0.0
    errors = [error for _, outcome in done for error in outcome.errors_mm]
    correlations = [outcome.correlation for _, outcome in done if outcome.correlation is not None]
    return {"label": row.label, "paper": row.paper, "model": row.model, "variation": row.variation,
            "variant": {key: value for key, value in asdict(row.variant).items() if value is not None},
            "median_error_mm": round(float(np.median(errors)), 2) if errors else None,
            "episodes": len(wins), "successes": sum(wins), "rate": rate(sum(wins), len(wins)),
            "interval": wilson(sum(wins), len(wins)),
            "variance": round(sum((one - mean) ** 2 for one in rates) / len(rates), 5) if rates else None,
            "per_task": {task: {"episodes": len(won), "successes": sum(won)} for task, won in sorted(tasks.items())},
            "fused": round(sum(outcome.fused for _, outcome in done) / len(done), 4) if done else None,
            "violations": sum(sum(outcome.violations) for _, outcome in done), "failures": dict(sorted(failures.items())),
            "path_error_correlation": round(sum(correlations) / len(correlations), 4) if correlations else None,
            "cells_not_run": len(run) - len(done)}


def _claim(claim: Claim, outcomes: Mapping[str, Run]) -> Dict[str, Any]:
    found = {other: _paired(outcomes[claim.better], outcomes[other]) for other in claim.others}
    compared = [comparison for comparison in found.values() if comparison is not None]
    if len(compared) < len(claim.others):
        verdict = OPEN
    elif claim.margin is None:
        verdict = is_better(compared)
    else:
        verdicts = {is_no_worse(comparison, claim.margin) for comparison in compared}
        verdict = next(worst for worst in (OPEN, FAILS, HOLDS) if worst in verdicts)
    return {"text": claim.text, **({"ours": True} if claim.ours else {}), "verdict": verdict,
            "test": "exact McNemar test on the same episodes, Holm's correction, level 0.05" if claim.margin is None else
            f"Newcombe's 95 % interval of the difference on the same episodes, margin {claim.margin:g}",
            "compared": {other: None if comparison is None else asdict(comparison) for other, comparison in found.items()}}


def _paired(first: Run, second: Run) -> Optional[Comparison]:
    """Compares the episodes that both rows ran; returns None if there are none."""
    a: List[bool] = []
    b: List[bool] = []
    for (_, one), (_, other) in zip(first, second):
        if one is not None and other is not None:
            a += one.success
            b += other.success
    return compare(a, b) if a else None
