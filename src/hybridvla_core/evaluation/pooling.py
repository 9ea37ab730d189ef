"""Pools results of `hybridvla evaluate` that were written in parts: success and what confidence is worth, of each task and mode.

    python -m hybridvla_core.evaluation.pooling OUT/evaluation/*.json > table.md
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import trust
from hybridvla_core.report.statistics import rate, wilson

HEAD = ("task", "mode", "successes", "episodes", "rate", "95 % interval (Wilson)", "confident half", "other half",
        "calibration error")
#: Entries of the orders that two results of one task and mode must share; of the numbers of episodes, only which kinds exist.
ALIKE = ("manifest_sha256", "variation", "ros", "configurations")
KINDS = ("episodes", "switch_episodes", "language_scenes")
#: Summaries by task and mode.
Pooled = Dict[Tuple[str, str], Dict[str, Any]]


def pooled(parts: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Returns the summary of all episodes of a task in one mode; halves and diagram are computed over all of them.

    Args:
        parts: Summaries of one task, as `summarise` returns them. Older ones have no `rows` and only add to the counts.

    Returns:
        `episodes`, `successes`, `success_rate`, `interval`, `mode`, `reliability`, `rows`.

    Raises:
        HybridVLAError: An episode is in two of the summaries.
    """
    rows = [row for part in parts for row in part.get("rows", ())]
    seeds = [(row["seed"], row["instruction"]) for row in rows]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise HybridVLAError(f"seed {twice[0][0]} ({twice[0][1]!r}) is in two of the results; give each episode once")
    episodes, wins = sum(part["episodes"] for part in parts), sum(part["successes"] for part in parts)
    return {"episodes": episodes, "successes": wins, "success_rate": rate(wins, episodes), "interval": wilson(wins, episodes),
            "mode": parts[0]["mode"], "limit_violations": sum(part.get("limit_violations", 0) for part in parts),
            # Halves of only some of the episodes would be mistaken for halves of all.
            "reliability": trust(rows) if len(rows) == episodes else {}, "rows": rows}


def pooled_files(files: Sequence[Path]) -> Pooled:
    """Pools result files of one task (`--task`) or of several (`--tasks`).

    Args:
        files: Results of `hybridvla evaluate --json`. The caller makes sure that they are of one checkpoint. An older result of
            a single task does not name the task: its file must then be called TASK-MODE-SEED-COUNT.json.

    Returns:
        A summary by task and mode, in the order of the files.

    Raises:
        HybridVLAError: A file is not a result, an episode is in two of them, or two differ in checkpoint, configuration or kind
            of episodes.
    """
    found: Dict[Tuple[str, str], List[Mapping[str, Any]]] = {}
    orders: Dict[Tuple[str, str], Tuple[Path, Mapping[str, Any]]] = {}
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            named = content.get("tasks") or {content.get("task") or file.stem.rsplit("-", 3)[0]: content}
            for task, summary in named.items():
                found.setdefault((task, summary["mode"]), []).append(summary)
                if content.get("order"):       # older results have no order
                    kept = orders.setdefault((task, summary["mode"]), (file, content["order"]))
                    _check_alike(kept, (file, content["order"]))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise HybridVLAError(f"{file}: is no result of `hybridvla evaluate --json` ({error}); leave it out") from error
    return {key: pooled(parts) for key, parts in found.items()}


def _check_alike(one: Tuple[Path, Mapping[str, Any]], other: Tuple[Path, Mapping[str, Any]]) -> None:
    differ = [name for name in ALIKE if one[1].get(name) != other[1].get(name)]
    differ += [name for name in KINDS if bool(one[1].get(name)) != bool(other[1].get(name))]
    if differ:
        raise HybridVLAError(f"{other[0]} and {one[0]} differ in {', '.join(differ)}; pool results of the same kind")


def table(found: Pooled) -> str:
    """Returns a Markdown table: a line for each task and mode, and the mean of each mode."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for (task, mode), summary in found.items():
        low, high = summary["interval"]
        told = summary["reliability"]
        error = told.get("expected_calibration_error")
        lines.append(f"| {task} | {mode} | {summary['successes']} | {summary['episodes']} | {summary['success_rate']:.3f} | "
                     f"{low:.3f} to {high:.3f} | {_half(told.get('confident_half'))} | {_half(told.get('other_half'))} | "
                     f"{'' if error is None else format(error, '.3f')} |")
    for mode in sorted({mode for _, mode in found}):
        rates = [summary["success_rate"] for (_, other), summary in found.items() if other == mode]
        lines.append(f"| mean of {len(rates)} | {mode} | | | {sum(rates) / len(rates):.3f} | | | | |")
    return "\n".join(lines) + "\n"


def _half(found: object) -> str:
    return f"{found['successes']}/{found['episodes']}" if isinstance(found, dict) else ""


def main() -> int:
    """Prints the table of the given files; returns 1, with a message, if one cannot be pooled."""
    parser = argparse.ArgumentParser(prog="python -m hybridvla_core.evaluation.pooling",
                                     description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="results of hybridvla evaluate --json, of one checkpoint")
    try:
        print(table(pooled_files(parser.parse_args().files)), end="")
    except HybridVLAError as error:
        print(f"pooling: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
