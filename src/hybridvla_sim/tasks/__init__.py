"""The tasks, a folder each: `load("blocks")` finds the folder's `TASK`."""
from __future__ import annotations

import importlib
from pathlib import Path
from typing import Tuple

from hybridvla_core.errors import HybridVLAError
from hybridvla_sim.task import Task


def names() -> Tuple[str, ...]:
    """Returns the tasks of this installation, sorted."""
    return tuple(sorted(path.parent.name for path in Path(__file__).resolve().parent.glob("*/task.py")))


def load(name: str, rig: str = "") -> Task:
    """Returns a task by its folder's name.

    Args:
        name: One of `names()`.
        rig: The rig it has to fit (`fr3` or `piper`); any when empty.

    Raises:
        HybridVLAError: There is no such task, or it is for another rig.
    """
    if name not in names():
        raise HybridVLAError(f"there is no task {name!r}; the tasks are {', '.join(names())}")
    task: Task = importlib.import_module(f"hybridvla_sim.tasks.{name}.world").TASK
    if rig and task.rig != rig:
        raise HybridVLAError(f"task {name!r} is for the {task.rig} rig, and this is the {rig} rig; choose another task")
    return task
