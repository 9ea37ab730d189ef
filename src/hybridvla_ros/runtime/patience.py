"""Time limits of demonstrations and tests on a busy computer: limits grow with the load."""
from __future__ import annotations

import os

#: Limits grow at most by this factor.
MOST = 6.0


def slowness() -> float:
    """Returns how many processes shared a processor over the last minute, from 1 to MOST."""
    try:
        load = os.getloadavg()[0]
    except OSError:
        return 1.0
    return min(max(load / (os.cpu_count() or 1), 1.0), MOST)


def patience(seconds: float) -> float:
    """Returns a time limit, s, for what takes up to `seconds` on an idle computer."""
    return seconds * slowness()
