"""`hybridvla bench train`: times a training step, on request also in the released way."""
from __future__ import annotations

import argparse
import logging
from typing import Callable, Dict

from hybridvla_cli import Subparsers
from hybridvla_core.files import write_json
from hybridvla_core.processor import slowness

LOGGER = logging.getLogger(__name__)


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("train", help="time a training step")
    parser.add_argument("--preset", default="small-100m", help="architecture with random weights")
    parser.add_argument("--batch", type=int, default=2, help="samples per step")
    parser.add_argument("--repeats", type=int, nargs="+", default=[4, 1], metavar="R", help="noisy copies of each action")
    parser.add_argument("--train", default="finetune", help="what the stage trains")
    parser.add_argument("--lora", type=int, metavar="RANK", help="train LoRA adapters of this rank instead of the language model")
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations instead of keeping them")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each, after one that is not timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compare", nargs="?", const="released", metavar="FILE.py:NAME",
                        help="time another forward and backward pass on the same weights and batch: the released way, or NAME, "
                             "which is called with the step and must return a callable")
    parser.add_argument("--json", help="write the result as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    import torch

    from hybridvla_core.benchmark.roofline import measure_device
    from hybridvla_core.benchmark.run import load_callable
    from hybridvla_core.errors import ConfigurationError
    from hybridvla_core.model.presets import preset
    from hybridvla_core.training.hybrid.parts import TRAINED
    from hybridvla_core.training.lora import LoraConfig
    from hybridvla_core.training.speed import Setting, measure, released

    if min(args.rounds, args.threads, args.batch, *args.repeats) < 1 or args.train not in TRAINED:
        raise ConfigurationError("--rounds, --threads, --batch and --repeats must be at least 1, --train one of "
                                 + ", ".join(TRAINED))
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("there is no GPU that torch can use here; use --device cpu, or `hybridvla doctor`")
    slow = slowness(args.dtype, args.device)
    if slow:
        LOGGER.warning("--dtype %s: %s; use --dtype float32", args.dtype, slow)
    torch.set_num_threads(args.threads)
    others: Dict[str, Callable[..., Callable[[], object]]] = {}
    if args.compare:
        others["compared"] = released if args.compare == "released" else load_callable(args.compare)
    rate = measure_device(getattr(torch, args.dtype), torch.device(args.device))["matrix_tflop_s"]
    adapters = None if args.lora is None else LoraConfig(args.lora)
    results = []
    for repeats in args.repeats:
        config = preset(args.preset, views=args.views, chunk=args.chunk)
        found = measure(Setting(args.preset, config, args.batch, repeats, args.train, args.device, args.dtype == "bfloat16",
                                args.checkpointing, lora=adapters), args.rounds, rate, others)
        results.append(found)
        ratio = (f", compared takes {found['ratios']['compared_over_ours']:.2f} times as long "
                 f"({found['cpu_ratios']['compared_over_ours']:.2f} of CPU time)" if others else "")
        print(f"R = {repeats}: {found['samples_per_s']:.2f} samples/s, {found['tokens_per_s']:.0f} tokens/s ({found['rows']} "
              f"rows a sample), {found['share_of_matrix_rate']:.0%} of the matrix rate, peak {found['memory_mb']:.0f} MB{ratio}")
    write_json(args.json, {"settings": results})
    return 0
