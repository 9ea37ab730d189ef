"""Replay of bags from a program of your own: what `hybridvla replay` does, with its rows and checks at hand.

    scripts/with_env.sh python examples/replay_as_a_library.py out/demo/demo.bag
"""
from __future__ import annotations

import argparse

from hybridvla_core.paths import ROOT
from hybridvla_ros.replay.job import Options, Replay


def main() -> None:
    """Replays the bags given, twice a second of recording, and prints the largest errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bags", nargs="+")
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "tiny"))
    arguments = parser.parse_args()

    config = ROOT / "config"
    result = Replay(Options(
        bags=tuple(arguments.bags), checkpoint=arguments.checkpoint, compare=None,
        policy_config=config / "policies" / "tiny.yaml", robot_config=config / "robots" / "sim_fr3.yaml",
        thresholds=config / "replay" / "thresholds.yaml", topics=None, mode=None, instruction="", other_instructions=(),
        rate=2.0, proposals_from=None, everything=False, batch=16, senses=False, scratch=None)).run()

    print(f"{result.summary['frames']} predictions, verdict {result.summary['verdict']}")
    for check in result.checks:
        print(f"{check.outcome:8} {check.group}/{check.name}: {check.text}")
    print(f"rows for machines: {len(result.rows_as_lines().splitlines())} lines, the first: {result.rows_as_lines()[:60]}...")


if __name__ == "__main__":
    main()
