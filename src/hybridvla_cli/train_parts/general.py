"""The general recipe: data sets, mixture, evaluation in the simulated rig."""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib
import logging
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from hybridvla_cli.train_parts.alone import only_run
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import write_json
from hybridvla_core.processor import slowness
from hybridvla_core.training.hybrid.config import DemonstrationConfig, TrainingConfig, read_recipe
from hybridvla_sim.rigs import RIGS

LOGGER = logging.getLogger(__name__)


def run(args: argparse.Namespace, config_file: Path, work: Path, out: Path) -> None:
    """Runs the recipe."""
    from hybridvla_core.checkpoints.format import read_checkpoint
    from hybridvla_core.checkpoints.released_layout import write_released
    from hybridvla_core.data.mixture import read_mixture
    from hybridvla_core.training.distributed import Processes
    from hybridvla_core.training.hybrid.run import Request, train

    config = read_recipe(config_file)
    data, init = tuple(Path(folder) for folder in args.data), Path(args.init) if args.init else None
    refuse_shards(data)
    _check_places(args, work, out, data, init)
    evaluate = _foreseen(args, config, init)
    processes = Processes.start(args.device)
    with contextlib.ExitStack() as until_the_end:
        until_the_end.callback(processes.stop)
        processes.first_alone(lambda: until_the_end.enter_context(only_run(work)))
        if processes.first:
            warn_of_slowness(config, args.device)
        if not data:
            processes.first_alone(lambda: demonstrations(config.demonstrations, work, config.workers))
            data = demonstrations(config.demonstrations, work, config.workers)
        result = train(Request(
            config=config, data=data, work=work, out=out, init=init,
            mixture=read_mixture(Path(args.mixture)) if args.mixture else None, device=args.device, threads=args.threads,
            tensorboard=args.tensorboard, evaluate=evaluate, evaluate_every=args.evaluate_every, seconds=args.seconds))
    if processes.first:
        print(f"{result['checkpoint']}: {result['steps']} steps, {result['samples']} samples, {result['seconds']:.0f} s"
              + ("" if result["finished"] else "; not the last step, the same command goes on"))
        write_json(args.json, result)       # first: the run is done, even if writing the other layout fails
        if args.released and result["finished"]:
            print(write_released(read_checkpoint(out), Path(args.released)))


def warn_of_slowness(config: TrainingConfig, device: str) -> None:
    """Warns of a precision that a device emulates, before hours of data. Changes nothing: a run has its recipe's precision."""
    slow = slowness(config.precision, device)
    if slow:
        LOGGER.warning("precision: %s: %s; write precision: float32 into the recipe (a run that was begun keeps its own: "
                       "begin another one, in another --work)", config.precision, slow)


def refuse_shards(data: Sequence[Path]) -> None:
    """Refuses folders of `.npz` shards, which an earlier recipe used.

    Raises:
        HybridVLAError: A folder has shards and no data set; the message names it.
    """
    for folder in data:
        if not (folder / "meta").is_dir() and any(folder.glob("*.npz")):
            raise HybridVLAError(f"{folder}: .npz shards belong to a recipe that no longer exists; make a data set with "
                                 "`hybridvla demonstrate --tasks blocks`, or leave --data out where the recipe has "
                                 "`demonstrations`")


def _check_places(args: argparse.Namespace, work: Path, out: Path, data: Tuple[Path, ...], init: Optional[Path]) -> None:
    """Checks, before a data set is made, that --out and --released can be written without losing anything."""
    from hybridvla_core.checkpoints.target import Target, keep_apart
    from hybridvla_core.training.hybrid.export import check_place

    check_place(out, work, data, init)
    if args.released:
        released = Path(args.released)
        check_place(released, work, data, init)
        keep_apart(released, [("the folder of --out", out)])
        keep_apart(out, [("the folder of --released", released)])
        Target(released)


