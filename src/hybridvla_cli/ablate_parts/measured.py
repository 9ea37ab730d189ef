"""Sheets beside the tables of episodes, each stored with the results, so that the same command gives the same page."""
from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Sequence, Tuple

from tqdm import tqdm

from hybridvla_cli.shared.environment import require_messages
from hybridvla_cli.shared.graph import GRAPH, digests
from hybridvla_core import __version__
from hybridvla_core.configuration import read_mapping
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import key_of, write_json
from hybridvla_core.paths import ROOT

if TYPE_CHECKING:
    from hybridvla_cli.ablate_parts.order import Source
    from hybridvla_core.training.hybrid.config import TrainingConfig

#: Rounds of the benchmark: for the quick form, and otherwise.
ROUNDS = (15, 50)
SPEED = "speed"
TRAININGS_NAME = "trainings"
RIGS = "rigs"
NAMES = (SPEED, TRAININGS_NAME, RIGS)
TITLES = {SPEED: "Speed: cache and drafts (Table 2, appendix B.2)", RIGS: "Both rigs over ROS (Table 5)",
          TRAININGS_NAME: "Sequences and parts of the training (Tables 1 and 3)"}
#: Keys that are kept of a rig's part of the summary.
KEPT = ("episodes", "successes", "limit_violations", "policy", "error")
#: Files that determine what both rigs do, besides the sources of an episode: nodes, launch files, configurations, checkpoint.
DECIDING = (*GRAPH, "config/robots/*", "config/policies/*", "config/cameras/*", "checkpoints/tiny/MANIFEST.json")
RECIPE = ROOT / "config" / "training" / "ablation.yaml"
#: Seeds of the trainings; the quick form takes the first one, and this share of the steps.
SEEDS, QUICK_SHARE = (1, 2, 3), 0.25
LOGGER = logging.getLogger(__name__)


class NotRun(HybridVLAError):
    """Nothing has been run for this sheet, and nothing may be run now."""


def sheets(names: Sequence[str], args: argparse.Namespace, out: Path, given: Source
           ) -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
    """Returns the requested sheets; and for missing ones `title`, `name`, `claims` and `why`, which is empty if not begun."""
    makers: Dict[str, Callable[[argparse.Namespace, Path, Source], Dict[str, Any]]] = {
        SPEED: _speed, TRAININGS_NAME: _trainings, RIGS: _rigs}
    found, absent = [], []
    for name in NAMES:
        if name not in names:
            continue
        try:
            found.append(makers[name](args, out, given))
        except HybridVLAError as error:
            absent.append({"title": TITLES[name], "name": name, "claims": _claims(name),
                           "why": "" if isinstance(error, NotRun) else str(error)})
    return found, absent


def _claims(name: str) -> List[str]:
    """Returns the paper's claims about a sheet, in words."""
    if name != TRAININGS_NAME:
        return []
    from hybridvla_core.training.ablation.trainings import CLAIMS

    return [claim.text for claim in CLAIMS]


def kept(path: Path, args: argparse.Namespace, measure: Callable[[], Mapping[str, Any]]) -> Dict[str, Any]:
    """Reads a result from a file; measures it first if there is no file.

    Args:
        path: Path of the file.
        args: Options of the command; with `report` nothing is run.
        measure: Measures the content of the file.

    Returns:
        Content of the file.

    Raises:
        NotRun: There is no file, and nothing may be run.
        HybridVLAError: The file is damaged.
    """
    if not path.is_file():
        if args.report:
            raise NotRun(f"{path} is not there, and --report runs nothing")
        write_json(path, measure())
    try:
        result: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HybridVLAError(f"{path} is damaged ({error}); delete it, and it is made again") from error
    return result


def _speed(args: argparse.Namespace, out: Path, given: Source) -> Dict[str, Any]:
    from hybridvla_cli.bench_parts.passes import MEASURED
    from hybridvla_core.benchmark.subject import processor_name
    from hybridvla_core.evaluation.ablation.speed import speed_sheet

    rounds, shares = ROUNDS[0] if args.quick else ROUNDS[1], read_mapping(MEASURED)

    def measure() -> Mapping[str, Any]:
        import torch

        from hybridvla_cli.bench_parts.passes import counts_for
        from hybridvla_core.benchmark.modes import Passes
        from hybridvla_core.benchmark.run import run
        from hybridvla_core.benchmark.subject import of_policy
        from hybridvla_core.policy.predictor import Policy

        torch.set_num_threads(1)
        policy = Policy.from_checkpoint(given.place, mode="ensemble")
        subject = of_policy(Path(given.place).name, policy, "auto")
        passes = Passes(counts_for(shares, subject.path.ride_steps, str(MEASURED)))
        return run(subject, rounds, passes)

    key = key_of({"manifest": given.manifest, "rounds": rounds, "passes": shares, "processor": processor_name()})
    return speed_sheet(kept(out / SPEED / f"{key}.json", args, measure))


