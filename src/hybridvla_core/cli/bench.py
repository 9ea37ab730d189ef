"""`hybridvla bench`: timings. `filter` times the safety filter's tick."""
from __future__ import annotations

import argparse

from hybridvla_core.cli import bench_filter


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("bench", help="time the safety filter")
    parts = parser.add_subparsers(dest="part", required=True, metavar="part")
    bench_filter.add_parser(parts)
    return parser


def run(args: argparse.Namespace) -> int:
    return bench_filter.run(args)
