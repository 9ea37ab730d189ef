"""`hybridvla train`: run a training recipe on data shards and write a checkpoint."""
from __future__ import annotations

import argparse
import logging
from pathlib import Path

from hybridvla_cli.parsers import Subparsers
from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.runtime.threads import wait_quietly


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("train", help="train a checkpoint by a recipe on demonstration shards")
    parser.add_argument("--config", required=True, help="recipe, e.g. config/training/tiny.yaml")
    parser.add_argument("--data", required=True, help="folder of .npz shards, as"
                                                    " python -m hybridvla_sim.tasks.blocks.demonstrations makes them")
    parser.add_argument("--work", required=True, help="folder for the log and the state to resume from")
    parser.add_argument("--out", required=True, help="checkpoint folder to write")
    parser.add_argument("--init", help="checkpoint folder to start from: its weights, architecture and statistics are kept "
                                       "(fine-tuning; the auxiliary heads start anew)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--json", help="write a summary for machines")
    return parser


def run(args: argparse.Namespace) -> int:
    wait_quietly()
    if args.threads < 1:
        raise HybridVLAError(f"--threads {args.threads}: give at least 1")
    from hybridvla_core.training.tiny.run import train
    from hybridvla_core.training.tiny.world import TrainingWorld
    from hybridvla_sim.tasks.blocks.expert import PHASES
    from hybridvla_sim.tasks.blocks.kinematic_world import record_policy_episodes
    from hybridvla_sim.tasks.blocks.task import instructions

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    world = TrainingWorld(PHASES, instructions(), record_policy_episodes)
    train(Path(args.config), Path(args.data), Path(args.work), Path(args.out), args.threads,
          Path(args.json) if args.json else None, world, Path(args.init) if args.init else None)
    return 0