def _trainings(args: argparse.Namespace, out: Path, given: Source) -> Dict[str, Any]:
    """Runs the missing trainings; a training that cannot be run leaves its place empty."""
    del given
    from hybridvla_core.training.ablation.trainings import TRAININGS, changed, trainings_sheet
    from hybridvla_core.training.hybrid.config import read_recipe

    recipe, folder = read_recipe(RECIPE), out / TRAININGS_NAME
    seeds = SEEDS[:1] if args.quick else SEEDS
    share = QUICK_SHARE if args.quick else 1.0
    found: Dict[Tuple[str, int], Any] = {}
    with tqdm(list(itertools.product(seeds, TRAININGS)), desc="trainings", disable=args.report) as bar:
        for seed, training in bar:
            bar.set_postfix_str(f"{training.name}, seed {seed}")
            config = changed(recipe, training.change, seed, share)
            path = folder / f"{key_of(dataclasses.asdict(config))}.json"
            try:
                found[training.change, seed] = kept(path, args, functools.partial(_trained, config, path.with_suffix(""), folder))
            except HybridVLAError as error:
                if not args.report:
                    LOGGER.warning("%s, seed %d: %s", training.name, seed, error)
    if not found:
        if args.report:
            raise NotRun("no training was run, and --report runs none")
        raise HybridVLAError("no training finished; the messages above say why")
    steps = sum(stage.steps for stage in changed(recipe, "nothing", seeds[0], share).stages)
    made = 0 if recipe.demonstrations is None else recipe.demonstrations.frames
    return trainings_sheet(found, seeds, f"{steps} steps of {recipe.batch} out of {made} pictures, {len(seeds)} seed(s)"
                                         f"{', the quick form' if args.quick else ''}")


def _trained(config: TrainingConfig, work: Path, folder: Path) -> Mapping[str, Any]:
    """Trains, or resumes training, and returns the errors on held-out frames."""
    from hybridvla_cli.train_parts.alone import only_run
    from hybridvla_cli.train_parts.general import demonstrations, made_otherwise, place_of
    from hybridvla_core.training.ablation.held_out import errors_mm
    from hybridvla_core.training.hybrid.run import Request, train

    wanted = config.demonstrations
    if wanted is not None and made_otherwise(wanted, place_of(wanted, folder)):      # the data of an earlier recipe
        folder = folder / f"data-{key_of(dataclasses.asdict(wanted))}"
    data = demonstrations(wanted, folder)
    with only_run(work):
        train(Request(config=config, data=data, work=work, out=work / "checkpoint", threads=1))
    return errors_mm(work / "checkpoint", config, data)


def _rigs(args: argparse.Namespace, out: Path, given: Source) -> Dict[str, Any]:
    del given
    from hybridvla_core.evaluation.ablation.rigs import rigs_sheet
    from hybridvla_sim.origin import sources

    def measure() -> Mapping[str, Any]:
        require_messages("ablate rigs")
        folder = out / RIGS / "graphs"
        # It also exits with 1 if an episode failed; what counts is whether it wrote its summary.
        subprocess.run([sys.executable, "-m", "hybridvla_ros.demos.rigs", "--out", str(folder)], check=False)
        if not (folder / "summary.json").is_file():
            raise HybridVLAError("both rigs ended without a summary; `make rigs` shows why")
        summary: Dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if not any(part["episodes"] for part in summary.values()):
            raise HybridVLAError(f"no rig finished its run; look into {folder}, or run `make rigs`")
        return {name: {key: part[key] for key in KEPT if key in part} for name, part in summary.items()}

    key = key_of({"version": __version__, "files": digests(ROOT, DECIDING), "sources": sources()})
    return rigs_sheet(kept(out / RIGS / f"{key}.json", args, measure))
