"""`hybridvla bench staleness`: measures the age of what is executed, for blocking, overlapping and asynchronous execution."""
from __future__ import annotations

import argparse

from hybridvla_cli import Subparsers
from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("staleness", help="age of executed commands for each way of execution, in simulated time")
    parser.add_argument("--latency-ms", type=float, default=150.0, help="latency of a prediction")
    parser.add_argument("--duration", type=float, default=60.0, help="simulated seconds for each case")
    parser.add_argument("--json", help="write the ages as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    from hybridvla_core.benchmark.staleness import measure
    from hybridvla_core.configuration import load_file
    from hybridvla_core.errors import ConfigurationError
    from hybridvla_core.policy.config import PolicyConfig

    if not 1.0 <= args.latency_ms <= 5000.0:
        raise ConfigurationError(f"--latency-ms is {args.latency_ms:g}; use 1 to 5000")
    rows = measure(load_file(PolicyConfig, ROOT / "config" / "policies" / "tiny.yaml"), args.latency_ms / 1e3, args.duration)
    print(f"{'execution':14}{'chunk':>6}{'period s':>10}{'staleness ms':>14}{'p99':>8}{'timing error':>14}{'idle':>8}"
          f"{'predictions':>13}")
    for row in rows:
        age = row["command_staleness_ms"]
        print(f"{row['execution']:14}{row['chunk']:6}{row['period_s']:10.3f}{age['median']:14.1f}{age['p99']:8.1f}"
              f"{row['timing_error_ms']['median']:14.1f}{row['idle_share']:8.3f}{row['predictions']:13}")
    write_json(args.json, {"latency_ms": args.latency_ms, "cases": rows})
    return 0
