"""Says who published a message, and picks one publisher where there are two."""
from __future__ import annotations

import math
from typing import Dict, Optional

#: A publisher that has been silent for longer than this has ended, s.
SILENT_S = 2.0


def source_of(message: object) -> str:
    """Returns the name of the node that sent a message; empty where it is not known, as for a message from a bag."""
    header: Optional[Dict[str, str]] = getattr(message, "_connection_header", None)
    return (header or {}).get("callerid", "")


class OneSource:
    """Accepts what one node publishes and nothing from a second one: the values of two nodes are never mixed.

    Args:
        what: What is published, for the sentence.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._owner = self._other = ""
        self._owner_at = self._other_at = -math.inf

    def takes(self, source: str, now: float) -> bool:
        """Tells whether a message of this node counts. source: its name, empty where it is not known. now: s."""
        if not source or source == self._owner or now - self._owner_at > SILENT_S:
            self._owner, self._owner_at = source, now
            return True
        self._other, self._other_at = source, now
        return False

    def begins_anew(self, source: str, now: float, silence: float) -> bool:
        """Tells, before `takes`, if a message follows a silence, s, or comes from another node; False for the first message."""
        return math.isfinite(self._owner_at) and (source != self._owner or now - self._owner_at > silence)

    def problem(self, now: float) -> str:
        """Names both publishers while there are two; an empty string otherwise."""
        if now - self._other_at > SILENT_S or self._other == self._owner:
            return ""
        return f"{self._what} are published by {self._owner} and by {self._other}; end one of them"
