"""The sentences of a task: what each asks for, and which words name which thing."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Mapping, Tuple

from hybridvla_core.errors import HybridVLAError


@dataclass(frozen=True)
class Thing:
    """Something that a sentence may name.

    Attributes:
        nouns: the words by which it is called, longer ones first where one holds another.
        body: its body in the scene; pictures of it are those of this body and what hangs on it.
        site: a point of it, where its body's origin is not what is meant.
        geom: its one shape, where it has no body of its own.
        more: further bodies that belong to it: a heap is one thing.
    """

    nouns: Tuple[str, ...]
    body: str = ""
    site: str = ""
    geom: str = ""
    more: Tuple[str, ...] = ()


class Phrases:
    """The sentences of one task.

    Args:
        task: its name, for messages.
        goals: what can be asked for, each with its sentences.
        things: what the sentences name.
    """

    def __init__(self, task: str, goals: Mapping[str, Tuple[str, ...]], things: Mapping[str, Thing]) -> None:
        self.task, self.goals, self.things = task, dict(goals), dict(things)
        self._goal_of: Dict[str, str] = {}
        for goal, sentences in self.goals.items():
            for sentence in sentences:
                self._goal_of[sentence] = goal

    def sentences(self) -> Tuple[str, ...]:
        """Returns all sentences, goal by goal."""
        return tuple(self._goal_of)

    def goal(self, text: str) -> str:
        """Returns what a sentence asks for.

        Raises:
            HybridVLAError: The task has no such sentence.
        """
        words = " ".join(text.lower().split()).rstrip(".")
        if words not in self._goal_of:
            raise HybridVLAError(f"task {self.task!r} cannot judge {text!r}; say one of: {'; '.join(self._goal_of)}")
        return self._goal_of[words]

    def named(self, text: str) -> Dict[str, Tuple[Tuple[int, int], ...]]:
        """Returns, for each thing that a sentence names, the character ranges [begin, end) of its nouns."""
        found: Dict[str, Tuple[Tuple[int, int], ...]] = {}
        for name, thing in self.things.items():
            pattern = "|".join(re.escape(noun) for noun in thing.nouns)
            spans = tuple(match.span() for match in re.finditer(rf"\b(?:{pattern})\b", text, flags=re.IGNORECASE))
            if spans:
                found[name] = spans
        return found
