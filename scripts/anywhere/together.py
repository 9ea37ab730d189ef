"""Trains seeds of the tiny model and a suite of tasks side by side on one machine with a GPU, in bounded time.

    PYTHONPATH=src MUJOCO_GL=egl python3 scripts/anywhere/together.py OUT [--minutes 24] [--seeds 7 8 9] [--suites suite dual]

The steps of so small a model are bound by kernel launches, so several trainings share a GPU. The blocks' pictures are made first;
then the seeds train and are judged. A suite's data are made in parallel; the suite trains for as many steps as its time allows
according to a short trial. A training that runs out of time writes its checkpoint as it is and says that it is not finished.
Nothing resumes where it stopped; `scripts/train_anywhere.sh` does. A training that fails costs no other one. It is named at the
end, and the exit status is 1.
"""
import argparse
import json
import multiprocessing
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import yaml

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "config/training/tiny_gpu.yaml"
MODES = ("ensemble", "diffusion", "autoregressive")
FIRST_SEED = 2000001
#: Steps per stage of the trial that measures how long a step takes.
TRIAL = 60
#: Time reserved for what follows the last step, s.
WRITING = 40.0


@dataclass(frozen=True)
class Suite:
    """Tasks of a rig, the recipe that learns them, and the checkpoint it starts from."""

    name: str
    rig: str
    init: Path

    @property
    def recipe(self) -> Path:
        """Recipe of the suite for a GPU."""
        return ROOT / f"config/training/{self.name}_gpu.yaml"


SUITES = {suite.name: suite for suite in (Suite("suite", "fr3", ROOT / "checkpoints/tiny"),
                                          Suite("dual", "agilex", ROOT / "checkpoints/suite"))}


