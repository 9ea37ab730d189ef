"""`hybridvla bench --precision-report`: reports what weights in fewer bits change, on a checkpoint's own observations."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping

from hybridvla_core.errors import ConfigurationError
from hybridvla_core.files import write_json
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PRECISIONS

if TYPE_CHECKING:
    from hybridvla_core.contracts import Observation
    from hybridvla_core.policy.predictor import Policy

#: Columns of the table: title, key, format.
COLUMNS = (("mm: median", "median_mm", ".3f"), ("p99", "p99_mm", ".3f"), ("largest", "largest_mm", ".3f"),
           ("degrees: median", "median_degrees", ".4f"), ("p99", "p99_degrees", ".4f"), ("largest", "largest_degrees", ".4f"),
           ("grippers", "grippers_differ", ".3f"), ("gates flip", "gates_flip", ".3f"), ("tokens", "tokens_differ", ".3f"),
           ("predictions with one", "with_another_token", ".3f"), ("passes", "passes", ".2f"), ("blocks, MB", "blocks_mb", ".1f"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `bench` itself that concern precision."""
    parser.add_argument("--precision", default="full", choices=PRECISIONS,
                        help="store the weights of the decoder's blocks in fewer bits (policy configuration: precision)")
    parser.add_argument("--precision-report", nargs="*", metavar="PRECISION",
                        help="instead of timing, report what each precision changes in a checkpoint's predictions (mm, "
                             "degrees, gates, tokens) on the same observations; without a name: every precision available "
                             "here, with fp8 emulated on a CPU")
    parser.add_argument("--baseline", choices=("float32", "bfloat16"), help="type of the predictions to compare with (default: "
                                                                            "--dtype)")
    parser.add_argument("--data", metavar="PATH", help="data set, or file of --keep-observations, from which the report takes "
                                                       "evenly spaced observations; otherwise it runs episodes of the "
                                                       "simulated rig")
    parser.add_argument("--keep-observations", metavar="FILE.npz", help="write the report's observations to this file, for a "
                                                                        "computer without the rig")
    parser.add_argument("--observations", type=int, default=40, help="observations from the data set, or at most this many "
                                                                     "from the episodes")
    parser.add_argument("--episodes", type=int, default=6, help="episodes of the simulated rig")


def report(args: argparse.Namespace) -> int:
    """Prints and writes the report."""
    import torch

    from hybridvla_core.benchmark.certificate import machine
    from hybridvla_core.benchmark.observations import keep
    from hybridvla_core.benchmark.precision import change, decoder_size, predictions_of
    from hybridvla_core.model.shrunk.choose import EMULATED, check_precision
    from hybridvla_core.policy.inference.device_memory import check_device
    from hybridvla_core.policy.predictor import Policy

    if args.preset:
        raise ConfigurationError("--precision-report shows how a trained model's actions change; name a --checkpoint, random "
                                 "weights have no such actions")
    if min(args.observations, args.episodes, args.threads) < 1:
        raise ConfigurationError("--observations, --episodes and --threads must be at least 1")
    torch.set_num_threads(args.threads)
    check_device(args.device)
    on_gpu = torch.device(args.device).type == "cuda"
    wanted = args.precision_report or ["fp8" if on_gpu else EMULATED, "int8", "int4"]
    for precision in wanted:
        check_precision(precision, args.device, args.dtype)
    folder, baseline = args.checkpoint or str(ROOT / "checkpoints" / "tiny"), args.baseline or args.dtype

    def opened(precision: str, dtype: str) -> Policy:
        return Policy.from_checkpoint(folder, device=args.device, dtype=dtype, graphs=args.graphs, compile=args.compile,
                                      precision=precision)

    policy = opened("full", baseline)
    observations = _observations(args, policy)
    if args.keep_observations:
        keep(observations, Path(args.keep_observations))
    before = predictions_of(policy, observations)
    result: Dict[str, Any] = {
        "checkpoint": Path(folder).name, "checkpoint_sha256": policy.manifest_sha256, "dtype": args.dtype,
        "machine": machine(policy.device), "baseline": {"dtype": baseline, **decoder_size(policy)},
        "observations": len(observations), "precisions": {}}
    del policy      # never two models at once
    for precision in wanted:
        policy = opened(precision, args.dtype)
        result["precisions"][precision] = {**change(before, predictions_of(policy, observations)), **decoder_size(policy)}
        del policy
    print(table(result))
    write_json(args.json, result)
    return 0


def table(result: Mapping[str, Any]) -> str:
    """Returns a table with one row per precision."""
    lines = [f"{result['checkpoint']}, {result['machine']['device']}: {result['observations']} observations in {result['dtype']} "
             f"beside full weights in {result['baseline']['dtype']} ({result['baseline']['blocks_mb']} MB)",
             "| precision | " + " | ".join(title for title, _, _ in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in result["precisions"].items():
        cells: List[str] = [format(row[key], form) if key in row else "" for _, key, form in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _observations(args: argparse.Namespace, policy: Policy) -> List[Observation]:
    """Returns observations of the data set, or of episodes that the policy itself drives."""
    if args.data and Path(args.data).suffix == ".npz":
        from hybridvla_core.benchmark.observations import kept

        return kept(Path(args.data))[:args.observations]
    if args.data:
        return _recorded(Path(args.data), policy, args.observations)
    from hybridvla_cli.bench_parts.passes import collect, usual

    return collect(policy, *usual(policy), "blocks", 2_000_001, args.episodes)[:args.observations]


def _recorded(folder: Path, policy: Policy, count: int) -> List[Observation]:
    """Returns frames spread evenly over a data set."""
    import numpy as np

    from hybridvla_core.contracts import Observation
    from hybridvla_core.data.lerobot.reader import LeRobotDataset

    data, found = LeRobotDataset(folder), []
    try:
        for index in np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)).tolist():
            sample = data.sample(index)
            images = {view: image for view, image in sample.images.items() if view in policy.cameras}
            found.append(Observation(images, sample.instruction, np.asarray(sample.state), index))
    finally:
        data.close()
    return found
