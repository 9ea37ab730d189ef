"""Observation sync: the newest set of images whose stamps lie close together, and who is missing when there is none."""
from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Deque, Dict, Mapping, Optional, Sequence, Tuple


@dataclass(frozen=True)
class ImageSet:
    """One message a view. stamp_ns: of the oldest; spread: newest minus oldest, s."""

    messages: Mapping[str, Any]
    stamp_ns: int
    spread: float


class CameraSync:
    """Keeps the last messages of each view. Stamps are the drivers'; `now` is the clock they are compared with.

    max_spread, max_age: s. Thread safe.
    """

    def __init__(self, views: Sequence[str], max_spread: float, max_age: float, depth: int = 10) -> None:
        self.views, self.max_spread, self.max_age = tuple(views), max_spread, max_age
        self._queues: Dict[str, Deque[Tuple[int, Any]]] = {view: deque(maxlen=depth) for view in views}
        self.received: Dict[str, int] = dict.fromkeys(views, 0)
        self._lock = threading.Lock()

    def add(self, view: str, stamp_ns: int, message: Any) -> None:
        """A new message; one that goes back in time (a looping bag, a restarted driver) empties the view first."""
        with self._lock:
            queue = self._queues[view]
            if queue and stamp_ns < queue[-1][0]:
                queue.clear()
            queue.append((stamp_ns, message))
            self.received[view] += 1

    def latest(self, now: float) -> Tuple[Optional[ImageSet], str]:
        """The newest usable set, or None and a sentence naming the camera and what is wrong."""
        with self._lock:
            problem = self._stale(now)
            if problem:
                return None, problem
            newest_possible = min(queue[-1][0] for queue in self._queues.values())
            chosen = {}
            for view, queue in self._queues.items():
                chosen[view] = min(queue, key=lambda entry: abs(entry[0] - newest_possible))
            stamps = [entry[0] for entry in chosen.values()]
            spread = (max(stamps) - min(stamps)) * 1e-9
            if spread > self.max_spread:
                return None, (f"the cameras' images are {spread:.3f} s apart (limit {self.max_spread} s); check their "
                              "rates and clocks")
            return ImageSet({view: entry[1] for view, entry in chosen.items()}, min(stamps), spread), ""

    def _stale(self, now: float) -> str:
        for view, queue in self._queues.items():
            if not queue:
                return f"camera {view}: no frame yet; check that it publishes"
            age = now - queue[-1][0] * 1e-9
            if age > self.max_age:
                return f"camera {view}: no frame for {age:.1f} s"
            if age < -self.max_age:
                return f"camera {view}: its stamps are {-age:.1f} s ahead of this computer's clock; synchronise the clocks"
        return ""