def demonstrations(wanted: Optional[DemonstrationConfig], work: Path, processes: int = 1) -> Tuple[Path, ...]:
    """Returns the recipe's data set, which is made in the simulated rig if it does not exist yet.

    Args:
        wanted: What the recipe says of it.
        work: Folder of the run.
        processes: Number of processes that draw pictures.

    Returns:
        Its folder, alone.

    Raises:
        HybridVLAError: The recipe names no data set, or none that can be made, or the existing one was made by another recipe.
    """
    if wanted is None:
        raise HybridVLAError("no data set is given; name its folder with --data")
    from tqdm import tqdm

    from hybridvla_sim import tasks

    if wanted.task not in tasks.names():
        raise HybridVLAError(f"demonstrations: there is no task {wanted.task!r}; the tasks are {', '.join(tasks.names())}")
    folder = place_of(wanted, work)
    if folder.is_dir():
        other = made_otherwise(wanted, folder)
        if other:
            raise HybridVLAError(f"{folder}: was made by a recipe with other demonstrations ({other}); remove that folder, or "
                                 "give another --work folder")
    else:
        try:
            maker = importlib.import_module(f"hybridvla_sim.tasks.{wanted.task}.dataset")
        except ModuleNotFoundError as error:
            raise HybridVLAError(f"demonstrations: task {wanted.task} makes no data set by itself; name one with "
                                 "--data") from error
        with tqdm(total=wanted.frames, desc="demonstrations", unit=" pictures") as bar:
            maker.write_dataset(folder, wanted.frames, wanted.seed, wanted.labels, wanted.validation, wanted.even_phases,
                                bar.update, max(1, processes))
    return (folder,)


def place_of(wanted: DemonstrationConfig, work: Path) -> Path:
    """Returns the folder of a run's own data set."""
    return work / "data" / wanted.task


def made_otherwise(wanted: DemonstrationConfig, folder: Path) -> str:
    """Returns what differs between the demonstrations that a data set was made with and the wanted ones; empty if nothing does.

    A data set without a record of it, from an older version, passes.
    """
    from hybridvla_core.data.lerobot import layout

    notes = folder / layout.OURS
    made = (layout.read_json(notes, "our notes") if notes.is_file() else {}).get("made_with")
    if not isinstance(made, dict):
        return ""
    return ", ".join(f"{key} {made[key]}, now {value}" for key, value in dataclasses.asdict(wanted).items()
                     if key in made and made[key] != value)


def _foreseen(args: argparse.Namespace, config: TrainingConfig, init: Optional[Path]
              ) -> Optional[Callable[[Path], Mapping[str, Any]]]:
    """Returns the evaluator, if any. Refuses --released and --evaluate-every before data are made if they could only fail."""
    from hybridvla_core.checkpoints.released_layout import check_layout
    from hybridvla_core.training.hybrid.start import foresee

    if not args.released and not args.evaluate_every:
        return None
    foreseen = foresee(config, init)
    if args.released:
        try:
            check_layout(foreseen.model, foreseen.untrained)
        except HybridVLAError as error:
            raise HybridVLAError(f"--released {args.released}: {error}; leave the option out") from error
    if not args.evaluate_every:
        return None
    if foreseen.untrained:
        raise HybridVLAError("--evaluate-every: no stage of the recipe trains diffusion, without which no mode predicts; leave "
                             "the option out, or give diffusion a weight and a stage")
    return _evaluation(args, "ensemble" if "autoregressive" in foreseen.trained else "diffusion")


def _evaluation(args: argparse.Namespace, mode: str) -> Callable[[Path], Mapping[str, Any]]:
    """Returns an evaluator that runs episodes in the simulated rig with the current weights, in scenes that no evaluation of a
    checkpoint has."""
    import torch

    from hybridvla_cli.evaluate import load_policy
    from hybridvla_core.evaluation.suite import VALIDATION_SEED, load_configs, summarise
    from hybridvla_sim import tasks
    from hybridvla_sim.suite import run_suite

    rig = RIGS[args.rig]
    task = tasks.load(args.task, rig=rig.kind)
    if args.variation:
        task = task.varied(args.variation)

    def evaluate(folder: Path) -> Dict[str, Any]:
        factory, threads = functools.partial(load_policy, str(folder), mode), torch.get_num_threads()
        try:
            config, robot = load_configs(rig.policy_for(factory().cameras), rig.robot, mode)
            episodes = run_suite(factory, config, robot, task,
                                 task.draw(VALIDATION_SEED, args.evaluate_episodes, False), 1, lambda episode: None)
        finally:      # a policy uses one thread; later steps must round like the earlier ones
            torch.set_num_threads(threads)
        found = summarise(episodes, mode, VALIDATION_SEED)
        return {key: found[key] for key in ("successes", "episodes", "interval", "fused_share", "limit_violations")}

    return evaluate
