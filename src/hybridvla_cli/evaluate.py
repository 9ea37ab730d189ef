"""`hybridvla evaluate`: episodes in the simulated rig, in process, with the policy and the filter of the nodes."""
from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List

from hybridvla_cli import Subparsers
from hybridvla_core.contracts import Mode
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.threads import wait_quietly

if TYPE_CHECKING:
    from tqdm import tqdm

    from hybridvla_core.policy.predictor import Policy


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("evaluate", help="run episodes in the simulated rig, without ROS")
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder")
    parser.add_argument("--task", default="blocks", help="task of the simulated rig")
    parser.add_argument("--mode", choices=Mode.names(), default="ensemble")
    parser.add_argument("--episodes", type=int, default=100, help="plain episodes")
    parser.add_argument("--switch-episodes", type=int, default=0, help="further ones, instruction switched in the middle")
    parser.add_argument("--seed", type=int, default=2_000_001, help="episode i draws everything from seed + i")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--robot-config", default=str(ROOT / "config/robots/sim_fr3.yaml"))
    parser.add_argument("--policy-config", default=str(ROOT / "config/policies/tiny.yaml"))
    parser.add_argument("--json", help="write the result for machines")
    return parser


def load_policy(folder: str, mode: str) -> Policy:
    import torch

    from hybridvla_core.policy.predictor import Policy

    torch.set_num_threads(1)
    return Policy.from_checkpoint(folder, mode=mode)


def run(args: argparse.Namespace) -> int:
    wait_quietly()
    from tqdm import tqdm

    from hybridvla_core.evaluation.suite import LARGEST_TRAINING_SEED, load_configs, summarise
    from hybridvla_core.policy.fit import check_fit
    from hybridvla_sim import tasks
    from hybridvla_sim.suite import run_suite

    if args.seed <= LARGEST_TRAINING_SEED:
        raise HybridVLAError(f"--seed {args.seed}: seeds up to {LARGEST_TRAINING_SEED} belong to training; use a larger one")
    if args.episodes < 0 or args.switch_episodes < 0 or args.episodes + args.switch_episodes == 0:
        raise HybridVLAError("--episodes and --switch-episodes must not be negative, nor both zero")
    if args.processes < 1:
        raise HybridVLAError(f"--processes {args.processes}: give at least 1")
    config, robot = load_configs(Path(args.policy_config), Path(args.robot_config), args.mode)
    factory = functools.partial(load_policy, args.checkpoint, args.mode)
    check_fit(factory(), config, robot)
    task = tasks.load(args.task, rig="fr3")
    result: Dict[str, Any] = {"checkpoint": str(args.checkpoint)}
    for name, count, switched in (("plain", args.episodes, False), ("switched", args.switch_episodes, True)):
        if not count:
            continue
        wins = [0, 0]
        with tqdm(total=count, desc=f"{args.mode}, {name}") as bar:
            def progress(episode: Dict[str, Any], wins: List[int] = wins, bar: tqdm = bar) -> None:
                wins[0] += episode["success"]
                wins[1] += 1
                bar.set_postfix_str(f"{wins[0]}/{wins[1]} successful")
                bar.update(1)

            episodes = run_suite(factory, config, robot, task, task.draw(args.seed, count, switched), args.processes,
                                 progress)
        summary = summarise(episodes, args.mode, args.seed)
        print(f"{name}: {summary['successes']}/{summary['episodes']} successful, 95 % interval "
              f"{summary['interval'][0]:.3f} to {summary['interval'][1]:.3f}; fused {summary['fused_share']:.2f}; "
              f"limit violations {summary['limit_violations']}")
        if switched:
            result["switched"] = summary
        else:
            result.update(summary)
    if not args.episodes:
        result.update(result["switched"])
    write_json(args.json, result)
    return 0
