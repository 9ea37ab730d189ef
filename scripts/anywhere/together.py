"""Trains seeds of the tiny model and the single-arm suite side by side on one machine with a GPU, and judges them, in bounded time.

    PYTHONPATH=src MUJOCO_GL=egl python3 scripts/anywhere/together.py OUT [--minutes 24] [--seeds 7 8 9]

Steps of so small a model are bound by launching kernels, so several trainings share a GPU. The blocks' pictures come first, then the
seeds begin; the suite's data are made beside them, and it trains for as many steps as its time allows by the seeds' pace. A training
that runs out of time writes its checkpoint as it is and says that it is not finished. Nothing goes on where it stopped:
`scripts/train_anywhere.sh` does.
"""
import argparse
import json
import multiprocessing
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import yaml

ROOT = Path(__file__).resolve().parents[2]
TINY, SUITE, BEFORE = ROOT / "config/training/tiny_gpu.yaml", ROOT / "config/training/suite_gpu.yaml", ROOT / "checkpoints/tiny"
MODES = ("ensemble", "diffusion", "autoregressive")
FIRST_SEED = 2000001
#: A step of the suite over one of the tiny model: two views and twice the samples.
DEARER = 1.3
#: Left for what comes behind the last step, s.
WRITING = 40.0


@dataclass(frozen=True)
class Plan:
    """What is asked for: see the arguments of the command."""

    out: Path
    end: float
    seeds: Sequence[int]
    frames: int
    scenes: int
    states: int
    episodes: int
    processes: int
    device: str
    steps: Optional[Sequence[int]]

    @property
    def left(self) -> float:
        """s until all must be written."""
        return self.end - time.time() - WRITING


def main(words: Optional[Sequence[str]] = None) -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--minutes", type=float, default=24.0, help="after which all is written")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9], help="of the tiny model's trainings")
    parser.add_argument("--frames", type=int, default=96000, help="of the blocks, four of each picture")
    parser.add_argument("--scenes", type=int, default=450, help="of each of the suite's tasks; 0 for no suite")
    parser.add_argument("--states", type=int, default=10, help="of each scene")
    parser.add_argument("--episodes", type=int, default=200, help="that judge each seed in each mode")
    parser.add_argument("--processes", type=int, default=16, help="cores of the machine")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--steps", type=int, nargs=3, metavar="N", help="of the three stages of every training; for trials")
    args = parser.parse_args(words)
    args.out.mkdir(parents=True, exist_ok=True)
    run(Plan(args.out.resolve(), time.time() + 60.0 * args.minutes, args.seeds, args.frames, args.scenes, args.states, args.episodes,
             args.processes, args.device, args.steps))


def run(plan: Plan) -> None:
    """Makes data, trains and judges.

    Args:
        plan: What is asked for.
    """
    from hybridvla_sim.tasks.blocks.dataset import write_dataset

    blocks = plan.out / "blocks"
    if not blocks.is_dir():
        write_dataset(blocks, plan.frames, 1, 4, 0.02, True, processes=plan.processes)
    decode(TINY, blocks, plan.out / "pictures", None, plan.processes)
    say(plan, "the blocks' pictures are there")
    ready = threading.Event()
    suite = [threading.Thread(target=suite_data, args=(plan, ready)), threading.Thread(target=suite_training, args=(plan, ready))]
    seeds = [threading.Thread(target=seed_training, args=(plan, seed, blocks)) for seed in plan.seeds]
    for thread in [*(suite if plan.scenes else []), *seeds]:
        thread.start()
    for thread in [*seeds, *(suite if plan.scenes else [])]:
        thread.join()
    say(plan, "done")


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


def suite_data(plan: Plan, ready: threading.Event) -> None:
    """Demonstrations of all single-arm tasks, with their pictures as the training reads them."""
    data = plan.out / "suite_set"
    said = verb(plan, plan.out / "suite_set.log", "demonstrate", "--rig", "fr3", "--tasks", "all", "--count", plan.scenes,
                "--states", plan.states, "--sampled", 0.9, "--validation", 0.03, "--processes",
                max(1, plan.processes - 2 * len(plan.seeds)), "-o", data)
    if not said:
        # A process of its own: this one has threads, and its children must not inherit locks that they hold.
        process = multiprocessing.get_context("spawn").Process(
            target=decode, args=(SUITE, data, plan.out / "suite/pictures", BEFORE, plan.processes - 2 * len(plan.seeds)))
        process.start()
        process.join()
    ready.set()


def suite_training(plan: Plan, ready: threading.Event) -> None:
    """Trains the suite for as long as there is time."""
    ready.wait()
    work = plan.out / "suite"
    steps = plan.steps or suite_steps(plan.left, pace(plan.out / f"seed{plan.seeds[0]}/log.jsonl"))
    say(plan, f"the suite trains for {', '.join(map(str, steps))} steps")
    recipe = changed(plan, SUITE, plan.out / "suite.yaml", None, steps, workers=max(1, plan.processes // 3))
    verb(plan, plan.out / "suite.log", "train", "--config", recipe, "--init", BEFORE, "--data", plan.out / "suite_set", "--work", work,
         "--out", work / "checkpoint", "--device", plan.device, "--threads", 2, "--seconds", max(1, int(plan.left)), "--json",
         plan.out / "suite.json")


def suite_steps(left: float, seconds: Dict[str, float]) -> List[int]:
    """Steps of `see`, `ground` and `act` that fit.

    Args:
        left: For all, s.
        seconds: Of a step of each stage of the tiny model, s; what is not known yet is guessed.

    Returns:
        At most those of the recipe for the first two, and the rest for the third.
    """
    see, ground, act = (DEARER * seconds.get(stage, guess) for stage, guess in (("see", 0.02), ("ground", 0.04), ("act", 0.06)))
    first = [stage["steps"] for stage in yaml.safe_load(SUITE.read_text(encoding="utf-8"))["stages"][:2]]
    share = min(1.0, 0.5 * left / (first[0] * see + first[1] * ground))
    seen, grounded = (max(1, int(share * steps)) for steps in first)
    return [seen, grounded, max(1, int((left - seen * see - grounded * ground) / act))]


def pace(log: Path) -> Dict[str, float]:
    """Seconds of a step, lately, by stage."""
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
    """Decodes a data set's pictures once, for all trainings that have `folder` as theirs."""
    from hybridvla_core.configuration import load_file
    from hybridvla_core.training.hybrid.config import TrainingConfig
    from hybridvla_core.training.hybrid.start import prepare

    (frames,) = prepare(load_file(TrainingConfig, recipe), (data,), init).sets
    frames.keep(folder, workers=max(1, workers))


def changed(plan: Plan, source: Path, target: Path, seed: Optional[int], steps: Optional[Sequence[int]], workers: int) -> Path:
    """A recipe with another seed, other steps and as many workers as its share of the cores."""
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
    """Runs a verb of `hybridvla`; returns its exit status. What it says goes into `log`."""
    say(plan, f"{log.parent.name}/{log.stem}: {words[0]} begins")
    with log.open("a", encoding="utf-8") as out:
        status = subprocess.run([sys.executable, "-m", "hybridvla_cli", *map(str, words)], stdout=out, stderr=out, check=False).returncode
    say(plan, f"{log.parent.name}/{log.stem}: {words[0]} " + ("ended" if status == 0 else f"failed ({status}); see {log}"))
    return status


def say(plan: Plan, sentence: str) -> None:
    """With the time that is left."""
    print(f"{plan.left:6.0f} s left: {sentence}", flush=True)


if __name__ == "__main__":
    main()
