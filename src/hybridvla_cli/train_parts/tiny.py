"""The recipe of `checkpoints/tiny`, on shards."""
from __future__ import annotations

import argparse
import logging
from pathlib import Path

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.processor import slowness

LOGGER = logging.getLogger(__name__)


def run(args: argparse.Namespace, config: Path, work: Path, out: Path) -> None:
    """Runs it.

    Raises:
        HybridVLAError: for a folder of shards that is missing, or what only the general recipe knows.
    """
    if len(args.data) != 1 or args.mixture or args.device != "cpu" or args.seconds:
        raise HybridVLAError(f"{config}: this recipe needs --data with one folder of .npz shards, a CPU, and no --mixture or "
                             "--seconds; write some with `python -m hybridvla_sim.tasks.blocks.demonstrations`")
    from hybridvla_core.training.tiny.config import TrainingConfig
    from hybridvla_core.training.tiny.run import train
    from hybridvla_core.training.tiny.world import TrainingWorld
    from hybridvla_sim.tasks.blocks.expert import PHASES
    from hybridvla_sim.tasks.blocks.kinematic_world import record_policy_episodes
    from hybridvla_sim.tasks.blocks.task import instructions

    slow = slowness("bfloat16" if load_file(TrainingConfig, config).bfloat16 else "float32", args.device)
    if slow:
        LOGGER.warning("bfloat16: true: %s; write bfloat16: false into the recipe", slow)
    world = TrainingWorld(PHASES, instructions(), record_policy_episodes)
    train(config, Path(args.data[0]), work, out, args.threads, Path(args.json) if args.json else None, world,
          Path(args.init) if args.init else None)
