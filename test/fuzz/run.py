"""Fuzz the safety filter: an adversary proposes, an independent checker judges what was sent.

    python test/fuzz/run.py --ticks 1000000 --seed 1 --robots sim_fr3 sim_dual --json out/fuzz/summary.json

Work is divided into chunks. A chunk depends only on seed, kind, number and robot, so `--chunk KIND/NUMBER --robots ROBOT`
repeats a failure.
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

from hybridvla_core.paths import ROOT

sys.path.insert(0, str(ROOT / "test" / "support"))  # run as a script, without pytest
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import yaml  # noqa: E402
from adversary import SHORT, Adversary  # noqa: E402
from checker import Checker  # noqa: E402

from hybridvla_core.configuration import from_mapping  # noqa: E402
from hybridvla_core.robots.config import RobotConfig  # noqa: E402
from hybridvla_core.safety.status import State  # noqa: E402

TICKS = 2000          # in a chunk in which every tick brings a new proposal
PROPOSALS = 40        # in a chunk in which proposals are carried to their end
RATIO = 50            # ticks of the first kind for each proposal of the second
PATIENCE = 1600       # most ticks for one proposal
REST = 10             # ticks without any motion after which a proposal ends: reached, or at rest before a limit
CREEP = 40            # ticks over which the tools have to move, or the proposal ends before a limit ...
CREEP_M, CREEP_TURN = 5e-4, 2e-3      # ... by more than this: m, and components of the quaternion
PLANES = [            # no shipped robot has these: every third chunk adds them, with `slide` and arms on clocks of their own
    {"name": "far_corner", "normal": [-0.6, 0.0, -0.8], "offset_m": -0.68},
    {"name": "low_side", "normal": [0.0, 0.8, 0.6], "offset_m": -0.1},
]
SLOW_HZ = 50.0        # in six of seven chunks of the second kind: the same motions in a quarter of the ticks


def robot_of(name: str, planes=None, **changes):
    """Return the contents of a robot's file with `changes` and with `planes` for every arm, and the same as the filter's
    configuration."""
    data = yaml.safe_load((ROOT / "config" / "robots" / f"{name}.yaml").read_text(encoding="utf-8"))
    data.update(changes)
    if planes is not None:
        for arm in data["arms"]:
            arm["workspace"] = dict(arm["workspace"], planes=planes)
    return data, from_mapping(RobotConfig, data, name)


def run_chunk(job, tamper=None) -> dict:
    """Run one chunk: `job` = (robot, seed, chunk, kind, amount). `tamper(config)` may alter the filter's configuration.

    kind `fresh`: `amount` ticks, each with at least one new proposal. kind `complete`: `amount` proposals are taken,
    and carried to their end: reached, or at rest before a limit. Every sixteenth is cut off at a random tick by a silence
    or another mischief and not counted.
    """
    robot, seed, chunk, kind, amount = job
    planned = {}
    if chunk % 3 == 2:
        planned.update(planes=PLANES, on_limit="slide", coupled=False)
    if kind == "complete" and chunk % 7:
        planned.update(tick_hz=SLOW_HZ)
    data, config = robot_of(robot, **planned)
    checker = Checker(data)
    rng = np.random.default_rng([seed, chunk, len(kind)])
    adversary = Adversary(tamper(config) if tamper else config, rng)

    def report(output, measured):
        counters = adversary.filter.counters
        checker.see(output.arms, counters["reseeds"], counters["reposes"], adversary.filter.state == State.RECOVERING,
                    measured)

    complete = _fresh(adversary, report, amount) if kind == "fresh" else _complete(adversary, report, amount)
    return {"robot": robot, "chunk": chunk, "kind": kind, "ticks": checker.ticks,
            "fresh_ticks": checker.ticks if kind == "fresh" else 0, "proposals": adversary.proposals,
            "complete": complete, "violations": checker.violations[:5], "count": len(checker.violations),
            "margins": checker.margins, "counters": adversary.filter.counters}


def _fresh(adversary: Adversary, report, ticks: int) -> int:
    rng = adversary.rng
    for tick in range(ticks):
        if rng.random() < 0.004:
            adversary.mischief()
        if tick % 40 == 0:
            adversary.wake()
        for _ in range(5 if rng.random() < 0.1 else 1):      # five per tick are 1 kHz
            adversary.propose()
        adversary.tick(report)
    return 0


def _complete(adversary: Adversary, report, proposals: int) -> int:
    rng, complete, tries = adversary.rng, 0, 0
    while complete < proposals and tries < 20 * proposals:
        tries += 1
        for _ in range(30):
            if adversary.filter.state in (State.HOLDING, State.ACTIVE) and adversary.quiet:
                break
            adversary.wake()
            for _ in range(20):
                adversary.tick(report)
        adversary.interrupted = False
        cut = int(rng.integers(1, 150)) if rng.random() < 1 / 16 else PATIENCE
        if adversary.propose(SHORT):
            complete += _carry(adversary, report, cut)
        else:
            adversary.tick(report)
    return complete


def _carry(adversary: Adversary, report, cut: int) -> bool:
    """Carry the accepted proposal to its end; return False when it was cut off at tick `cut`, or held by the filter."""
    poses = []
    for tick in range(PATIENCE):
        adversary.tick(report)
        status = adversary.output.status
        if tick == cut:
            adversary.mischief()
        poses.append([np.append(command.pose.position, command.pose.quaternion)
                      for command in adversary.output.arms])
        rest = tick > REST and np.array_equal(poses[-1], poses[-REST])
        if tick > CREEP + REST:
            moved = np.abs(np.array(poses[-1]) - np.array(poses[-CREEP])).max(axis=0)
            rest = rest or (moved[:3].max() < CREEP_M and moved[3:].max() < CREEP_TURN)
        if rest or (status.at_target and status.sequence == adversary.sequence):
            return not adversary.interrupted and adversary.filter.state in (State.ACTIVE, State.HOLDING)
    return False


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ticks", type=int, default=20000, help=f"ticks with something new at each, shared out among "
                        f"the robots; for every {RATIO} of them one proposal more is carried to its end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--robots", nargs="+", default=["sim_fr3", "sim_dual", "fr3", "agilex"])
    parser.add_argument("--chunk", help="repeat this chunk of one robot alone, e.g. fresh/17 or complete/4")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", default=str(ROOT / "out" / "fuzz" / "summary.json"))
    args = parser.parse_args(argv)
    jobs = plan(args.ticks, args.seed, args.robots)
    if args.chunk is not None:
        kind, _, number = args.chunk.partition("/")
        jobs = [(robot, args.seed, int(number), kind, TICKS if kind == "fresh" else PROPOSALS) for robot in args.robots]
    summary = {"seed": args.seed, "robots": args.robots, "proposals": 0, "complete": 0, "ticks": 0, "fresh_ticks": 0,
               "violations": 0, "examples": [], "worst_margin": {}, "counters": {}}
    begin = time.monotonic()
    with multiprocessing.Pool(min(args.jobs, len(jobs))) as pool:
        for done, result in enumerate(pool.imap_unordered(run_chunk, jobs), start=1):
            _add(summary, result)
            summary["seconds"] = round(time.monotonic() - begin, 1)
            if done % 20 == 0 or done == len(jobs) or result["count"]:
                _write(summary, Path(args.json))         # so that a run that is cut off is not lost
            _progress(done, len(jobs), summary, time.monotonic() - begin)
    print(f"\n{summary['proposals']} proposals ({summary['complete']} carried to their end), {summary['ticks']} ticks, "
          f"{summary['violations']} violations -> {args.json}")
    for name, margin in sorted(summary["worst_margin"].items()):
        print(f"  {name:44} {margin:.3g}")
    for example in summary["examples"]:
        print("  " + example)
    return 1 if summary["violations"] else 0


def plan(ticks: int, seed: int, robots) -> list:
    """Return the chunks of a run, with the robots in turn."""
    fresh, complete = max(1, -(-ticks // TICKS)), max(1, -(-ticks // (RATIO * PROPOSALS)))
    jobs = [(robots[chunk % len(robots)], seed, chunk, "fresh", TICKS) for chunk in range(fresh)]
    jobs += [(robots[chunk % len(robots)], seed, chunk, "complete", PROPOSALS) for chunk in range(complete)]
    return sorted(jobs, key=lambda job: job[2])


def _add(summary: dict, result: dict) -> None:
    for key in ("proposals", "complete", "ticks", "fresh_ticks"):
        summary[key] += result[key]
    summary["violations"] += result["count"]
    summary["examples"] += [f"--robots {result['robot']} --chunk {result['kind']}/{result['chunk']}: {text}"
                            for text in result["violations"]]
    summary["examples"] = summary["examples"][:20]
    for name, margin in result["margins"].items():
        key = f"{result['robot']}/{name}"
        summary["worst_margin"][key] = min(margin, summary["worst_margin"].get(key, margin))
    for name, count in result["counters"].items():
        summary["counters"][name] = summary["counters"].get(name, 0) + count


def _write(summary: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _progress(done: int, total: int, summary: dict, seconds: float) -> None:
    bar = "#" * (30 * done // total)
    left = seconds / done * (total - done)
    print(f"\r[{bar:<30}] {done}/{total}  {summary['ticks']} ticks  {summary['violations']} violations  "
          f"{left:4.0f} s left", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
