"""All tasks on one sheet: pictures of the start and the end, and how often the expert does it through the filter.

    python -m hybridvla_sim.sheet --episodes 20 --out out/tasks

Every episode is recorded as it ends, so the same command resumes where it stopped; a larger --episodes adds to what is there.
Episodes of older scenes, experts, filters or robots stay in the notes and are run again.
"""
from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.suite import load_configs
from hybridvla_core.files import append_line, key_of, sha256
from hybridvla_core.report.page import render
from hybridvla_core.report.statistics import wilson
from hybridvla_sim import tasks
from hybridvla_sim.demonstrations.drive import drive
from hybridvla_sim.experts import ExpertPolicy
from hybridvla_sim.origin import origin
from hybridvla_sim.pool import in_processes
from hybridvla_sim.rigs import RIGS, NamedRig
from hybridvla_sim.suite import Suite

#: Seed of the first episode; demonstrations and policy evaluations use other seeds.
FIRST_SEED, TILE = 5_000_001, 160
ENOUGH = 0.95
PAGE = """{% extends "base.html" %}{% from "parts.html" import table with context %}
{% block title %}Tasks{% endblock %}
{% block body %}<h1>Tasks and their experts</h1>
<p>Episodes through the safety filter, in process; scenes from seed {{ first }} on. Interventions are what the filter limited,
held or refused.</p>
{{ table(["task", "episodes", "done", "95 % interval", "s", "keyframes", "interventions an episode", "broken limits"], rows) }}
<p><img src="tasks.png" alt="each task at the start and at the end"></p>{% endblock %}"""


@dataclass(frozen=True)
class Episode:
    """One episode to run."""

    task: str
    seed: int


_SUITES: Dict[str, Suite] = {}


def _nothing() -> None:
    """Initialises a worker: nothing to do."""


def rig_of(name: str) -> NamedRig:
    """Returns the rig of a task."""
    return next(rig for rig in RIGS.values() if rig.kind == tasks.load(name).rig)


def run_one(job: Episode) -> Dict[str, object]:
    """Runs one episode of the task's expert; keeps the rig of the last task."""
    if job.task not in _SUITES:
        for suite in _SUITES.values():
            suite.rig.close()
        _SUITES.clear()
        rig = rig_of(job.task)
        config, robot = load_configs(rig.policy, rig.robot, "diffusion")
        policy = ExpertPolicy(config.convention, [camera.view for camera in config.cameras])
        _SUITES[job.task] = Suite(policy, config, robot, tasks.load(job.task))
    suite = _SUITES[job.task]
    found = suite.run(suite.task.draw(job.seed, 1, switched=False)[0])
    interventions = {name: count for name, count in found["counters"].items()
                     if count and name.startswith(("limited/", "rejected/", "holds"))}
    return {"task": job.task, "seed": job.seed, **{key: found[key] for key in ("success", "time", "keyframes")},
            "violations": found["violations"], "interventions": interventions}


