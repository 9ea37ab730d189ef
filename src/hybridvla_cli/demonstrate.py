"""`hybridvla demonstrate`: writes demonstrations by the tasks' own experts, or a policy's episodes with the experts' labels."""
from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, List

from hybridvla_cli import Subparsers
from hybridvla_cli.evaluate import load_policy
from hybridvla_core.files import write_json
from hybridvla_ros.runtime.threads import wait_quietly
from hybridvla_sim.rigs import RIGS, add_rig

if TYPE_CHECKING:
    from hybridvla_sim.demonstrations.acting import Actor


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("demonstrate", help="write a data set of demonstrations in the simulated rig")
    parser.add_argument("--tasks", nargs="+", default=["all"], help="names of tasks, or all of the rig's")
    add_rig(parser)
    parser.add_argument("--count", type=int, default=100, help="episodes of each task")
    parser.add_argument("-o", "--out", required=True, type=Path, help="folder of the data set; must be new")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first episode of each task; later episodes count up "
                                                            "from it")
    parser.add_argument("--sampled", type=float, help="share of the episodes that are sampled states (default: 0.7, or 0 with "
                                                      "--policy)")
    parser.add_argument("--policy", help="checkpoint folder: this policy drives instead of the expert, who labels the states "
                                         "it reaches")
    parser.add_argument("--states", type=int, default=60, help="sampled states per episode")
    parser.add_argument("--labels", type=int, default=2, help="sentences for each sampled picture that has several goals")
    parser.add_argument("--validation", type=float, default=0.1, help="share of the episodes that is held out")
    parser.add_argument("--views", nargs="+", help="cameras in the policy's order (default: all of the rig's)")
    parser.add_argument("--size", type=int, default=128, help="width and height of a picture in pixels")
    parser.add_argument("--grid", type=int, default=8, help="patches per row of the encoder, for grounding")
    parser.add_argument("--failures", action="store_true", help="also write driven episodes in which the expert failed; "
                                                                "otherwise they are counted and left out")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", help="write a summary as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    wait_quietly()
    from tqdm import tqdm

    from hybridvla_core.data.lerobot.reader import LeRobotDataset
    from hybridvla_core.errors import HybridVLAError
    from hybridvla_core.evaluation.suite import load_configs
    from hybridvla_core.policy.fit import check_fit
    from hybridvla_sim import tasks
    from hybridvla_sim.demonstrations.build import Order, build
    from hybridvla_sim.demonstrations.record import Settings

    rig = RIGS[args.rig]
    views = tuple(args.views or rig.views)
    unknown = [view for view in views if view not in rig.views]
    if unknown or len(set(views)) != len(views):
        raise HybridVLAError(f"--views {' '.join(views)}: the {args.rig} rig has {', '.join(rig.views)}, each once")
    policy = None if args.policy is None else load_policy(args.policy, "diffusion")
    config, robot = load_configs(rig.policy if policy is None else rig.policy_for(policy.cameras), rig.robot, "diffusion")
    if policy is not None:
        check_fit(policy, config, robot)
    sampled = args.sampled if args.sampled is not None else 0.7 if policy is None else 0.0
    settings = Settings(rig.kind, views, args.size, args.grid, args.states, args.labels)
    order = Order(tasks.chosen(args.tasks, rig.kind), args.count, args.seed, sampled, args.validation, settings,
                  "" if policy is None else policy.manifest_sha256, args.failures)
    actor = None if policy is None else functools.partial(make_actor, args.policy)
    del policy       # each process loads its own
    with tqdm(total=len(order.jobs()), unit=" episodes", desc="demonstrations") as bar:
        new = 0

        def present(parts: int) -> None:
            bar.initial = bar.n = bar.last_print_n = parts      # the rate is of what is made now
            bar.refresh()

        def progress(made: int) -> None:
            nonlocal new
            new += made
            bar.set_postfix_str(f"{new} new pictures")
            bar.update(1)

        failed: List[str] = []
        folder = build(order, args.out, config.convention, robot, args.processes, progress, actor,
                       lambda job: failed.append(job.task), present)
    episodes, pictures = len(order.jobs()) - len(failed), len(LeRobotDataset(folder)) * len(views)
    write_json(args.json, {"dataset": str(folder), "tasks": list(order.tasks), "episodes": episodes, "pictures": pictures,
                           "failed": {task: failed.count(task) for task in sorted(set(failed))}})
    print(f"{folder}: {episodes} episodes of {len(order.tasks)} tasks")
    if failed:
        print("left out, because the expert failed: "
              + ", ".join(f"{failed.count(task)} of {task}" for task in sorted(set(failed))))
    return 0


def make_actor(folder: str) -> Actor:
    """Loads the checkpoint that acts, anew in each process."""
    from hybridvla_sim.demonstrations.acting import Actor

    policy = load_policy(folder, "diffusion")
    return Actor(policy, policy.config.trained)
