"""Which episodes are run, and which tasks of the same order an earlier, interrupted run has finished."""
from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping

from hybridvla_core.files import key_of

if TYPE_CHECKING:
    from hybridvla_core.policy.config import PolicyConfig
    from hybridvla_core.robots.config import RobotConfig
    from hybridvla_sim.task import EpisodeSpec, Task

#: Kinds of episodes.
PLAIN, SWITCHED, LANGUAGE = "plain", "switched", "language"
ALL = "all"
#: What a result says beside the summary of a task.
HEAD = ("checkpoint", "variation", "order", "task", "left_out")


def kinds(args: argparse.Namespace, task: Task) -> Dict[str, List[EpisodeSpec]]:
    """Returns the episodes of each kind that is wanted. Scenes of `language` come twice, one instruction behind the other.

    Args:
        args: Of the command.
        task: Of `--tasks all`, one with a single goal has plain episodes only.

    Raises:
        HybridVLAError: A task that was named has nothing to switch to.
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
    """Tells whether nothing else can be asked for in the task's scenes."""
    return len(task.phrases.goals) < 2


def identity(args: argparse.Namespace, manifest: str, config: PolicyConfig, robot: RobotConfig) -> Dict[str, Any]:
    """Returns everything that decides what is found of a task, but for the task; results of another one are not mixed in.

    Args:
        args: Of the command.
        manifest: sha256 of the checkpoint's; empty for the tasks' experts.
        config: Of the policy.
        robot: Whose arms move.
    """
    from hybridvla_sim.origin import origin

    return {**origin(), "manifest_sha256": manifest, "mode": args.mode, "seed": args.seed, "episodes": args.episodes,
            "switch_episodes": args.switch_episodes, "language_scenes": args.language_scenes, "variation": args.variation,
            "ros": args.ros, "configurations": key_of({"policy": asdict(config), "robot": asdict(robot)})}


def finished(file: str, order: Mapping[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Returns the summaries of the tasks that stand in a result of the same order; none of another order, or of no result.

    Args:
        file: Of `--json`; need not be there.
        order: As `identity` gives it.
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
