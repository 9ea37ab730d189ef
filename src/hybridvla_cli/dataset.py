"""`hybridvla dataset`: makes, inspects, merges and exports data sets (LeRobotDataset v3); see docs/data.md."""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Dict, Optional

from hybridvla_cli import Subparsers
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("dataset", help="make, inspect and convert data sets",
                                   description="Makes, inspects, merges and exports data sets on disk (LeRobotDataset v3).")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    _from_bags(actions)
    rlds = _action(actions, "from-rlds", "turn an Open X-Embodiment set (RLDS) into a data set")
    rlds.add_argument("folder", metavar="DIR", help="folder of one version: features.json and .tfrecord files")
    rlds.add_argument("-o", "--output", required=True, metavar="DIR", help="new folder")
    rlds.add_argument("--standard", metavar="FILE", help="description of the set (default: the one in config/rlds)")
    rlds.add_argument("--report", help="write one HTML page: flagged episodes first, film strips, plots, statistics")
    inspect = _action(actions, "inspect", "say what a data set holds and what is wrong with it")
    inspect.add_argument("dataset", metavar="DIR")
    inspect.add_argument("--no-videos", action="store_true", help="do not decode the ends of the videos")
    inspect.add_argument("--report", help="write one HTML page: film strips, plots, statistics")
    stats = _action(actions, "stats", "compute the statistics of a data set from every frame")
    stats.add_argument("dataset", metavar="DIR")
    stats.add_argument("-o", "--output", metavar="FILE", help="write dataset_statistics.json")
    stats.add_argument("--against", metavar="FILE", help="refuse this statistics file if it belongs to another data set")
    merge = _action(actions, "merge", "merge several data sets of one kind into one; statistics are computed anew")
    merge.add_argument("datasets", nargs="+", metavar="DIR")
    merge.add_argument("-o", "--output", required=True, metavar="DIR")
    export = _action(actions, "export", "write a data set, or one split of it, as plain LeRobotDataset v3 for other trainers")
    export.add_argument("dataset", metavar="DIR")
    export.add_argument("-o", "--output", required=True, metavar="DIR")
    export.add_argument("--split", choices=("train", "validation"))
    return parser


def _action(actions: Subparsers, name: str, text: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON to this file")
    return parser


def _from_bags(actions: Subparsers) -> None:
    parser = _action(actions, "from-bags", "turn recorded bags into a data set, with the sync and the conventions of the live "
                                           "node")
    parser.add_argument("bags", nargs="+", metavar="BAG", help="bag files, or folders of them")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="new folder")
    parser.add_argument("--robot", "--robot-config", default=str(ROOT / "config/robots/sim_fr3.yaml"), metavar="FILE",
                        help="robot configuration")
    parser.add_argument("--policy-config", default=str(ROOT / "config/policies/tiny.yaml"), metavar="FILE",
                        help="policy configuration: cameras, convention and rates")
    parser.add_argument("--topics", metavar="FILE", help="topic map file, as for replay")
    parser.add_argument("--instruction", default="", help="use this instruction instead of the recorded ones")
    parser.add_argument("--rate", type=float, help="rows per second of a keyframe policy (default: the policy's rate)")
    parser.add_argument("--keyframes", action="store_true", help="write only the keyframes themselves as rows")
    parser.add_argument("--everything", action="store_true", help="also use stretches during which the filter was not "
                                                                  "following anybody")
    parser.add_argument("--keep-failures", action="store_true", help="also use episodes labelled as failures")
    parser.add_argument("--validation", type=float, default=0.1, metavar="SHARE",
                        help="share of the episodes that is held out (default 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="seed that draws the held-out episodes")
    parser.add_argument("--like", metavar="DIR", help="data set whose camera order must be kept")
    parser.add_argument("--scratch", help="folder for re-indexed copies of damaged bags")
    parser.add_argument("--report", help="write one HTML page: flagged episodes first, film strips, plots, statistics")


def run(args: argparse.Namespace) -> int:
    from hybridvla_cli.dataset_parts.manage import as_text
    from hybridvla_core.files import write_json

    result = {"from-bags": _run_from_bags, "from-rlds": _run_from_rlds,
              "inspect": _run_inspect, "stats": _run_stats, "merge": _run_merge,
              "export": _run_export}[args.action](args)
    write_json(args.json, result)
    print(as_text(result) if args.action != "stats" else json.dumps(result, indent=2))
    return 1 if result.get("problems") else 0


def _run_from_bags(args: argparse.Namespace) -> Dict[str, Any]:
    from hybridvla_cli.dataset_parts.from_bags import FromBags, Options

    if not 0.0 <= args.validation < 1.0:
        raise HybridVLAError(f"--validation {args.validation}: use a share from 0 to below 1")
    if args.rate is not None and not 0.01 <= args.rate <= 200.0:
        raise HybridVLAError(f"--rate {args.rate}: use a rate from 0.01 to 200 Hz")

    def path(value: Optional[str]) -> Optional[Path]:
        return Path(value) if value else None

    result = FromBags(Options(
        tuple(args.bags), Path(args.output), Path(args.policy_config), Path(args.robot), path(args.topics), args.instruction,
        args.rate, args.keyframes, args.everything, args.keep_failures, args.validation, args.seed, path(args.like),
        path(args.scratch))).run()
    _report(args.report, Path(args.output))
    return result


def _run_from_rlds(args: argparse.Namespace) -> Dict[str, Any]:
    from tqdm import tqdm

    from hybridvla_core.data.rlds.convert import convert

    with tqdm(unit="episodes", desc="from-rlds", leave=False) as bar:
        def told(_name: str) -> None:
            bar.update(1)

        out = convert(Path(args.folder), Path(args.output), Path(args.standard) if args.standard else None,
                      told)
    _report(args.report, Path(args.output))
    return {"dataset": args.output, "episodes": out.episodes, "frames": out.frames, "flagged": out.provenance.flagged}


def _run_inspect(args: argparse.Namespace) -> Dict[str, Any]:
    from hybridvla_cli.dataset_parts.manage import inspect

    result = inspect(Path(args.dataset), decode=not args.no_videos)
    _report(args.report, Path(args.dataset))
    return result


def _run_stats(args: argparse.Namespace) -> Dict[str, Any]:
    from hybridvla_cli.dataset_parts.manage import check_against, statistics
    from hybridvla_core.files import check_target, write_json

    if args.output:
        check_target(args.output, "--output")
    if args.against:
        check_against(Path(args.dataset), Path(args.against))
    result = statistics(Path(args.dataset))
    write_json(args.output, result)
    return result


def _run_merge(args: argparse.Namespace) -> Dict[str, Any]:
    from hybridvla_cli.dataset_parts.manage import copy

    return copy([Path(folder) for folder in args.datasets], Path(args.output))


def _run_export(args: argparse.Namespace) -> Dict[str, Any]:
    from hybridvla_cli.dataset_parts.manage import copy

    return copy([Path(args.dataset)], Path(args.output), split=args.split, plain=True)


def _report(file: Optional[str], folder: Path) -> None:
    if file:
        from hybridvla_cli.dataset_parts.page import document
        from hybridvla_core.files import write_text

        write_text(file, document(folder))
