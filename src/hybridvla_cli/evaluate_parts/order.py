"""Which episodes to run, and which tasks of the same order an earlier, interrupted run has finished."""
from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping

from hybridvla_cli.shared.graph import GRAPH, digests
from hybridvla_core.files import key_of
from hybridvla_core.paths import ROOT

if TYPE_CHECKING:
    from hybridvla_core.policy.config import PolicyConfig
    from hybridvla_core.robots.config import RobotConfig
    from hybridvla_sim.task import EpisodeSpec, Task

#: Kinds of episodes.
PLAIN, SWITCHED, LANGUAGE = "plain", "switched", "language"
ALL = "all"
#: Keys of a result that are not part of a task's summary.
HEAD = ("checkpoint", "variation", "order", "task", "left_out")


def kinds(args: argparse.Namespace, task: Task) -> Dict[str, List[EpisodeSpec]]:
    """Returns the episodes of each wanted kind. Each scene of `language` comes twice in a row, with one instruction each.

    Args:
        args: Options of the command.
        task: Task of the episodes; with `--tasks all`, a task with a single goal has plain episodes only.

    Raises:
        HybridVLAError: A task was named that has nothing to switch to.
    """
    found: Dict[str, List[EpisodeSpec]] = {}
    if args.episodes:
        found[PLAIN] = task.draw(args.seed, args.episodes, False)
    if args.tasks == [ALL] and one_goal(task):
        return found
    if args.switch_episodes:
        found[SWITCHED] = task.draw(args.seed, args.switch_episodes, True)
    if args.language_scenes:
        found[LANGUAGE] = [replace(spec, instruction=text, switch_at=None, second=None)
                           for spec in task.draw(args.seed, args.language_scenes, True)
                           for text in (spec.instruction, spec.second or "")]
    return found


def one_goal(task: Task) -> bool:
    """Tells whether the task's scenes allow only one goal."""
    return len(task.phrases.goals) < 2


def identity(args: argparse.Namespace, manifest: str, config: PolicyConfig, robot: RobotConfig) -> Dict[str, Any]:
    """Returns everything that determines a task's result, except the task; results of another identity are not mixed in.

    Args:
        args: Options of the command.
        manifest: sha256 of the checkpoint's manifest; empty for the tasks' experts.
        config: Configuration of the policy.
        robot: Configuration of the robot whose arms move.
    """
    from hybridvla_sim.origin import origin

    found = {**origin(), "manifest_sha256": manifest, "mode": args.mode, "seed": args.seed, "episodes": args.episodes,
             "switch_episodes": args.switch_episodes, "language_scenes": args.language_scenes, "variation": args.variation,
             "ros": args.ros, "configurations": key_of({"policy": asdict(config), "robot": asdict(robot)})}
    if args.ros:
        found["graph"] = key_of(digests(ROOT, GRAPH))
    return found


def finished(file: str, order: Mapping[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Returns the summaries of the tasks in a result of the same order; none if the order differs or there is no result.

    Args:
        file: File of `--json`; need not exist.
        order: Order as `identity` returns it.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or content.get("order") != order:
        return {}
    if "tasks" in content:
        return dict(content["tasks"])
    return {content["task"]: {key: value for key, value in content.items() if key not in HEAD}}
