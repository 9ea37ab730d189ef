"""`hybridvla bench reenter`: measures how often `reenter` brings a robot back from random poses outside its limits."""
from __future__ import annotations

import argparse

from hybridvla_cli import Subparsers
from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT

SHIPPED = "fr3 agilex sim_fr3 sim_dual"


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("reenter", help="count how often `reenter` brings arms back from outside their limits")
    parser.add_argument("--robots", nargs="+", default=SHIPPED.split(), help="files of config/robots, by name")
    parser.add_argument("--poses", type=int, default=1000, help="random poses outside a limit, for each robot")
    parser.add_argument("--seed", type=int, default=1, help="seed of the poses")
    parser.add_argument("--json", help="write the counts, and the poses that stayed outside, as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    from hybridvla_core.benchmark.reenter import measure, table
    from hybridvla_core.robots.config import load_robot

    results = []
    for name in args.robots:
        results.append(measure(load_robot(ROOT / "config" / "robots" / f"{name}.yaml"), args.poses, args.seed))
        print(table(results[-1:]), flush=True)
    write_json(args.json, {"robots": results})
    return 0
