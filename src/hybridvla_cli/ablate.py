"""`hybridvla ablate`: the paper's tables, by episodes in the simulated rig."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, List

from hybridvla_cli import Subparsers
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.threads import wait_quietly

#: Episodes of a cell, and cells of a row and task: together what one row has of a task.
QUICK, FULL = (20, 2), (20, 10)


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("ablate", help="make the paper's tables in the simulated rig; goes on where it was stopped")
    parser.add_argument("table", help="name of a table, or all (see docs/results.md)")
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints/tiny"), help="checkpoint folder")
    parser.add_argument("--tasks", default="blocks", help="tasks, separated by commas")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK[0] * QUICK[1]} episodes a row and task, not "
                        f"{FULL[0] * FULL[1]}")
    parser.add_argument("--seed", type=int, default=2_000_001, help="of the first episode")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--robot-config", default=str(ROOT / "config/robots/sim_fr3.yaml"))
    parser.add_argument("--policy-config", default=str(ROOT / "config/policies/tiny.yaml"))
    parser.add_argument("-o", "--out", default="out/ablate", help="folder of the results and of the cells done so far")
    parser.add_argument("--json", help="write the result for machines here, too")
    return parser


def run(args: argparse.Namespace) -> int:
    wait_quietly()
    from tqdm import tqdm

    from hybridvla_core.checkpoints.format import read_checkpoint
    from hybridvla_core.evaluation.ablation import page
    from hybridvla_core.evaluation.ablation.cells import Cell, CellStore, Outcome
    from hybridvla_core.evaluation.ablation.opening import open_policy
    from hybridvla_core.evaluation.ablation.results import table_result
    from hybridvla_core.evaluation.ablation.tables import Row, chosen
    from hybridvla_core.evaluation.suite import LARGEST_TRAINING_SEED, load_configs
    from hybridvla_sim import tasks as all_tasks
    from hybridvla_sim.cells import Bench, run_cells

    if args.seed <= LARGEST_TRAINING_SEED:
        raise HybridVLAError(f"--seed {args.seed}: seeds up to {LARGEST_TRAINING_SEED} belong to training; use a larger one")
    if args.processes < 1:
        raise HybridVLAError(f"--processes {args.processes}: give at least 1")
    tables, out = chosen(args.table), Path(args.out)
    tasks = [all_tasks.load(name, rig="fr3").name for name in args.tasks.split(",") if name]
    if not tasks:
        raise HybridVLAError("--tasks names no task")
    manifest = read_checkpoint(Path(args.checkpoint)).manifest_sha256
    episodes, repeats = QUICK if args.quick else FULL

    def cells_of(row: Row) -> List[Cell]:
        return [Cell(str(args.checkpoint), manifest, row.variant, task, args.seed + repeat * episodes, episodes,
                     filtered=row.filtered) for task in tasks for repeat in range(repeats)]

    store = CellStore(out / "cells")
    every = {cell.key: cell for table in tables for row in table.rows for cell in cells_of(row)}
    missing = store.missing(list(every.values()))
    config, robot = load_configs(Path(args.policy_config), Path(args.robot_config), "ensemble")
    with tqdm(total=len(every) * episodes, initial=(len(every) - len(missing)) * episodes, desc="episodes") as bar:
        def done(cell: Cell, outcome: Outcome) -> None:
            store.keep(cell, outcome)
            bar.set_postfix_str(f"{cell.variant.mode}: {sum(outcome.success)}/{cell.episodes}")
            bar.update(cell.episodes)

        failed = run_cells(missing, Bench(config, robot, open_policy), args.processes, done)
    result: Dict[str, Any] = {
        "meta": {"checkpoint_manifest": manifest, "tasks": tasks, "seed": args.seed, "episodes": episodes * repeats,
                 "sentence": f"Checkpoint `{Path(args.checkpoint).name}` on the simulated FR3, "
                             f"{'task' if len(tasks) == 1 else 'tasks'} {', '.join(tasks)}: {episodes * repeats} episodes for "
                             f"each row and task, seeds from {args.seed}. The paper's figures are of its own ten tasks and of a "
                             "model of 7 billion parameters; they stand beside ours for their order, not for their size.",
                 "command": f"hybridvla ablate {args.table}{' --quick' if args.quick else ''} --checkpoint "
                            f"{_shown(args.checkpoint)} --tasks {','.join(tasks)} --seed {args.seed}"},
        "tables": [table_result(table, cells_of, store.find) for table in tables],
        "not_run": [f"{every[key].task}, {every[key].variant.mode}, seed {every[key].seed}: {why}"
                    for key, why in sorted(failed.items())]}
    page.write(result, out)
    write_json(args.json, result)
    for table in result["tables"]:
        for claim in table["claims"]:
            print(f"{table['title']}: {claim['text']}: {claim['verdict']}")
    print(f"look at {out / 'index.html'}")
    if failed:
        raise HybridVLAError(f"{len(failed)} of {len(every)} cells were not run, the first because: "
                             f"{next(iter(failed.values()))}; the same command runs them again")
    return 0


def _shown(folder: str) -> str:
    """Returns a path as the documents say it: relative to the project where it lies there."""
    path = Path(folder).resolve()
    return str(path.relative_to(ROOT)) if ROOT in path.parents else str(path)
