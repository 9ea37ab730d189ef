"""`hybridvla ablate`: makes the paper's tables from episodes in the simulated rig."""
from __future__ import annotations

import argparse
import functools
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Sequence

from hybridvla_cli import Subparsers
from hybridvla_cli.ablate_parts import measured
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import check_target, key_of, write_json
from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.threads import wait_quietly
from hybridvla_sim.rigs import RIGS, add_rig

if TYPE_CHECKING:
    from hybridvla_core.evaluation.ablation.tables import Table

#: Episodes per cell, and cells per row and task; their product is the number of episodes that one row has of a task.
QUICK, FULL = (5, 4), (20, 10)
CALIBRATION = "calibration"
SHOWN = {"fr3": "the simulated FR3", "agilex": "the simulated AgileX rig"}


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("ablate", help="make the paper's tables in the simulated rig; continues where an earlier "
                                                  "run stopped")
    parser.add_argument("table", help="name of a table, or all (see docs/results.md)")
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints/tiny"), help="checkpoint folder")
    parser.add_argument("--policy", action="append", default=[], metavar="NAME=PLACE",
                        help="a further row of the table of modes: another checkpoint, the ws://HOST:PORT of any policy, or a "
                             "policy configuration whose section `remote` says how to reach it, with key and certificate "
                             "(docs/remote.md); may be repeated")
    add_rig(parser)
    parser.add_argument("--tasks", nargs="+", default=["blocks"], help="tasks of the rig, separated by blanks or commas, or all")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK[0] * QUICK[1]} episodes a row and task, not "
                        f"{FULL[0] * FULL[1]}")
    parser.add_argument("--report", action="store_true", help="run nothing; write the pages from the results of earlier runs")
    parser.add_argument("--seed", type=int, default=2_000_001, help="seed of the first episode")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--robot-config", "--robot", help="robot configuration; the rig's own when left out")
    parser.add_argument("--policy-config", help="policy configuration; when left out, the rig's own with the checkpoint's "
                                                "cameras")
    parser.add_argument("-o", "--out", default="out/ablate", help="folder of the results and of the finished cells")
    parser.add_argument("--docs", metavar="DIR", help="also write results.md, results.json and the drawings to this folder")
    parser.add_argument("--json", help="also write the result as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    wait_quietly()
    from hybridvla_cli.ablate_parts.order import Order, Source, policies_named, servers
    from hybridvla_cli.ablate_parts.sweep import sweep
    from hybridvla_core.benchmark.subject import processor_name
    from hybridvla_core.evaluation.ablation import page
    from hybridvla_core.evaluation.ablation.calibration import calibration_sheet
    from hybridvla_core.evaluation.ablation.cells import CellStore
    from hybridvla_core.evaluation.ablation.opening import open_policy
    from hybridvla_core.evaluation.ablation.results import table_result
    from hybridvla_core.evaluation.ablation.tables import GIVEN, TABLES, chosen
    from hybridvla_core.evaluation.suite import check_seeds, load_configs
    from hybridvla_sim import tasks as all_tasks
    from hybridvla_sim.cells import Bench
    from hybridvla_sim.origin import origin

    check_seeds(args.seed, math.prod(QUICK if args.quick else FULL))
    if args.processes < 1:
        raise HybridVLAError(f"--processes {args.processes}: give at least 1")
    for option, folder in (("--out", args.out), ("--docs", args.docs)):
        if folder:
            check_target(Path(folder) / "results.json", option)
    names = chosen(args.table, (CALIBRATION, *measured.NAMES))
    rig = RIGS[args.rig]
    tasks = [all_tasks.load(name) for name in all_tasks.chosen(_named(args.tasks), rig.kind)]
    if not tasks:
        raise HybridVLAError("--tasks names no task")
    out, policies = Path(args.out), policies_named(args.policy)
    sources = {GIVEN: Source.open(str(args.checkpoint)), **{name: Source.open(place) for name, place in policies.items()}}
    opened = functools.partial(open_policy, servers=servers(sources))
    episodes, repeats = QUICK if args.quick else FULL
    given = sources[GIVEN].config
    policy_file = args.policy_config or (rig.policy if given is None else rig.policy_for(given.cameras))
    config, robot = load_configs(Path(policy_file), Path(args.robot_config or rig.robot), "ensemble")
    order = Order(sources, {task.name: task.phrases.goals for task in tasks}, args.seed, episodes, repeats,
                  key_of(asdict(config)), key_of(asdict(robot)), key_of(origin()), takes_poses=robot.agilex is None)
    tables = [_with_policies(TABLES[name], list(policies)) for name in names if name in TABLES]
    first: List[Table] = [] if "modes" in names or CALIBRATION not in names else [
        replace(TABLES["modes"], rows=TABLES["modes"].rows[:1], claims=())]
    store = CellStore(out / "cells")
    cells = {cell.key: cell for table in [*tables, *first] for row in table.rows for cell in order.cells(row)}
    failed = dict(order.refused)
    if not args.report:
        failed.update(sweep([cell for key, cell in cells.items() if key not in failed], store,
                            Bench(config, robot, opened), args.processes))
    sheets, absent = measured.sheets(names, args, out, sources[GIVEN])
    if CALIBRATION in names:
        found = [store.find(cell) for cell in order.cells(TABLES["modes"].rows[0])]
        done = [outcome for outcome in found if outcome is not None]
        if done:
            sheets.insert(0, calibration_sheet(done))
    made = [table_result(table, order.cells, store.find) for table in tables]
    # A single row, which other tables may share, is not a comparison.
    begun = [table for table in made if sum(row["episodes"] > 0 for row in table["rows"]) > 1]
    shown = {table["name"] for table in begun}
    missing = {cell.key for table in tables if table.name in shown for row in table.rows for cell in order.cells(row)
               if cell.key not in failed and store.find(cell) is None}
    result: Dict[str, Any] = {
        "meta": {"checkpoint_manifest": sources[GIVEN].manifest, "tasks": [task.name for task in tasks], "seed": args.seed,
                 "episodes": episodes * repeats, "machine": processor_name(),
                 "sentence": _sentence(args, list(order.tasks), episodes, repeats), "command": _command(args)},
        "tables": begun, "sheets": sheets,
        "unmade": [*({"title": table["title"], "name": table["name"], "why": "",
                      "claims": [claim["text"] for claim in table["claims"]]} for table in made if table not in begun), *absent],
        "not_run": [*_reasons(cells, failed),
                    *([f"{len(missing)} runs of {episodes} episodes in the tables below; the same command runs them"]
                      if missing else [])]}
    for part in [*result["tables"], *sheets]:
        for claim in part["claims"]:
            print(f"{part['title']}: {claim['text']}: {claim['verdict']}")
    page.write(result, out)
    if args.docs:
        page.document(result, Path(args.docs))
    write_json(args.json, result)
    print(f"look at {out / 'index.html'}")
    failures = [f"{sheet['title']}: {' '.join(sheet['why'].split())}" for sheet in absent if sheet["why"]]
    for failure in failures:
        print(f"hybridvla: {failure}", file=sys.stderr)
    if failed:
        raise HybridVLAError(f"{len(failed)} of {len(cells)} cells were not run, the first because: "
                             f"{next(iter(failed.values()))}; the same command runs them again")
    return 1 if failures else 0


def _named(words: Sequence[str]) -> List[str]:
    """Returns names that are separated by blanks, commas or both."""
    return [name for word in words for name in word.split(",") if name]


def _reasons(cells: Mapping[str, Any], failed: Mapping[str, str]) -> List[str]:
    """Returns each reason once, with the runs that it prevented."""
    found: Dict[str, List[str]] = {}
    for key, why in failed.items():
        found.setdefault(why, []).append(f"{cells[key].task} in mode {cells[key].variant.mode}, seed {cells[key].seed}")
    return [f"{', '.join(sorted(what))}: {why}" for why, what in sorted(found.items())]


def _with_policies(table: Table, policies: List[str]) -> Table:
    """Returns the table of modes with a row for each additional policy."""
    from hybridvla_core.evaluation.ablation.tables import Row
    from hybridvla_core.evaluation.ablation.variant import Variant

    if table.name != "modes":
        return table
    return replace(table, rows=(*table.rows, *(Row(name, Variant("ensemble"), model=name) for name in policies)))


def _sentence(args: argparse.Namespace, names: Sequence[str], episodes: int, repeats: int) -> str:
    return (f"Checkpoint `{Path(args.checkpoint).name}` on {SHOWN[args.rig]}, {'task' if len(names) == 1 else 'tasks'} "
            f"{', '.join(names)}: {episodes * repeats} episodes for each row and task ({repeats} runs of {episodes}), seeds from "
            f"{args.seed}. The paper's figures are of its own ten tasks and of a model of 7 billion parameters; they stand "
            "beside ours for their order, not for their size.")


def _command(args: argparse.Namespace) -> str:
    more = "".join(f" --policy {pair}" for pair in args.policy)
    more += "" if args.rig == "fr3" else f" --rig {args.rig}"
    more += "".join(f" {option} {_shown(file)}" for option, file in (
        ("--robot-config", args.robot_config), ("--policy-config", args.policy_config)) if file)
    return (f"hybridvla ablate {args.table}{' --quick' if args.quick else ''} --checkpoint {_shown(args.checkpoint)} "
            f"--tasks {' '.join(_named(args.tasks))} --seed {args.seed}{more}")


def _shown(folder: str) -> str:
    """Returns a path as the documents write it: relative to the project if it is inside the project."""
    path = Path(folder).resolve()
    return str(path.relative_to(ROOT)) if ROOT in path.parents else str(path)
