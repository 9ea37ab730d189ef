"""The sentences of a task: what each asks for, and which words name which thing."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Mapping, Set, Tuple

from hybridvla_core.errors import HybridVLAError


@dataclass(frozen=True)
class Thing:
    """Something that a sentence may name.

    Attributes:
        nouns: the words by which it is called.
        body: its body in the scene; pictures of it are those of this body and what hangs on it.
        site: a point of it, where its body's origin is not what is meant.
        geoms: its shapes, where it has no body of its own; those that cannot be seen any more are no part of it.
        more: further bodies that belong to it: a heap is one thing.
        symmetry: it looks the same, and what is done with it is the same, after each of so many parts of a full turn about the
            vertical; 0 where its turn says nothing.
        turned: the body whose turn is its own: a lid is turned as what it is hinged to, whose x axis stays level. Empty: `body`.
        small: it covers hardly any patch of a picture: the patch that shows most of it shows it.
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

    def named(self, text: str) -> Dict[Tuple[int, int], Tuple[str, ...]]:
        """Finds what a sentence names.

        The longest nouns of all things come first, and no letter belongs to two: the wine of the wine rack is no bottle.

        Args:
            text: The sentence.

        Returns:
            The characters [begin, end) of each name -> what it names: one thing, or several that have the noun in common (both
            plates). Of a thing that is named several times, the first name.
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
