"""The dead-man switch as its publishers report it: a report "held" never overrules a report "released"."""
from __future__ import annotations

from typing import Dict, List, Tuple

RELEASED_S = 1.0     # a report "released" counts for this long: its node reports at 20 Hz, or is gone


class Deadman:
    """The last report of each publisher. Held: a fresh report says so, and none has said "released" within RELEASED_S.

    Args:
        fresh_s: Time for which a report that the button is held counts, s.
    """

    def __init__(self, fresh_s: float) -> None:
        self._fresh_s, self._kept_s = fresh_s, max(fresh_s, RELEASED_S)
        self._words: Dict[str, Tuple[bool, float]] = {}

    def say(self, pressed: bool, now: float, publisher: str) -> None:
        """Takes a report. now: monotonic s. publisher: the node's name."""
        self._words = {name: word for name, word in self._words.items() if now - word[1] <= self._kept_s}
        self._words[publisher] = (pressed, now)

    def _saying(self, pressed: bool, now: float) -> List[str]:
        return [name for name, (said, at) in self._words.items()
                if said is pressed and (0.0 <= now - at <= self._fresh_s if pressed else now - at <= RELEASED_S)]

    def held(self, now: float) -> bool:
        """Returns whether the button is held now."""
        return bool(self._saying(True, now)) and not self._saying(False, now)

    def disagreement(self, now: float) -> str:
        """Names the publishers that report "held" and those that report "released"; empty if they agree."""
        held, released = self._saying(True, now), self._saying(False, now)
        if not held or not released:
            return ""
        return (f"two nodes publish the deadman: by {', '.join(map(repr, held))} it is held, by "
                f"{', '.join(map(repr, released))} released; end one of them")

    def publishers(self, now: float) -> List[str]:
        """Returns the publishers that have reported lately."""
        return sorted(name for name, (_, at) in self._words.items() if now - at <= self._kept_s)