@dataclass(frozen=True)
class Plan:
    """What to run: see the arguments of the command. `failures` gathers a sentence on each part that failed."""

    out: Path
    end: float
    seeds: Sequence[int]
    suites: Sequence[str]
    frames: int
    scenes: int
    states: int
    episodes: int
    processes: int
    device: str
    steps: Optional[Sequence[int]]
    failures: List[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Time until everything must be written, s."""
        return self.end - time.time() - WRITING


def main(words: Optional[Sequence[str]] = None) -> int:
    """Runs everything; returns 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--minutes", type=float, default=24.0, help="time after which everything is written")
    parser.add_argument("--seeds", type=int, nargs="*", default=[7, 8, 9], help="seeds of the tiny model's trainings")
    parser.add_argument("--suites", nargs="*", default=["suite"], choices=sorted(SUITES))
    parser.add_argument("--frames", type=int, default=96000, help="frames of the blocks, four of each picture")
    parser.add_argument("--scenes", type=int, default=450, help="scenes of each task of a suite")
    parser.add_argument("--states", type=int, default=10, help="states of each scene")
    parser.add_argument("--episodes", type=int, default=200, help="episodes that judge each seed in each mode")
    parser.add_argument("--processes", type=int, default=16, help="cores of the machine")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--steps", type=int, nargs=3, metavar="N", help="steps of the three stages of every training; for trials")
    args = parser.parse_args(words)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        parser.error(f"{args.out} is no empty folder; name a new one, since nothing resumes where it stopped")
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.time() + 60.0 * args.minutes
    plan = Plan(args.out.resolve(), end, args.seeds, args.suites, args.frames, args.scenes, args.states, args.episodes,
                args.processes, args.device, args.steps)
    run(plan)
    for failure in plan.failures:
        print(f"together: {failure}", file=sys.stderr)
    return 1 if plan.failures else 0


def run(plan: Plan) -> None:
    """Makes data, trains and judges.

    Args:
        plan: What to run.
    """
    blocks = plan.out / "blocks"
    if plan.seeds:
        from hybridvla_sim.tasks.blocks.dataset import write_dataset

        write_dataset(blocks, plan.frames, 1, 4, 0.02, True, processes=plan.processes)
        decode(TINY, blocks, plan.out / "pictures", None, plan.processes)
        say(plan, "the blocks' pictures are there")
    parts = [*((name, suite_training, SUITES[name]) for name in plan.suites),
             *((f"seed{seed}", seed_training, seed, blocks) for seed in plan.seeds)]
    threads = [threading.Thread(target=attempt, args=(plan, *part)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(plan, f"done, and {len(plan.failures)} failed" if plan.failures else "done")


def attempt(plan: Plan, name: str, work: Callable[..., None], *given: Any) -> None:
    """Works in a thread, where nobody else would hear of an exception."""
    try:
        work(plan, *given)
    except Exception as error:      # noqa: BLE001  # whatever it is, the others go on
        traceback.print_exc()
        plan.failures.append(f"{name}: {type(error).__name__}: {error}")


def seed_training(plan: Plan, seed: int, blocks: Path) -> None:
    """Trains one seed of the tiny model and judges it."""
    work = plan.out / f"seed{seed}"
    work.mkdir(exist_ok=True)
    (work / "pictures").symlink_to(plan.out / "pictures")
    recipe = changed(plan, TINY, work / "recipe.yaml", seed, plan.steps, workers=2)
    if verb(plan, work / "train.log", "train", "--config", recipe, "--data", blocks, "--work", work, "--out", work / "checkpoint",
            "--device", plan.device, "--threads", 1, "--seconds", max(1, int(plan.left)), "--json", work / "train.json"):
        return
    for mode in MODES:
        switched = ["--switch-episodes", plan.episodes // 2] if mode == MODES[0] else []
        if plan.left > 0:
            verb(plan, work / "evaluate.log", "evaluate", "--checkpoint", work / "checkpoint", "--mode", mode, "--episodes",
                 plan.episodes, *switched, "--seed", FIRST_SEED, "--processes", max(1, plan.processes // (len(plan.seeds) + 2)),
                 "--json", work / f"{mode}.json")


def suite_training(plan: Plan, suite: Suite) -> None:
    """Makes a suite's data and trains for as long as time allows."""
    work = plan.out / suite.name
    work.mkdir(exist_ok=True)
    cores = max(1, (plan.processes - 2 * len(plan.seeds)) // len(plan.suites))
    if verb(plan, work / "data.log", "demonstrate", "--rig", suite.rig, "--tasks", "all", "--count", plan.scenes, "--states",
            plan.states, "--sampled", 0.9, "--validation", 0.03, "--processes", cores, "-o", work / "data"):
        return
    # A new process: this one has threads, and a forked child would inherit locks that they hold.
    process = multiprocessing.get_context("spawn").Process(
        target=decode, args=(suite.recipe, work / "data", plan.out / f"{suite.name}_pictures", suite.init, cores))
    process.start()
    process.join()
    if process.exitcode:
        plan.failures.append(f"{suite.name}: the pictures could not be decoded ({process.exitcode}); the reason is above")
    steps = plan.steps
    if steps is None and not learn(plan, suite, work / "trial", [TRIAL] * 3, cores):
        steps = steps_within(plan.left, pace(work / "trial/log.jsonl"), suite.recipe)
    if steps is not None:
        say(plan, f"{suite.name} trains for {', '.join(map(str, steps))} steps")
        learn(plan, suite, work / "train", steps, cores)


def learn(plan: Plan, suite: Suite, work: Path, steps: Sequence[int], cores: int) -> int:
    """Trains in a separate folder; returns the exit status."""
    work.mkdir()
    (work / "pictures").symlink_to(plan.out / f"{suite.name}_pictures")
    recipe = changed(plan, suite.recipe, work / "recipe.yaml", None, steps, workers=max(1, cores // 2))
    return verb(plan, work / "train.log", "train", "--config", recipe, "--init", suite.init, "--data",
                work.parent / "data", "--work", work, "--out", work / "checkpoint", "--device", plan.device,
                "--threads", 2, "--seconds", max(1, int(plan.left)), "--json", work / "train.json")


def steps_within(left: float, seconds: Dict[str, float], recipe: Path) -> List[int]:
    """Computes the steps of the three stages that fit into the time.

    Args:
        left: Time for all stages, s.
        seconds: Time of a step by stage, s.
        recipe: Recipe that names the stages.

    Returns:
        The recipe's steps for the first two stages, in at most half of the time, and the rest for the third.
    """
    stages = yaml.safe_load(recipe.read_text(encoding="utf-8"))["stages"]
    see, ground, act = (seconds[stage["name"]] for stage in stages)
    first = [stage["steps"] for stage in stages[:2]]
    share = min(1.0, 0.5 * left / (first[0] * see + first[1] * ground))
    seen, grounded = (max(1, int(share * steps)) for steps in first)
    return [seen, grounded, max(1, int((left - seen * see - grounded * ground) / act))]


def pace(log: Path) -> Dict[str, float]:
    """Returns the recent time of a step, s, by stage."""
    found: Dict[str, float] = {}
    rows: Dict[str, List[Dict[str, Any]]] = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else []:
        row = json.loads(line)
        if row["kind"] == "train":
            rows.setdefault(row["stage"], []).append(row)
    for stage, of_stage in rows.items():
        first, last = of_stage[-12:][0], of_stage[-1]
        if last["step"] > first["step"]:
            found[stage] = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    return found


def decode(recipe: Path, data: Path, folder: Path, init: Optional[Path], workers: int) -> None:
    """Decodes a data set's pictures once, for all trainings that use `folder`."""
    from hybridvla_core.training.hybrid.config import read_recipe
    from hybridvla_core.training.hybrid.start import prepare

    (frames,) = prepare(read_recipe(recipe), (data,), init).sets
    frames.keep(folder, workers=max(1, workers))


def changed(plan: Plan, source: Path, target: Path, seed: Optional[int], steps: Optional[Sequence[int]], workers: int) -> Path:
    """Writes a recipe with another seed, other steps and as many workers as its share of the cores."""
    text = yaml.safe_load(source.read_text(encoding="utf-8"))
    text["workers"] = workers
    if plan.device == "cpu":
        text["precision"] = "float32"
    if seed is not None:
        text["seed"] = seed
    for stage, count in zip(text["stages"], steps or []):
        stage["steps"] = count
        text["optimizer"]["warmup_steps"] = min(text["optimizer"]["warmup_steps"], max(1, count // 4))
    target.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    return target


def verb(plan: Plan, log: Path, *words: Any) -> int:
    """Runs a verb of `hybridvla`; returns its exit status. Its output goes to `log`."""
    name = f"{log.relative_to(plan.out).with_suffix('')}: {words[0]}"
    say(plan, f"{name} begins")
    with log.open("a", encoding="utf-8") as out:
        status = subprocess.call([sys.executable, "-m", "hybridvla_cli", *map(str, words)], stdout=out, stderr=out)
    said = f"{name} " + ("ended" if status == 0 else f"failed ({status}); see {log}")
    say(plan, said)
    if status:
        plan.failures.append(said)
    return status


def say(plan: Plan, sentence: str) -> None:
    """Prints a sentence with the time that is left."""
    print(f"{plan.left:6.0f} s left: {sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
