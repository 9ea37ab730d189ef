"""Named counts since start."""
from __future__ import annotations

import collections
from typing import Counter

#: Reported from the start, as 0; other names are reported once they have happened.
ALWAYS = ("accepted", "holds", "stops", "reseeds", "reposes", "overruns", "target_violations", "measured_violations")


def new_counters() -> Counter[str]:
    """Returns the counters of a filter that has just started; a name that was never counted reads 0."""
    return collections.Counter(dict.fromkeys(ALWAYS, 0))
