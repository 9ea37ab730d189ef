"""`hybridvla evaluate`: runs episodes in the simulated rig with the nodes' policy and filter, in process or over ROS."""
from __future__ import annotations

import argparse
import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from hybridvla_cli import Subparsers
from hybridvla_cli.evaluate_parts.order import LANGUAGE, PLAIN, finished, identity, kinds, one_goal
from hybridvla_core.contracts import Mode
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.files import check_target, write_json, write_text
from hybridvla_ros.runtime.threads import wait_quietly
from hybridvla_sim.rigs import RIGS, add_rig

if TYPE_CHECKING:
    from tqdm import tqdm

    from hybridvla_core.policy.config import PolicyConfig
    from hybridvla_core.policy.fit import Trained
    from hybridvla_core.policy.predictor import Policy
    from hybridvla_core.robots.config import RobotConfig
    from hybridvla_sim.task import EpisodeSpec, Task

    Progress = Callable[[Dict[str, Any]], None]
    #: Runs episodes of a task and reports each one as it ends.
    Runner = Callable[[Task, Sequence[EpisodeSpec], Progress], List[Dict[str, Any]]]

#: Name that stands for the checkpoint when the expert runs.
EXPERT = "expert"


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("evaluate", help="run episodes in the simulated rig, with or without ROS")
    acting = parser.add_mutually_exclusive_group(required=True)
    acting.add_argument("--checkpoint", help="checkpoint folder")
    acting.add_argument("--expert", action="store_true", help="with --ros: let the task's own expert act, which sees the "
                                                              "simulation")
    add_rig(parser)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--task", default="blocks", help="one task of the rig")
    chosen.add_argument("--tasks", nargs="+", help="several tasks, or all of the rig's; the result has one summary for each")
    parser.add_argument("--ros", action="store_true", help="launch the rig, the policy and the filter on a ROS master of their "
                                                           "own, in real time")
    parser.add_argument("--variation", default="", help="scenes that differ from the demonstrations': object, background, "
                                                        "height or light; for blocks also colour")
    parser.add_argument("--mode", choices=Mode.names(), default="ensemble")
    parser.add_argument("--episodes", type=int, default=100, help="plain episodes of each task")
    parser.add_argument("--switch-episodes", type=int, default=0, help="further episodes whose instruction is switched in the "
                                                                       "middle")
    parser.add_argument("--language-scenes", type=int, default=0,
                        help="further scenes, each run twice: with one instruction and with another that asks for something else")
    parser.add_argument("--seed", type=int, default=2_000_001, help="episode i draws everything from seed + i")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--robot-config", "--robot", help="robot configuration; the rig's own when left out")
    parser.add_argument("--policy-config", help="policy configuration; when left out, the rig's own with the checkpoint's "
                                                "cameras")
    parser.add_argument("--json", help="write the result as JSON to this file; with several tasks, after each one. The same "
                                       "command resumes: tasks that the file already holds are kept")
    parser.add_argument("--page", type=Path, help="write the result as a page: a table, and a reliability diagram of each task")
    parser.add_argument("--film", type=Path, help="folder for a video of each episode: the policy's views side by side, 10 "
                                                  "pictures per simulated second; its name says task, seed, words and outcome")
    parser.add_argument("--logs", type=Path, default=Path("out/evaluate"), help="with --ros: folder for the graph's logs")
    return parser


def load_policy(folder: str, mode: str) -> Policy:
    import torch

    from hybridvla_core.policy.predictor import Policy

    torch.set_num_threads(1)
    return Policy.from_checkpoint(folder, mode=mode)


