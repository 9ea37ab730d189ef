"""The sentences of a task: what each one asks for, and which words name which thing."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Mapping, Set, Tuple

from hybridvla_core.errors import HybridVLAError


@dataclass(frozen=True)
class Thing:
    """Something that a sentence may name.

    Attributes:
        nouns: words that name it.
        body: its body in the scene; this body and its descendants show it in pictures.
        site: a point of it, if the origin of its body is not what is meant.
        geoms: its shapes, if it has no body of its own; shapes that have become invisible no longer belong to it.
        more: further bodies that belong to it: a heap is one thing.
        symmetry: number of rotations about the vertical, equally spaced over a full turn, after which it looks the same and is
            handled the same; 0 if its rotation has no meaning.
        turned: body that defines its rotation; empty: `body`. A lid takes that of what it is hinged to, whose x axis stays level.
        small: whether it covers hardly any of a patch; then the patch that shows most of it counts as showing it.
    """

    nouns: Tuple[str, ...]
    body: str = ""
    site: str = ""
    geoms: Tuple[str, ...] = ()
    more: Tuple[str, ...] = ()
    symmetry: int = 0
    turned: str = ""
    small: bool = False


class Phrases:
    """The sentences of one task.

    Args:
        task: name of the task, for messages.
        goals: goals that can be asked for, each with its sentences.
        things: things that the sentences name, by name.
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
        """Returns the goal that a sentence asks for.

        Raises:
            HybridVLAError: The task has no such sentence.
        """
        words = " ".join(text.lower().split()).rstrip(".")
        if words not in self._goal_of:
            raise HybridVLAError(f"task {self.task!r} cannot judge {text!r}; say one of: {'; '.join(self._goal_of)}")
        return self._goal_of[words]

    def named(self, text: str) -> Dict[Tuple[int, int], Tuple[str, ...]]:
        """Finds the things that a sentence names.

        The longest nouns are matched first, and no character belongs to two nouns: the wine of "wine rack" is not the bottle.

        Args:
            text: The sentence.

        Returns:
            The characters [begin, end) of each name -> what it names: one thing, or several that share the noun (both plates). If
            a thing is named several times, only its first name is returned.
        """
        found: Dict[Tuple[int, int], Tuple[str, ...]] = {}
        taken: Set[int] = set()
        nouns = {noun for thing in self.things.values() for noun in thing.nouns}
        for noun in sorted(nouns, key=lambda noun: (-len(noun), noun)):
            for match in re.finditer(rf"\b{re.escape(noun)}\b", text, flags=re.IGNORECASE):
                if not taken.intersection(range(*match.span())):
                    taken.update(range(*match.span()))
                    found[match.span()] = tuple(name for name, thing in self.things.items() if noun in thing.nouns)
        first: Dict[Tuple[int, int], Tuple[str, ...]] = {}
        for span in sorted(found):
            if not any(found[span] == names for names in first.values()):
                first[span] = found[span]
        return first
