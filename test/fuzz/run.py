"""Fuzz the safety filter: an adversary proposes, an independent checker judges what was sent.

    python test/fuzz/run.py --ticks 1000000 --seed 1 --robots sim_fr3 sim_dual --json out/fuzz/summary.json

Work is cut into chunks; chunk k of seed s depends on (s, k) alone, so `--chunk k` repeats a failure.
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).resolve().parent)]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
from adversary import SETTLED, Adversary  # noqa: E402
from checker import Checker  # noqa: E402

from hybridvla_core.safety.config import load_robot  # noqa: E402
from hybridvla_core.safety.status import State  # noqa: E402

CHUNK = 2000     # ticks


def run_chunk(job, tamper=None) -> dict:
    """One chunk: `job` = (robot, seed, chunk, ticks). `tamper(config)` may alter what the filter is told.

    Half of the chunks send a fresh proposal every tick or so; the other half lets proposals be carried to their end.
    """
    robot, seed, chunk, ticks = job
    file = ROOT / "config" / "robots" / f"{robot}.yaml"
    checker, config = Checker(file), load_robot(file)
    rng = np.random.default_rng([seed, chunk])
    adversary = Adversary(tamper(config) if tamper else config, rng)
    complete, flood, since = 0, chunk % 2 == 0, 0

    def report(output):
        counters = adversary.filter.counters
        checker.see(output.arms, counters["reseeds"], counters["reposes"], adversary.filter.state == State.RECOVERING)

    for tick in range(ticks):
        if rng.random() < (0.004 if flood else 0.001):
            adversary.mischief()
        if tick % 40 == 0:
            adversary.wake()
        since += 1
        carried = adversary.output is not None and adversary.output.status.at_target
        idle = since > 40 and adversary.filter.state != State.ACTIVE
        if flood or carried or idle or since > SETTLED:
            complete += 0 if flood or idle else 1
            since = 0
            for _ in range(int(rng.integers(1, 6)) if flood else 1):
                adversary.propose()
        adversary.tick(report)
    return {"robot": robot, "chunk": chunk, "ticks": checker.ticks, "proposals": adversary.proposals,
            "complete": complete, "violations": checker.violations[:5], "count": len(checker.violations),
            "margins": checker.margins, "counters": adversary.filter.counters}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ticks", type=int, default=20000, help="ticks for each robot")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--robots", nargs="+", default=["sim_fr3", "sim_dual"])
    parser.add_argument("--chunk", type=int, help="repeat this chunk alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", default=str(ROOT / "out" / "fuzz" / "summary.json"))
    args = parser.parse_args(argv)
    chunks = [args.chunk] if args.chunk is not None else range(max(1, -(-args.ticks // CHUNK)))
    jobs = [(robot, args.seed, chunk, CHUNK) for chunk in chunks for robot in args.robots]
    summary = {"seed": args.seed, "robots": args.robots, "proposals": 0, "complete": 0, "ticks": 0, "violations": 0,
               "examples": [], "worst_margin": {}, "counters": {}}
    begin = time.monotonic()
    with multiprocessing.Pool(min(args.jobs, len(jobs))) as pool:
        for done, result in enumerate(pool.imap_unordered(run_chunk, jobs), start=1):
            _add(summary, result)
            _progress(done, len(jobs), summary, time.monotonic() - begin)
    summary["seconds"] = round(time.monotonic() - begin, 1)
    path = Path(args.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"\n{summary['proposals']} proposals, {summary['ticks']} ticks, {summary['violations']} violations -> {path}")
    for example in summary["examples"]:
        print("  " + example)
    return 1 if summary["violations"] else 0


def _add(summary: dict, result: dict) -> None:
    for key in ("proposals", "complete", "ticks"):
        summary[key] += result[key]
    summary["violations"] += result["count"]
    summary["examples"] += [f"{result['robot']} --chunk {result['chunk']}: {text}" for text in result["violations"]]
    summary["examples"] = summary["examples"][:20]
    for name, margin in result["margins"].items():
        key = f"{result['robot']}/{name}"
        summary["worst_margin"][key] = min(margin, summary["worst_margin"].get(key, margin))
    for name, count in result["counters"].items():
        summary["counters"][name] = summary["counters"].get(name, 0) + count


def _progress(done: int, total: int, summary: dict, seconds: float) -> None:
    bar = "#" * (30 * done // total)
    left = seconds / done * (total - done)
    print(f"\r[{bar:<30}] {done}/{total}  {summary['ticks']} ticks  {summary['violations']} violations  "
          f"{left:4.0f} s left", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
