"""`hybridvla demonstrate`: a data set of demonstrations by the tasks' own experts in the simulated rig."""
from __future__ import annotations

import argparse
from pathlib import Path

from hybridvla_cli import Subparsers
from hybridvla_core.files import write_json
from hybridvla_ros.runtime.threads import wait_quietly
from hybridvla_sim.rigs import RIGS, add_rig


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("demonstrate", help="write a data set of demonstrations in the simulated rig")
    parser.add_argument("--tasks", nargs="+", default=["all"], help="names of tasks, or all of the rig's")
    add_rig(parser)
    parser.add_argument("--count", type=int, default=100, help="episodes of each task")
    parser.add_argument("-o", "--out", required=True, type=Path, help="folder of the data set; must be new")
    parser.add_argument("--seed", type=int, default=1, help="of the first episode of each task; the next ones count on")
    parser.add_argument("--sampled", type=float, default=0.7, help="share of the episodes that are sampled states")
    parser.add_argument("--states", type=int, default=60, help="sampled states of an episode")
    parser.add_argument("--labels", type=int, default=2, help="sentences of each sampled picture, where it has several goals")
    parser.add_argument("--validation", type=float, default=0.1, help="share of the episodes that is held out")
    parser.add_argument("--views", nargs="+", help="cameras in the policy's order; all of the rig's when left out")
    parser.add_argument("--size", type=int, default=128, help="of a picture, pixels")
    parser.add_argument("--grid", type=int, default=8, help="patches in a row of the encoder, for grounding")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", help="write what was made for machines")
    return parser


def run(args: argparse.Namespace) -> int:
    wait_quietly()
    from tqdm import tqdm

    from hybridvla_core.errors import HybridVLAError
    from hybridvla_core.evaluation.suite import load_configs
    from hybridvla_sim import tasks
    from hybridvla_sim.demonstrations.build import Order, build
    from hybridvla_sim.demonstrations.record import Settings

    rig = RIGS[args.rig]
    views = tuple(args.views or rig.views)
    unknown = [view for view in views if view not in rig.views]
    if unknown or len(set(views)) != len(views):
        raise HybridVLAError(f"--views {' '.join(views)}: the {args.rig} rig has {', '.join(rig.views)}, each once")
    config, robot = load_configs(rig.policy, rig.robot, "diffusion")
    settings = Settings(rig.kind, views, args.size, args.grid, args.states, args.labels)
    order = Order(tasks.chosen(args.tasks, rig.kind), args.count, args.seed, args.sampled, args.validation, settings)
    with tqdm(total=len(order.jobs()), unit=" episodes", desc="demonstrations") as bar:
        pictures = 0

        def progress(made: int) -> None:
            nonlocal pictures
            pictures += made
            bar.set_postfix_str(f"{pictures} pictures")
            bar.update(1)

        folder = build(order, args.out, config.convention, robot, args.processes, progress)
    write_json(args.json, {"dataset": str(folder), "tasks": list(order.tasks), "episodes": len(order.jobs()),
                           "pictures": pictures})
    print(f"{folder}: {len(order.jobs())} episodes of {len(order.tasks)} tasks")
    return 0
