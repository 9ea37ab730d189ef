"""`hybridvla evaluate`: episodes in the simulated rig, in process, with the policy and the filter of the nodes."""
from __future__ import annotations

import argparse
import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping

from hybridvla_cli import Subparsers
from hybridvla_core.contracts import Mode
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import write_json, write_text
from hybridvla_ros.runtime.threads import wait_quietly
from hybridvla_sim.rigs import RIGS, add_rig

#: Kinds of episodes.
PLAIN, SWITCHED, LANGUAGE = "plain", "switched", "language"

if TYPE_CHECKING:
    from tqdm import tqdm

    from hybridvla_core.policy.config import PolicyConfig
    from hybridvla_core.policy.predictor import Policy
    from hybridvla_core.robots.config import RobotConfig
    from hybridvla_sim.suite import PolicyFactory
    from hybridvla_sim.task import EpisodeSpec, Task


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("evaluate", help="run episodes in the simulated rig, without ROS")
    parser.add_argument("--checkpoint", required=True, help="checkpoint folder")
    add_rig(parser)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--task", default="blocks", help="one task of the rig")
    chosen.add_argument("--tasks", nargs="+", help="several tasks, or all of the rig's; the result has one summary for each")
    parser.add_argument("--variation", default="", help="scenes unlike the demonstrations': object, background, height or light; "
                                                        "of blocks also colour")
    parser.add_argument("--mode", choices=Mode.names(), default="ensemble")
    parser.add_argument("--episodes", type=int, default=100, help="plain episodes of each task")
    parser.add_argument("--switch-episodes", type=int, default=0, help="further ones, instruction switched in the middle")
    parser.add_argument("--language-scenes", type=int, default=0,
                        help="further scenes, each run twice: with one instruction and with one that asks for something else")
    parser.add_argument("--seed", type=int, default=2_000_001, help="episode i draws everything from seed + i")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--robot-config", "--robot", help="the rig's own when left out")
    parser.add_argument("--policy-config", help="the rig's own, with the checkpoint's cameras, when left out")
    parser.add_argument("--json", help="write the result for machines; of several tasks, after each")
    parser.add_argument("--page", type=Path, help="write the result as a page: table, and a reliability diagram of each task")
    return parser


def load_policy(folder: str, mode: str) -> Policy:
    import torch

    from hybridvla_core.policy.predictor import Policy

    torch.set_num_threads(1)
    return Policy.from_checkpoint(folder, mode=mode)


def run(args: argparse.Namespace) -> int:
    wait_quietly()
    from hybridvla_core.evaluation.suite import LARGEST_TRAINING_SEED, load_configs
    from hybridvla_core.evaluation.trained import check_trained
    from hybridvla_core.policy.fit import check_fit
    from hybridvla_sim import tasks

    if args.seed <= LARGEST_TRAINING_SEED:
        raise HybridVLAError(f"--seed {args.seed}: seeds up to {LARGEST_TRAINING_SEED} belong to training; use a larger one")
    counts = (args.episodes, args.switch_episodes, args.language_scenes)
    if min(counts) < 0 or not any(counts):
        raise HybridVLAError("--episodes, --switch-episodes and --language-scenes must not be negative, nor all zero")
    if args.processes < 1:
        raise HybridVLAError(f"--processes {args.processes}: give at least 1")
    if args.page:
        from hybridvla_core.evaluation.suite_page import page  # now: a package that it lacks would lose every episode
    rig = RIGS[args.rig]
    names = tasks.chosen(args.tasks or [args.task], rig.kind)
    chosen = [tasks.load(name).varied(args.variation) if args.variation else tasks.load(name) for name in names]
    factory = functools.partial(load_policy, args.checkpoint, args.mode)
    policy = factory()
    for name in names:
        check_trained(Path(args.checkpoint), name, tasks.load(name).instructions())     # a variation may ask for what is new
    policy_file = Path(args.policy_config) if args.policy_config else rig.policy_for(policy.cameras)
    config, robot = load_configs(policy_file, Path(args.robot_config or rig.robot), args.mode)
    check_fit(policy, config, robot)
    for task in chosen:
        _kinds(args, task)       # what a task has no episodes of is refused before the first one
    results: Dict[str, Dict[str, Any]] = {}
    for task in chosen:
        results[task.name] = _evaluate(args, factory, config, robot, task)
        result = _result(args, results, whole=len(results) == len(chosen))
        write_json(args.json, result)
    if args.tasks:
        print(f"{len(results)} tasks: mean success {result['mean_success_rate']:.3f}")
    if args.page:
        write_text(args.page, page(str(args.checkpoint), results))
    return 0


def _result(args: argparse.Namespace, results: Mapping[str, Dict[str, Any]], whole: bool) -> Dict[str, Any]:
    """Returns what --json holds; the mean only once all tasks are done."""
    result: Dict[str, Any] = {"checkpoint": str(args.checkpoint)}
    if args.variation:
        result["variation"] = args.variation
    if not args.tasks:
        return {**result, **results[args.task]}
    result["tasks"] = dict(results)
    if whole:
        result["mean_success_rate"] = sum(found["success_rate"] for found in results.values()) / len(results)
    return result


def _evaluate(args: argparse.Namespace, factory: PolicyFactory, config: PolicyConfig, robot: RobotConfig, task: Task
              ) -> Dict[str, Any]:
    """Returns the summary of one task, that of switched episodes within it."""
    from tqdm import tqdm

    from hybridvla_core.evaluation.suite import followed, summarise
    from hybridvla_sim.suite import run_suite

    result: Dict[str, Any] = {}
    for name, specs in _kinds(args, task).items():
        wins = [0, 0]
        with tqdm(total=len(specs), desc=f"{task.name}, {args.mode}, {name}") as bar:
            def progress(episode: Dict[str, Any], wins: List[int] = wins, bar: tqdm = bar) -> None:
                wins[0] += episode["success"]
                wins[1] += 1
                bar.set_postfix_str(f"{wins[0]}/{wins[1]} successful")
                bar.update(1)

            episodes = run_suite(factory, config, robot, task, specs, args.processes, progress)
        summary = summarise(episodes, args.mode, args.seed)
        print(f"{task.name}, {name}: {summary['successes']}/{summary['episodes']} successful, 95 % interval "
              f"{summary['interval'][0]:.3f} to {summary['interval'][1]:.3f}; fused {summary['fused_share']:.2f}; "
              f"limit violations {summary['limit_violations']}")
        if name == LANGUAGE:
            summary.update(followed(episodes))
            print(f"{task.name}, {name}: both instructions carried out in {summary['followed']} of {summary['scenes']} scenes")
        if name != PLAIN:
            result[name] = summary
        if "episodes" not in result:       # the first kind speaks for the task
            result.update(summary)
    return result


def _kinds(args: argparse.Namespace, task: Task) -> Dict[str, List[EpisodeSpec]]:
    """Returns the episodes of each kind that is wanted. Scenes of `language` come twice, one instruction behind the other."""
    found: Dict[str, List[EpisodeSpec]] = {}
    if args.episodes:
        found[PLAIN] = task.draw(args.seed, args.episodes, False)
    if args.switch_episodes:
        found[SWITCHED] = task.draw(args.seed, args.switch_episodes, True)
    if args.language_scenes:
        found[LANGUAGE] = [replace(spec, instruction=text, switch_at=None, second=None)
                           for spec in task.draw(args.seed, args.language_scenes, True)
                           for text in (spec.instruction, spec.second or "")]
    return found
