"""`hybridvla replay`: runs a checkpoint over recorded bags, without a master or a robot; passes or fails."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hybridvla_cli import Subparsers
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT

if TYPE_CHECKING:
    from hybridvla_ros.replay.job import Options
    from hybridvla_ros.replay.result import Result


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "replay", help="run a policy and the filter over recorded bags",
        description="Checks a checkpoint on recorded bags with the code that drives the robot. Exit status 0: every check "
                    "passed; 1: one failed, or a bag could not be read.")
    parser.add_argument("bags", nargs="+", metavar="BAG", help="bag files, or folders of them")
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder to judge")
    parser.add_argument("--compare", metavar="DIR", help="another checkpoint, shown next to it but not judged")
    parser.add_argument("--policy-config", default=str(ROOT / "config/policies/tiny.yaml"))
    parser.add_argument("--robot-config", "--robot", default=str(ROOT / "config/robots/sim_fr3.yaml"))
    parser.add_argument("--thresholds", default=str(ROOT / "config/replay/thresholds.yaml"),
                        help="thresholds that the checks must reach")
    parser.add_argument("--topics", help="topic map file (default: config/replay/<robot>.yaml, if it exists)")
    parser.add_argument("--mode", choices=("ensemble", "diffusion", "autoregressive"),
                        help="prediction mode (default: as configured)")
    parser.add_argument("--instruction", default="", help="use this instruction instead of the recorded ones")
    parser.add_argument("--other-instruction", action="append", default=[], metavar="TEXT",
                        help="a further instruction to test whether the policy listens; may be repeated")
    parser.add_argument("--rate", type=float, help="predictions per second of recording (default: the policy's rate)")
    parser.add_argument("--every-frame", action="store_true", help="predict from every new set of images")
    parser.add_argument("--recorded-only", action="store_true",
                        help="predict only at the observations of the recorded proposals")
    parser.add_argument("--proposals-from", metavar="BAG", help="take the recorded proposals from this bag")
    parser.add_argument("--everything", action="store_true",
                        help="also predict while the recorded filter was not following the policy")
    parser.add_argument("--stamps", choices=("header", "recording"), default="header",
                        help="recording: use the time of recording as stamps, where stamps are missing or belong to another time")
    parser.add_argument("--batch", type=int, default=16, help="observations predicted together; 1 predicts one at a time")
    parser.add_argument("--no-senses", action="store_true", help="skip the test whether the policy looks and listens")
    parser.add_argument("--scratch", help="folder for re-indexed copies of damaged bags")
    parser.add_argument("--json", help="write the result as JSON to this file")
    parser.add_argument("--rows", help="write one line of JSON for each prediction")
    parser.add_argument("--junit", help="write the checks as JUnit XML")
    parser.add_argument("--report", help="write one self-contained HTML page")
    return parser


def run(args: argparse.Namespace) -> int:
    from hybridvla_ros.replay.job import Replay

    result = Replay(_options(args)).run()
    for line in result.notes:
        print(f"note: {line}")
    print(f"{result.summary['frames']} predictions from {result.summary['recordings']} recording(s), "
          f"{result.summary['speed_over_realtime']:.1f} x real time")
    for text in result.summary["reasons"]:
        print(f"FAIL: {text}")
    for problem in result.unread:
        print(f"not replayed: {problem}", file=sys.stderr)
    print(f"verdict: {result.summary['verdict']}", flush=True)
    _write(args, result)
    return 0 if result.summary["verdict"] == "pass" else 1


def _options(args: argparse.Namespace) -> Options:
    from hybridvla_ros.replay.job import Options

    if args.rate is not None and not 0.01 <= args.rate <= 200.0:
        raise HybridVLAError(f"--rate {args.rate}: use a rate from 0.01 to 200 Hz")
    if args.batch < 1:
        raise HybridVLAError(f"--batch {args.batch}: use 1 or more")
    if sum([args.rate is not None, args.every_frame, args.recorded_only]) > 1:
        raise HybridVLAError("--rate, --every-frame and --recorded-only exclude each other; give one of them")
    rate = float("inf") if args.every_frame else (0.0 if args.recorded_only else args.rate)
    for name in ("json", "rows", "junit", "report"):
        path = getattr(args, name)
        if path and Path(path).suffix == ".bag":
            raise HybridVLAError(f"--{name} {path}: that is a bag's name; choose another one")
    return Options(bags=tuple(args.bags), checkpoint=args.checkpoint, compare=args.compare,
                   policy_config=Path(args.policy_config), robot_config=Path(args.robot_config),
                   thresholds=Path(args.thresholds), topics=Path(args.topics) if args.topics else None, mode=args.mode,
                   instruction=args.instruction, other_instructions=tuple(args.other_instruction), rate=rate,
                   proposals_from=Path(args.proposals_from) if args.proposals_from else None,
                   everything=args.everything, batch=args.batch, senses=not args.no_senses,
                   scratch=Path(args.scratch) if args.scratch else None, stamps=args.stamps)


def _write(args: argparse.Namespace, result: Result) -> None:
    from hybridvla_core.evaluation.replay.report import junit, page
    from hybridvla_core.files import write_json, write_text

    write_json(args.json, result.summary)
    if args.rows:
        write_text(args.rows, result.rows_as_lines())
    if args.junit:
        write_text(args.junit, junit.document(result.checks, result.unread, result.summary["checkpoint"]))
    if args.report:
        write_text(args.report, page.document(result.page()))
