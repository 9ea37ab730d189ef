"""Named counts since start."""
from __future__ import annotations

import collections
from typing import Counter

#: Told from the start on, as 0; others are told once they have happened.
ALWAYS = ("accepted", "holds", "stops", "reseeds", "reposes", "overruns", "target_violations", "measured_violations")


def new_counters() -> Counter[str]:
    """Returns the counts of a filter that has just started; a name that was never counted counts as 0."""
    return collections.Counter(dict.fromkeys(ALWAYS, 0))
