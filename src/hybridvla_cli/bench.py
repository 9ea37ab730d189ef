"""`hybridvla bench`: times inference stage by stage; with the name of a part, other things."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Sequence, Union

from hybridvla_cli import Subparsers
from hybridvla_cli.bench_parts import (
    certificate as bench_certificate,
)
from hybridvla_cli.bench_parts import (
    filter as bench_filter,
)
from hybridvla_cli.bench_parts import (
    images as bench_images,
)
from hybridvla_cli.bench_parts import (
    passes as bench_passes,
)
from hybridvla_cli.bench_parts import (
    precision as bench_precision,
)
from hybridvla_cli.bench_parts import (
    reenter as bench_reenter,
)
from hybridvla_cli.bench_parts import (
    staleness as bench_staleness,
)
from hybridvla_cli.bench_parts import (
    train as bench_train,
)
from hybridvla_core.files import write_json, write_text
from hybridvla_core.paths import ROOT

if TYPE_CHECKING:
    from hybridvla_core.benchmark.modes import Passes
    from hybridvla_core.benchmark.subject import Subject

PARTS = {"filter": bench_filter, "passes": bench_passes, "images": bench_images, "staleness": bench_staleness,
         "certificate": bench_certificate, "train": bench_train, "reenter": bench_reenter}


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "bench", help="time inference, stage by stage, or one of the parts below",
        description="Times the modes of a prediction, interleaved in one run: diffusion alone, both paths in few passes, both "
                    "paths by plain decoding, and diffusion without a cache.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--checkpoint", help="checkpoint folder; `bench passes` measures its pass counts")
    what.add_argument("--preset", help="an architecture with random weights, e.g. small-100m or hybridvla-7b")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--views", type=int, help="images per observation (with --preset; default 1)")
    parser.add_argument("--action-dim", type=int, choices=(7, 14), help="14 for two arms (with --preset; default 7)")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps (with --preset)")
    parser.add_argument("--rounds", type=int, default=25, help="timed runs of each mode, after two runs that are not timed")
    parser.add_argument("--threads", type=int, default=2, help="number of CPU threads")
    parser.add_argument("--graphs", default="auto", choices=("auto", "on", "off"), help="whether to use CUDA graphs")
    parser.add_argument("--compile", default="off", choices=("off", "auto"),
                        help="compile the decoder's blocks with torch.compile")
    bench_precision.add_arguments(parser)
    parser.add_argument("--ride-steps", type=int, help="denoising steps that carry a draft along")
    parser.add_argument("--passes", default=str(bench_passes.MEASURED), metavar="FILE",
                        help="result of `bench passes`; with random weights, pass counts are drawn from it")
    parser.add_argument("--compare", metavar="FILE.py:NAME", help="time another implementation on the same inputs: NAME is "
                                                                  "called with weights, configuration and inputs and must "
                                                                  "return a callable that makes one prediction")
    parser.add_argument("--json", help="write the result as JSON to this file")
    parser.add_argument("--plot", metavar="FILE.svg", help="write a drawing of the stages")
    parts = parser.add_subparsers(dest="part", metavar="part", action=_PartFirst)
    for part in PARTS.values():
        part.add_parser(parts)
    return parser


class _PartFirst(argparse._SubParsersAction):
    """Rejects options before a part's name: they belong to the timing and would be dropped. A part's options follow its name."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Union[str, Sequence[object], None],
                 option_string: Optional[str] = None) -> None:
        part = values[0] if values else ""
        for name, value in vars(namespace).items():
            if value != parser.get_default(name):
                parser.error(f"--{name.replace('_', '-')} stands before {part}; put it after the part, if {part} takes it")
        super().__call__(parser, namespace, values, option_string)


def run(args: argparse.Namespace) -> int:
    if args.part:
        return PARTS[args.part].run(args)
    if args.precision_report is not None:
        return bench_precision.report(args)
    import torch

    from hybridvla_core.benchmark.report import drawing, table
    from hybridvla_core.benchmark.run import run as measure
    from hybridvla_core.errors import ConfigurationError
    from hybridvla_core.policy.inference.device_memory import explained

    if args.rounds < 1 or args.threads < 1:
        raise ConfigurationError("--rounds and --threads must be at least 1")
    if args.compare and args.precision != "full":
        raise ConfigurationError("--compare gives the other implementation our weights, which it could not read in fewer bits; "
                                 "use --precision full")
    torch.set_num_threads(args.threads)
    subject = _subject(args)
    with explained(subject.config, args.dtype, args.device):
        result = measure(subject, args.rounds, _passes(args, subject), args.compare)
    print(table(result))
    write_json(args.json, result)
    if args.plot:
        write_text(args.plot, drawing(result))
    return 0


def _subject(args: argparse.Namespace) -> Subject:
    from hybridvla_core.benchmark.subject import of_policy, with_random_weights
    from hybridvla_core.policy.inference.device_memory import check_device, explained

    check_device(args.device)
    if args.preset:
        from hybridvla_core.model.presets import preset

        changes = {"views": args.views, "action_dim": args.action_dim}
        config = preset(args.preset, **{key: value for key, value in changes.items() if value})
        with explained(config, args.dtype, args.device):
            return with_random_weights(args.preset, config, args.dtype, args.device, args.steps, args.graphs, args.ride_steps,
                                       compile=args.compile, precision=args.precision)
    from hybridvla_core.policy.predictor import Policy

    folder = args.checkpoint or str(ROOT / "checkpoints" / "tiny")
    policy = Policy.from_checkpoint(folder, device=args.device, dtype=args.dtype, compile=args.compile, precision=args.precision)
    return of_policy(Path(folder).name, policy, args.graphs, args.ride_steps)


def _passes(args: argparse.Namespace, subject: Subject) -> Passes:
    """Returns the pass counts to draw from. They are also drawn for a checkpoint, because it is timed on images of noise."""
    from hybridvla_core.benchmark.modes import Passes
    from hybridvla_core.configuration import read_mapping

    return Passes(bench_passes.counts_for(read_mapping(Path(args.passes)), subject.path.ride_steps, args.passes))