def run(args: argparse.Namespace) -> int:
    wait_quietly()
    _check(args)
    from hybridvla_core.checkpoints.manifest import MANIFEST
    from hybridvla_core.evaluation.suite import load_configs
    from hybridvla_core.evaluation.trained import check_trained
    from hybridvla_core.files import sha256
    from hybridvla_core.policy.fit import check_fit
    from hybridvla_sim import tasks

    if args.page:
        from hybridvla_core.evaluation.suite_page import page  # now: a missing package would lose every episode later
    rig = RIGS[args.rig]
    names = tasks.chosen(args.tasks or [args.task], rig.kind)
    chosen = [tasks.load(name).varied(args.variation) if args.variation else tasks.load(name) for name in names]
    wanted = [task for task in chosen if kinds(args, task)]     # refuses episodes that a task lacks before the first one
    left_out = _left_out(args, chosen)
    if not wanted:
        raise HybridVLAError("there are no episodes to run: every task of the rig has one goal; give --episodes as well")
    policy: Optional[Trained] = None
    if args.checkpoint:
        policy = _read(args)
        for task in wanted:         # a variation may have new goals
            check_trained(Path(args.checkpoint), task.name, tasks.load(task.name).phrases.goals, task.phrases.goals)
    policy_file = Path(args.policy_config) if args.policy_config else rig.policy_for(policy.cameras if policy else rig.views)
    robot_file = Path(args.robot_config or rig.robot)
    config, robot = load_configs(policy_file, robot_file, args.mode)
    if policy is not None:
        check_fit(policy, config, robot)
    order = identity(args, sha256(Path(args.checkpoint) / MANIFEST) if args.checkpoint else "", config, robot)
    earlier = finished(args.json, order) if args.json else {}
    results = {task.name: earlier[task.name] for task in wanted if task.name in earlier}
    others = {name: summary for name, summary in earlier.items() if name not in {task.name for task in wanted}}
    if others and not args.tasks:
        raise HybridVLAError(f"{args.json}: holds {', '.join(others)} with the same settings, which one task's result would "
                             "replace; use --tasks, or write to another file")
    if results:
        print(f"{args.json}: holds {', '.join(results)} with the same settings; kept (remove the file to run them again)")
    missing = [task for task in wanted if task.name not in results]
    with contextlib.ExitStack() as stack:
        runner = stack.enter_context(_runner(args, config, robot, policy_file, robot_file)) if missing else None
        for task in missing:
            assert runner is not None, "there is one where a task is missing"
            results[task.name] = _evaluate(args, runner, task)
            write_json(args.json, _result(args, order, {**others, **results}, left_out, whole=len(results) == len(wanted)))
    results = {task.name: results[task.name] for task in wanted}
    result = _result(args, order, {**others, **results}, left_out, whole=True)
    write_json(args.json, result)
    if args.tasks:
        print(f"{len(result['tasks'])} tasks: mean success {result['mean_success_rate']:.3f}")
    if args.page:
        write_text(args.page, page(str(args.checkpoint or EXPERT), results))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses meaningless numbers and combinations."""
    from hybridvla_core.evaluation.suite import check_seeds

    if not args.tasks and args.task == "all":
        raise HybridVLAError("--task all: there is no such task; for all of them use --tasks all")
    counts = (args.episodes, args.switch_episodes, args.language_scenes)
    if min(counts) < 0 or not any(counts):
        raise HybridVLAError("--episodes, --switch-episodes and --language-scenes must not be negative, nor all zero")
    check_seeds(args.seed, max(counts))
    if args.processes < 1:
        raise HybridVLAError(f"--processes {args.processes}: give at least 1")
    if args.ros and args.processes > 1:
        raise HybridVLAError(f"--processes {args.processes}: one graph runs at a time; leave it out with --ros")
    if args.ros and args.film:
        raise HybridVLAError(f"--film {args.film}: films episodes in process only; with --ros leave it out, and record a bag")
    if args.film:
        check_target(args.film / "episode.mp4", "--film")
    if args.expert and not args.ros:
        raise HybridVLAError("--expert: needs --ros; `make tasks` runs the experts in process")


def _read(args: argparse.Namespace) -> Trained:
    """Returns the policy, which states its cameras; over ROS, where the node loads the policy, only its configuration."""
    if not args.ros:
        return load_policy(args.checkpoint, args.mode)
    from hybridvla_core.checkpoints.format import read_checkpoint

    return read_checkpoint(Path(args.checkpoint)).config


def _left_out(args: argparse.Namespace, chosen: Sequence[Task]) -> List[str]:
    """Returns the tasks without episodes that need two goals, and prints their names."""
    if not args.switch_episodes and not args.language_scenes:
        return []
    found = [task.name for task in chosen if one_goal(task)]
    if found:
        print(f"one goal, so nothing to switch to and no other words to tell apart: {', '.join(found)} "
              f"{'have plain episodes only' if args.episodes else 'are left out'}")
    return found


@contextlib.contextmanager
def _runner(args: argparse.Namespace, config: PolicyConfig, robot: RobotConfig, policy_file: Path, robot_file: Path
            ) -> Iterator[Runner]:
    """Yields the runner of the episodes: in this process, in several processes, or on a ROS graph."""
    if args.ros:
        from hybridvla_ros.evaluation.tasks import Launched, Request

        with Launched(Request(args.rig, str(args.checkpoint or ""), args.mode, policy_file.resolve(), robot_file.resolve(),
                              args.logs)) as launched:
            yield launched.run
        return
    from hybridvla_sim.suite import run_suite

    factory = functools.partial(load_policy, args.checkpoint, args.mode)
    yield lambda task, specs, progress: run_suite(factory, config, robot, task, specs, args.processes, progress, args.film)


def _result(args: argparse.Namespace, order: Mapping[str, Any], results: Mapping[str, Dict[str, Any]], left_out: Sequence[str],
            whole: bool) -> Dict[str, Any]:
    """Returns the content of --json; the mean is included only when all tasks are done."""
    result: Dict[str, Any] = {"checkpoint": str(args.checkpoint or EXPERT), "order": order}
    if args.variation:
        result["variation"] = args.variation
    if not args.tasks:
        return {**result, "task": args.task, **results[args.task]}
    if left_out:
        result["left_out"] = left_out
    result["tasks"] = dict(results)
    if whole:
        result["mean_success_rate"] = sum(found["success_rate"] for found in results.values()) / len(results)
    return result


def _evaluate(args: argparse.Namespace, runner: Runner, task: Task) -> Dict[str, Any]:
    """Returns the summary of one task, which includes the summary of its switched episodes."""
    from tqdm import tqdm

    from hybridvla_core.evaluation.suite import followed, summarise

    result: Dict[str, Any] = {}
    for name, specs in kinds(args, task).items():
        wins = [0, 0]
        with tqdm(total=len(specs), desc=f"{task.name}, {args.mode}, {name}") as bar:
            def progress(episode: Dict[str, Any], wins: List[int] = wins, bar: tqdm = bar) -> None:
                wins[0] += episode["success"]
                wins[1] += 1
                bar.set_postfix_str(f"{wins[0]}/{wins[1]} successful")
                bar.update(1)

            episodes = runner(task, specs, progress)
        summary = summarise(episodes, args.mode, args.seed)
        print(f"{task.name}, {name}: {summary['successes']}/{summary['episodes']} successful, 95 % interval "
              f"{summary['interval'][0]:.3f} to {summary['interval'][1]:.3f}; fused {summary['fused_share']:.2f}; "
              f"limit violations {summary['limit_violations']}")
        if name == LANGUAGE:
            summary.update(followed(episodes))
            print(f"{task.name}, {name}: both instructions carried out in {summary['followed']} of {summary['scenes']} scenes")
        if name != PLAIN:
            result[name] = summary
        if "episodes" not in result:       # the first kind is the task's summary
            result.update(summary)
    return result
