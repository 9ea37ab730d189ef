"""Which tasks a checkpoint was trained for, as far as it states them."""
from __future__ import annotations

from pathlib import Path
from typing import Callable, List, Mapping, Sequence, Tuple

from hybridvla_core.checkpoints.manifest import read_manifest
from hybridvla_core.errors import HybridVLAError

#: A task's goals, each with its sentences.
Goals = Mapping[str, Sequence[str]]


def check_trained(checkpoint: Path, task: str, goals: Goals, *others: Goals) -> None:
    """Refuses a task for which a checkpoint was not trained, if the checkpoint states what it was trained for.

    It states this by the task names of its data, or else by the sentences of its data: each goal needs one of its own.

    Args:
        checkpoint: Folder of the checkpoint.
        task: Name of the task.
        goals: Goals of the task.
        others: Goals of the task in a variation: a checkpoint that knows these is accepted as well.

    Raises:
        HybridVLAError: The checkpoint was trained for other tasks, or never for one of the goals.
    """
    provenance = read_manifest(checkpoint)["provenance"]
    tasks, trained = _tasks(provenance), provenance.get("instructions")
    if tasks and task not in tasks:
        raise HybridVLAError(f"{checkpoint}: was not trained for task {task} but for {', '.join(tasks)}; evaluate "
                             f"{'that one' if len(tasks) == 1 else 'one of these'}, or another checkpoint")
    if not trained:
        return
    absent = [_absent(trained, each) for each in (goals, *others)]
    if all(absent):
        sentence = goals[absent[0][0]][0]
        none = len(absent[0]) == len(goals)
        raise HybridVLAError(f"{checkpoint}: was not trained for task {task}: its data had sentences as {trained[0]!r} and none "
                             f"{'of the task' if none else 'that asks for what this one does'}, as {sentence!r}; evaluate "
                             "another task, or train for this one")


def doubts(checkpoint: Path) -> Callable[[str], str]:
    """Returns a function that says why a checkpoint cannot be expected to do what a sentence asks for. Its answer is empty if it
    can, or if the checkpoint does not state its training. Case, spaces and a full stop are ignored.

    Args:
        checkpoint: Folder of the checkpoint, read once.
    """
    trained = read_manifest(checkpoint)["provenance"].get("instructions")
    said = {_words(text) for text in trained or ()}

    def doubt(sentence: str) -> str:
        if not trained or _words(sentence) in said:
            return ""
        return (f"{checkpoint}: was not trained for {sentence!r}: its data had sentences as {trained[0]!r}; what it does now "
                "says nothing about it")

    return doubt


def _tasks(provenance: Mapping[str, object]) -> Tuple[str, ...]:
    """Returns the names of the tasks that it was trained for; empty if it does not state them."""
    tasks = provenance.get("tasks")
    return tuple(str(task) for task in tasks) if isinstance(tasks, list) else ()


def _absent(trained: Sequence[str], goals: Goals) -> List[str]:
    """Returns the goals without a sentence in the data."""
    said = {_words(text) for text in trained}
    return [goal for goal, sentences in goals.items() if not said.intersection(_words(text) for text in sentences)]


def _words(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
