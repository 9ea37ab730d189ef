"""`hybridvla watch`: shows in a terminal what the robot does and why, one line per change."""
from __future__ import annotations

import argparse

from hybridvla_cli import Subparsers


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "watch", help="show what the robot does and why, one line per change",
        description="Listens to the filter, the policy and the episodes, and prints a line whenever something changes, until "
                    "Ctrl-C.")
    parser.add_argument("--seconds", type=float, help="end after this time (default: at Ctrl-C)")
    return parser


def run(args: argparse.Namespace) -> int:
    from hybridvla_ros.console.watch import watch

    return watch(lambda line: print(line, flush=True), args.seconds)
