"""How much later than usual proposals come, by the clock of their sender."""
from __future__ import annotations

import math

from hybridvla_core.safety.inputs.measured_arm import DRIFT, SET_BACK_S


class Transit:
    """Watches (arrival - time of publishing) of one sender; needs no common clock. The least value so far counts as punctual.

    A sender publishes in the order of its sequence numbers. If its clock says otherwise, it was set back, and the watch begins
    anew. A step back that is shorter than the time between two proposals looks like a delay that stays.

    Args:
        watch: Whether the sender's clock runs with our own; not so with simulated time.
    """

    def __init__(self, watch: bool = True) -> None:
        self._watch = watch
        self.forget()

    def forget(self) -> None:
        """Begins anew: another sender, or a clock was set."""
        self._least, self._published, self._at = math.inf, -math.inf, -math.inf

    def late(self, published: float, now: float) -> float:
        """Takes a proposal.

        Args:
            published: Time of publishing by the sender's clock, s.
            now: Monotonic time of arrival, s.

        Returns:
            How much later than usual it came, s; 0 for the first.
        """
        delay = now - published
        allowed = self._least + DRIFT * max(0.0, now - self._at) if math.isfinite(self._least) else math.inf
        self._least = delay if published < self._published - SET_BACK_S else min(delay, allowed)
        self._published, self._at = published, now
        return delay - self._least if self._watch else 0.0
