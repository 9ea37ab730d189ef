"""Observation sync: finds the newest set of images whose stamps are close together, and says who is missing without one."""
from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Deque, Dict, Generic, Mapping, Optional, Sequence, Tuple, TypeVar

from hybridvla_core.waiting import Condition
from hybridvla_ros.observation.camera_health import CameraHealth

MessageT = TypeVar("MessageT")
#: Stamp, ns, and the message with it.
Entry = Tuple[int, MessageT]
#: The messages of each view, in the order of their stamps.
Queues = Mapping[str, Sequence[Entry[MessageT]]]
#: A fast camera's frames are kept for this time, ns: if its clock is ahead, only older frames match the arms' states ...
KEEP_NS = 500_000_000
#: ... but never more than this many of any camera.
MOST = 40


@dataclass(frozen=True)
class ImageSet(Generic[MessageT]):
    """One message per view.

    Attributes:
        messages: Messages by view.
        stamp_ns: Stamp of the oldest message, ns.
        spread: Newest minus oldest, s.
    """

    messages: Mapping[str, MessageT]
    stamp_ns: int
    spread: float


class CameraSync(Generic[MessageT]):
    """Keeps the last messages of each view. Stamps are the drivers'; `now` is the clock with which they are compared.

    max_spread, max_age: s. depth: least number of messages kept of each view; more of a fast view, KEEP_S of it. health: by view,
    see camera_health.py. Thread safe.
    """

    def __init__(self, views: Sequence[str], max_spread: float, max_age: float, depth: int = 10) -> None:
        self.views, self.max_spread, self.max_age = tuple(views), max_spread, max_age
        self._queues: Dict[str, Deque[Entry[MessageT]]] = {view: deque(maxlen=MOST) for view in views}
        self._depth = depth
        self.health: Dict[str, CameraHealth] = {view: CameraHealth() for view in views}
        self._changed = Condition()
        self._news = 0

    @property
    def received(self) -> Dict[str, int]:
        """Returns the number of messages so far, by view."""
        return {view: health.received for view, health in self.health.items()}

    def add(self, view: str, stamp_ns: int, message: MessageT, sequence: Optional[int] = None,
            arrival_ns: Optional[int] = None) -> None:
        """Takes a message; one that goes back in time (a looping bag, a restarted driver) empties the view first.

        Args:
            view: View of the camera.
            stamp_ns: Stamp of the image, ns.
            message: The image.
            sequence: The publisher's sequence number, to count what the network lost.
            arrival_ns: When it came, on the clock of `now`, ns; it tells a camera with a wrong clock from a silent one.
        """
        with self._changed:
            queue = self._queues[view]
            self.health[view].add(stamp_ns, sequence, arrival_ns)
            if queue and stamp_ns < queue[-1][0]:
                queue.clear()
            queue.append((stamp_ns, message))
            while len(queue) > self._depth and stamp_ns - queue[0][0] > KEEP_NS:
                queue.popleft()
            self._news += 1
            self._changed.notify_all()

    @property
    def period_s(self) -> float:
        """Returns the usual time between two frames of the fastest view, s; 0 before it is known."""
        with self._changed:
            return min((health.period_s for health in self.health.values() if health.period_s), default=0.0)

    def wake(self) -> None:
        """Wakes waiters: something else has come that they may need, such as an arm's state."""
        with self._changed:
            self._news += 1
            self._changed.notify_all()

    def clear(self) -> None:
        """Forgets all images: the clock was set back."""
        with self._changed:
            for queue in self._queues.values():
                queue.clear()

    @property
    def news(self) -> int:
        """Returns a count that grows with every message and every `wake`; read it before looking, and `wait` misses nothing."""
        return self._news

    def wait(self, timeout: float, news: Optional[int] = None) -> bool:
        """Waits at most `timeout` s until something has come (since `news`, or from now on); returns whether it has."""
        with self._changed:
            before = self._news if news is None else news
            return self._changed.wait_for(lambda: self._news != before, timeout)

    def latest(self, now: float, until_ns: Optional[int] = None) -> Tuple[Optional[ImageSet[MessageT]], str]:
        """Finds the newest usable set.

        Args:
            now: ROS time, s.
            until_ns: Use only images stamped no later than this, ns.

        Returns:
            The set and an empty sentence; or None and a sentence that names the camera and what is wrong. The sentence is empty
            where a view has no image before `until_ns`.
        """
        with self._changed:
            problem = self._stale(now)
            if problem:
                return None, problem
            queues: Queues[MessageT] = self._queues
            if until_ns is not None:
                queues = {view: [entry for entry in queue if entry[0] <= until_ns] for view, queue in queues.items()}
                if not all(queues.values()):
                    return None, ""
            chosen = _nearest(queues, min(queue[-1][0] for queue in queues.values()))
            if _spread(chosen) > self.max_spread:
                chosen = self._tightest(queues, now) or chosen
            spread = _spread(chosen)
            if spread > self.max_spread:
                newest, oldest = (pick(chosen, key=lambda view: chosen[view][0]) for pick in (max, min))
                return None, (f"the cameras' images are {spread:.3f} s apart (limit {self.max_spread} s), camera {oldest} "
                              f"behind camera {newest}; check their rates and clocks")
            stamp = min(entry[0] for entry in chosen.values())
            return ImageSet({view: entry[1] for view, entry in chosen.items()}, stamp, spread), ""

    def _tightest(self, queues: Queues[MessageT], now: float) -> Optional[Dict[str, Entry[MessageT]]]:
        """Returns the newest set within the spread around any recent message: free-running cameras may pair up better there."""
        recent = sorted({entry[0] for queue in queues.values() for entry in queue
                         if now - entry[0] * 1e-9 <= self.max_age}, reverse=True)
        for stamp in recent:
            chosen = _nearest(queues, stamp)
            young = all(now - entry[0] * 1e-9 <= self.max_age for entry in chosen.values())
            if young and _spread(chosen) <= self.max_spread:
                return chosen
        return None

    def _stale(self, now: float) -> str:
        for view, queue in self._queues.items():
            if not queue:
                return f"camera {view}: no frame yet; check that it publishes"
            if not queue[-1][0]:
                return f"camera {view}: its frames carry no stamp; have its driver stamp them"
            age = now - queue[-1][0] * 1e-9
            if age > self.max_age:
                if self.health[view].silent_s(now) <= self.max_age:
                    return (f"camera {view}: frames arrive, but their stamps are {age:.1f} s behind this computer's "
                            "clock; synchronise the clocks or check the driver's time")
                return f"camera {view}: no frame for {age:.1f} s"
            if age < -self.max_age:
                return f"camera {view}: its stamps are {-age:.1f} s ahead of this computer's clock; synchronise the clocks"
        return ""


def _nearest(queues: Queues[MessageT], stamp_ns: int) -> Dict[str, Entry[MessageT]]:
    return {view: min(queue, key=lambda entry: abs(entry[0] - stamp_ns)) for view, queue in queues.items()}


def _spread(chosen: Mapping[str, Entry[MessageT]]) -> float:
    stamps = [entry[0] for entry in chosen.values()]
    return (max(stamps) - min(stamps)) * 1e-9
