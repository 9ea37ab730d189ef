"""Sheets beside the tables of episodes, each kept in the folder of the results, so that the same command gives the same page."""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Sequence, Tuple

from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import write_json

if TYPE_CHECKING:
    from hybridvla_cli.ablate_parts.order import Source

#: Rounds of the benchmark: in the quick form, and otherwise.
ROUNDS = (15, 50)
SPEED = "speed"
NAMES = (SPEED,)


def sheets(names: Sequence[str], args: argparse.Namespace, out: Path, given: Source) -> Tuple[List[Dict[str, Any]], List[str]]:
    """Returns the sheets asked for, and a sentence for each that was not run."""
    makers: Dict[str, Callable[[argparse.Namespace, Path, Source], Dict[str, Any]]] = {SPEED: _speed}
    found, absent = [], []
    for name in NAMES:
        if name not in names:
            continue
        try:
            found.append(makers[name](args, out, given))
        except HybridVLAError as error:
            absent.append(f"{name}: {error}")
    return found, absent


def kept(path: Path, args: argparse.Namespace, measure: Callable[[], Mapping[str, Any]]) -> Dict[str, Any]:
    """Returns what lies in a file; it is measured first where there is none.

    Raises:
        HybridVLAError: There is none, and nothing is to be run; or the file is damaged.
    """
    if not path.is_file():
        if args.report:
            raise HybridVLAError(f"not run; `hybridvla ablate {path.parent.name}{' --quick' if args.quick else ''}` does it")
        write_json(path, measure())
    try:
        result: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HybridVLAError(f"{path} is damaged ({error}); delete it, and it is made again") from error
    return result


def _speed(args: argparse.Namespace, out: Path, given: Source) -> Dict[str, Any]:
    from hybridvla_core.evaluation.ablation.speed import speed_sheet

    def measure() -> Mapping[str, Any]:
        import torch

        from hybridvla_cli.bench_parts.passes import MEASURED, counts_for
        from hybridvla_core.benchmark.modes import Passes
        from hybridvla_core.benchmark.run import run
        from hybridvla_core.benchmark.subject import of_policy
        from hybridvla_core.policy.predictor import Policy

        torch.set_num_threads(1)
        policy = Policy.from_checkpoint(given.place, mode="ensemble")
        subject = of_policy(Path(given.place).name, policy, "auto")
        passes = Passes(counts_for(read_mapping(MEASURED), subject.path.ride_steps, str(MEASURED)))
        return run(subject, ROUNDS[0] if args.quick else ROUNDS[1], passes)

    return speed_sheet(kept(out / SPEED / f"{given.manifest[:20]}.json", args, measure))