def read_notes(path: Path) -> List[Dict[str, object]]:
    """Returns the recorded episodes; skips a line that was cut off when the process was killed."""
    found: List[Dict[str, object]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def code() -> str:
    """Returns a key of the code and the configuration that episodes come from."""
    files = {file.name: sha256(file) for rig in RIGS.values() for file in (rig.robot, rig.policy)}
    return key_of({**origin(), **files, "renderer": ""})        # these episodes are not rendered


def run_missing(names: Tuple[str, ...], episodes: int, notes: Path, processes: int) -> List[Dict[str, object]]:
    """Runs the episodes that are not recorded yet for the present code, and returns all requested episodes."""
    today = code()
    known = {(str(row["task"]), int(str(row["seed"]))): row for row in read_notes(notes) if row.get("code") == today}
    wanted = [Episode(name, FIRST_SEED + number) for name in names for number in range(episodes)]
    missing = [job for job in wanted if (job.task, job.seed) not in known]
    results = in_processes(run_one, missing, processes, _nothing, (), "finished episodes are kept: start again") \
        if processes > 1 and len(missing) > 1 else map(run_one, missing)
    with tqdm(total=len(wanted), initial=len(wanted) - len(missing), unit=" episodes") as bar:
        for row in results:
            append_line(notes, json.dumps({**row, "code": today}))
            known[str(row["task"]), int(str(row["seed"]))] = row
            bar.set_postfix_str(str(row["task"]))
            bar.update(1)
    return [known[job.task, job.seed] for job in wanted]


def summary(name: str, rows: List[Dict[str, object]]) -> Dict[str, object]:
    """Returns the summary of one task."""
    wins = sum(bool(row["success"]) for row in rows)
    low, high = wilson(wins, len(rows))
    total: Counter = Counter()
    for row in rows:
        interventions = row["interventions"]
        total.update(interventions if isinstance(interventions, dict) else {})
    return {"task": name, "episodes": len(rows), "successes": wins, "rate": wins / len(rows),
            "interval": f"{low:.3f} to {high:.3f}",
            "median_time_s": float(np.median([float(str(row["time"])) for row in rows])),
            "median_keyframes": float(np.median([float(str(row["keyframes"])) for row in rows])),
            "interventions_an_episode": {key: round(count / len(rows), 2) for key, count in sorted(total.items())},
            "violations": sum(int(str(row["violations"])) for row in rows),
            "failed_seeds": [row["seed"] for row in rows if not row["success"]]}


def pictures(name: str) -> List[Image.Image]:
    """Returns pictures of each view of a task at the start and at the end of its expert's run."""
    rig = rig_of(name)
    config, robot = load_configs(rig.policy, rig.robot, "diffusion")
    suite = Suite(ExpertPolicy(config.convention, [camera.view for camera in config.cameras]), config, robot, tasks.load(name))
    suite.rig.reset(np.random.default_rng(FIRST_SEED))
    text = suite.task.draw(FIRST_SEED, 1, switched=False)[0].instruction
    found = []
    events = drive(suite.rig, config.convention, text, suite.task.max_keyframes, np.random.default_rng(0))
    for last in (False, True):
        if last:
            for _ in events:
                pass
        found += [Image.fromarray(suite.rig.render(view)).resize((TILE, TILE)) for view in rig.views]
    suite.rig.close()
    return found


def sheet(names: Tuple[str, ...], found: Dict[str, Dict[str, object]], path: Path) -> None:
    """Draws all tasks, one row each: start, end, and the success of the expert."""
    rows = [(name, pictures(name)) for name in names]
    width = max(len(tiles) for _, tiles in rows) * TILE
    image = Image.new("RGB", (width, len(rows) * (TILE + 20)), "white")
    draw = ImageDraw.Draw(image)
    for number, (name, tiles) in enumerate(rows):
        top, said = number * (TILE + 20), found[name]
        draw.text((4, top + 4), f"{name}: {said['successes']} of {said['episodes']}", fill="black")
        for column, tile in enumerate(tiles):
            image.paste(tile, (column * TILE, top + 20))
    image.save(str(path))


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs the episodes, draws the sheet and writes the results; returns 1 if an expert's success rate is below 0.95."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["all"], help="names of tasks, or all for every task of both rigs")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of each task")
    parser.add_argument("--out", type=Path, default=Path("out/tasks"))
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args(arguments)
    if args.episodes < 1:
        raise HybridVLAError("--episodes must be at least 1")
    everything = tuple(name for rig in RIGS.values() for name in tasks.of_rig(rig.kind))
    names = everything if args.tasks == ["all"] else tasks.chosen(args.tasks)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = run_missing(names, args.episodes, args.out / "episodes.jsonl", args.processes)
    found = {name: summary(name, [row for row in rows if row["task"] == name]) for name in names}
    (args.out / "tasks.json").write_text(json.dumps(list(found.values()), indent=2) + "\n", encoding="utf-8")
    sheet(names, found, args.out / "tasks.png")
    table = [[name, said["episodes"], said["rate"], said["interval"], said["median_time_s"],
              said["median_keyframes"], said["interventions_an_episode"], said["violations"]] for name, said in found.items()]
    (args.out / "index.html").write_text(render(PAGE, {"rows": table, "first": FIRST_SEED}), encoding="utf-8")
    for name, said in found.items():
        print(f"{name}: {said['successes']} of {said['episodes']}")
    print(f"{args.out / 'index.html'}")
    weak = [name for name, said in found.items() if float(str(said["rate"])) < ENOUGH]
    if weak:
        print(f"below {ENOUGH}: {', '.join(weak)}", file=sys.stderr)
    return 1 if weak else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HybridVLAError as error:
        sys.exit(f"tasks: {error}")
