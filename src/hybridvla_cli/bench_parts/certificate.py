"""`hybridvla bench certificate`: certifies in a file to publish that few passes give the same as greedy decoding here."""
from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, Tuple

from hybridvla_cli import Subparsers
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT

if TYPE_CHECKING:
    from hybridvla_core.policy.inference.dual_path import DualPath
    from hybridvla_core.policy.inference.tensors import PredictionInputs


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("certificate", help="certify that decoding in few passes gives the same result as greedy "
                                                       "decoding")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "tiny"),
                      help="checkpoint folder, tested on observations of the simulated rig")
    what.add_argument("--preset", help="an architecture with random weights, tested on random observations")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--graphs", default="auto", choices=("auto", "on", "off"), help="whether to use CUDA graphs")
    parser.add_argument("--episodes", type=int, default=4, help="episodes of the simulated rig (with --checkpoint)")
    parser.add_argument("--observations", type=int, default=20, help="random observations (with --preset)")
    parser.add_argument("--seed", type=int, default=2000001, help="seed of the first episode or observation")
    parser.add_argument("--threads", type=int, default=2, help="number of CPU threads")
    parser.add_argument("--json", required=True, metavar="FILE", help="file for the certificate, e.g. "
                                                                      "docs/certificates/NAME.json")
    return parser


def run(args: argparse.Namespace) -> int:
    import torch

    from hybridvla_core.benchmark.certificate import certify, machine
    from hybridvla_core.errors import ConfigurationError
    from hybridvla_core.policy.inference.device_memory import check_device

    if min(args.episodes, args.observations, args.threads) < 1:
        raise ConfigurationError("--episodes, --observations and --threads must be at least 1")
    check_device(args.device)
    torch.set_num_threads(args.threads)
    result: Dict[str, Any] = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine(torch.device(args.device)),
                              "dtype": args.dtype, "graphs": args.graphs, "seed": args.seed}
    path, inputs = _random(args, result) if args.preset else _checkpoint(args, result)
    result.update(certify(path, inputs))
    write_json(args.json, result)
    print(f"{result['subject']}, {args.dtype}, {result['machine']['device']}: {result['same_tokens']} of "
          f"{result['predictions']} predictions with the same tokens, {result['same_decisions']} with the same decision, "
          f"{result['different_beyond_margins']} different where rounding could not decide; action at most "
          f"{result['largest_difference']['action']:.1e} apart; {result['passes']['mean']} passes for "
          f"{result['greedy_passes']}; {Path(args.json)}")
    return 0 if result["different_beyond_margins"] == 0 else 1


def _checkpoint(args: argparse.Namespace, result: Dict[str, Any]) -> Tuple[DualPath, Iterator[PredictionInputs]]:
    from hybridvla_cli.bench_parts.passes import collect, usual
    from hybridvla_core.policy.inference.dual_path import DualPath
    from hybridvla_core.policy.predictor import Policy

    policy = Policy.from_checkpoint(args.checkpoint, device=args.device, dtype=args.dtype, graphs=args.graphs)
    path = policy.path
    if not isinstance(path, DualPath):
        raise HybridVLAError(f"{args.checkpoint}: its tokens precede its noise (sequence 4) and are decoded one by one; there "
                             "is no faster way to certify")
    observations = collect(policy, *usual(policy), "blocks", args.seed, args.episodes)
    result.update(subject=Path(args.checkpoint).name, checkpoint_sha256=policy.manifest_sha256, episodes=args.episodes,
                  ride_steps=path.ride_steps)

    def inputs() -> Iterator[PredictionInputs]:
        for observation in observations:
            yield policy.inputs([observation], 0)

    return path, inputs()


def _random(args: argparse.Namespace, result: Dict[str, Any]) -> Tuple[DualPath, Iterator[PredictionInputs]]:
    from hybridvla_core.benchmark.certificate import random_inputs
    from hybridvla_core.benchmark.subject import with_random_weights
    from hybridvla_core.model.presets import preset

    subject = with_random_weights(args.preset, preset(args.preset), args.dtype, args.device, 4, args.graphs,
                                  tokens_are_actions=True)
    result.update(subject=args.preset, ride_steps=subject.path.ride_steps)
    return subject.path, random_inputs(subject, range(args.seed, args.seed + args.observations))
