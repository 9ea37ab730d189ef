"""`hybridvla train`: runs a training recipe on data and writes a checkpoint."""
from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

from hybridvla_cli import Subparsers
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.threads import wait_quietly
from hybridvla_sim.rigs import add_rig

FINE_TUNING = ROOT / "config/training/finetune.yaml"


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "train", help="train a checkpoint from a recipe",
        description="Runs a recipe on data sets and writes a checkpoint. If started again with the same --work folder, it "
                    "continues the same run. To use several processes: torchrun --nproc-per-node N -m hybridvla_cli train ...")
    parser.add_argument("--config", help="recipe, e.g. config/training/tiny_smoke.yaml (default with --init: the recipe for "
                                         "fine-tuning)")
    parser.add_argument("--data", nargs="+", default=[], metavar="DIR",
                        help="data set folders made by `hybridvla dataset` or `hybridvla demonstrate`")
    parser.add_argument("--init", metavar="DIR", help="checkpoint folder to start from")
    parser.add_argument("--mixture", metavar="FILE", help="weights of the data sets, e.g. config/mixtures/oxe_35.yaml")
    parser.add_argument("--work", metavar="DIR", help="folder for the log and for the state to resume from (default: "
                                                      "out/train/RECIPE)")
    parser.add_argument("--out", metavar="DIR", help="checkpoint folder to write; replaces an earlier checkpoint and nothing "
                                                     "else (default: WORK/checkpoint)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each process")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard's files next to log.jsonl")
    parser.add_argument("--evaluate-every", type=int, default=0, metavar="STEPS",
                        help="run episodes in the simulated rig every this many steps")
    parser.add_argument("--evaluate-episodes", type=int, default=20, metavar="N", help="how many episodes to run each time")
    parser.add_argument("--task", default="blocks", help="task of the simulated rig to evaluate")
    parser.add_argument("--variation", default="", help="variation of that task's scenes, as in `hybridvla evaluate`")
    add_rig(parser)
    parser.add_argument("--seconds", type=float, default=0.0, metavar="S",
                        help="after this time, save the state, write the current checkpoint and end; 0 for no limit")
    parser.add_argument("--released", metavar="DIR", help="after the last step, also write the checkpoint in the released "
                                                          "layout (.pt); must be a new or empty folder")
    parser.add_argument("--json", help="write a summary as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    wait_quietly()
    if args.threads < 1 or args.evaluate_every < 0 or args.evaluate_episodes < 1 or not 0 <= args.seconds < math.inf:
        raise HybridVLAError("--threads and --evaluate-episodes must be at least 1, --evaluate-every and --seconds not negative")
    if args.config is None and args.init is None:
        raise HybridVLAError("give a recipe with --config, or a checkpoint to fine-tune with --init")
    from hybridvla_cli.train_parts import general

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = Path(args.config) if args.config else FINE_TUNING
    work = Path(args.work) if args.work else Path("out/train") / config.stem
    out = Path(args.out) if args.out else work / "checkpoint"
    general.run(args, config, work, out)
    return 0
