"""The tasks, one folder each: `load("blocks")` returns the folder's `TASK`."""
from __future__ import annotations

import importlib
from pathlib import Path
from typing import Sequence, Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_sim.task import Task


def names() -> Tuple[str, ...]:
    """Returns the names of the tasks in this installation, sorted."""
    return tuple(sorted(path.parent.name for path in Path(__file__).resolve().parent.glob("*/task.py")))


def of_rig(rig: str) -> Tuple[str, ...]:
    """Returns the names of the tasks for a rig (`fr3` or `piper`), sorted."""
    return tuple(name for name in names() if load(name).rig == rig)


def chosen(wanted: Sequence[str], rig: str = "") -> Tuple[str, ...]:
    """Returns the tasks that an option names: one by one, or `all` of a rig.

    Args:
        wanted: Names of tasks, or `all`.
        rig: Rig that the tasks must fit, as for `load`.

    Raises:
        HybridVLAError: There is no such task, it is for another rig, or it is named twice.
    """
    found = of_rig(rig) if list(wanted) == ["all"] else tuple(wanted)
    for name in found:
        load(name, rig)
        if found.count(name) > 1:
            raise HybridVLAError(f"task {name!r} is named twice")
    return found


def load(name: str, rig: str = "") -> Task:
    """Returns a task by its folder's name.

    Args:
        name: One of `names()`.
        rig: Rig that the task must fit (`fr3` or `piper`); any if empty.

    Raises:
        HybridVLAError: There is no such task, or it is for another rig.
    """
    if name not in names():
        raise HybridVLAError(f"there is no task {name!r}; the tasks are {', '.join(names())}")
    task: Task = importlib.import_module(f"hybridvla_sim.tasks.{name}.world").TASK
    if rig and task.rig != rig:
        raise HybridVLAError(f"task {name!r} is for the {task.rig} rig, and this is the {rig} rig; choose another task")
    return task
