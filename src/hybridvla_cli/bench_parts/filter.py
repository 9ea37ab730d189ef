"""`hybridvla bench filter`: times one tick of the safety filter, in thread CPU time and in wall time."""
from __future__ import annotations

import argparse
from pathlib import Path

from hybridvla_cli import Subparsers
from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("filter", help="time the safety filter's tick")
    parser.add_argument("--robot", default="sim_fr3", help="file of config/robots, by name or path")
    parser.add_argument("--ticks", type=int, default=20000, help="ticks to time, after 200 that are not timed")
    parser.add_argument("--seed", type=int, default=1, help="seed of the targets")
    parser.add_argument("--json", help="write the percentiles as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    from hybridvla_core.benchmark.filter import measure
    from hybridvla_core.robots.config import load_robot

    path = Path(args.robot)
    if not path.suffix:
        path = ROOT / "config" / "robots" / f"{args.robot}.yaml"
    result = measure(load_robot(path), args.ticks, args.seed)
    for clock in ("tick_ms", "wall_ms"):
        values = result[clock]
        print(f"{clock:8}  median {values['median']:.3f}  p99 {values['p99']:.3f}  p99.9 {values['p99_9']:.3f}  "
              f"max {values['max']:.3f}   ({result['arms']} arm(s), {result['ticks']} ticks)")
    write_json(args.json, result)
    return 0
