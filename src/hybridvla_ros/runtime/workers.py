"""A node's own threads: an unforeseen error becomes a named fault of the node, and never ends its work silently.

Every thread of a node begins here. Faults appear in the node's log, in its diagnostics and in its status.
"""
from __future__ import annotations

import threading
import traceback
from typing import Callable, Dict, List

import rospy

from hybridvla_core.waiting import Event

#: Called at every change with the sentence of all present faults, empty when there are none.
Listener = Callable[[str], None]


class Faults:
    """What has gone wrong in the workers of a process, by worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Held while a change is made and told, so that a listener never hears of an older state last. Reentrant: a listener may
        # report a fault itself.
        self._telling = threading.RLock()
        self._found: Dict[str, str] = {}
        self._listeners: List[Listener] = []

    def add(self, worker: str, text: str) -> None:
        """Adds a fault; it stays until `clear`."""
        self._change(lambda: self._found.__setitem__(worker, text))

    def clear(self, worker: str) -> None:
        """Forgets the fault of a worker that works again."""
        if worker in self._found:
            self._change(lambda: self._found.pop(worker, None))

    def listen(self, listener: Listener) -> None:
        """Has `listener` called with `problem`, at once if there is one, and whenever it changes."""
        with self._telling:
            self._listeners.append(listener)
            if self.problem:
                listener(self.problem)

    def _change(self, change: Callable[[], object]) -> None:
        with self._telling:
            before = self.problem
            with self._lock:
                change()
            if self.problem != before:
                for listener in list(self._listeners):
                    listener(self.problem)

    @property
    def problem(self) -> str:
        """Returns the sentence of all present faults, or an empty string."""
        with self._lock:
            return "; ".join(self._found.values())


#: Faults of this process, which is one node.
FAULTS = Faults()


def start_worker(name: str, work: Callable[..., None], *arguments: object) -> threading.Thread:
    """Starts a thread that ends with the process.

    Args:
        name: What the thread does, as a fault names it ("reading the pedal").
        work: Function run in the thread. An error that leaves it ends the thread and is a fault until the node is restarted.
        arguments: Arguments of `work`.

    Returns:
        The running thread.
    """
    def run() -> None:
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the work in silence
            if not _ending(error):
                FAULTS.add(name, f"{name} has ended: {described(error)}; start this node again")
                _log(name, error)
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


class Rate:
    """Calls at a rate of the computer's own clock until the node ends. A timer of rospy would stand still with `/clock`, and
    a timed wait of `threading` with a wall clock that was set back (hybridvla_core/waiting.py).

    An error in a call is a fault until a call succeeds; it does not end the calls.

    Args:
        seconds: Time between two calls, s.
        call: Function to call, on its own thread.
        name: What the calls do, as a fault names it.
    """

    def __init__(self, seconds: float, call: Callable[[], None], name: str) -> None:
        self._seconds, self._call, self._name = seconds, call, name
        self._ended = Event()
        start_worker(name, self._run)

    def end(self) -> None:
        """Ends the calls; does not wait for a running call."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds) and not rospy.core.is_shutdown_requested():
            try:
                self._call()
                FAULTS.clear(self._name)
            except Exception as error:  # noqa: BLE001  # it is said, and the next call may do better
                if _ending(error):
                    return
                fault = f"{self._name} fails: {described(error)}"
                if fault not in FAULTS.problem:
                    _log(self._name, error)
                FAULTS.add(self._name, fault)


def described(error: BaseException) -> str:
    """Returns an unforeseen error with its kind: its text alone may say nothing (`KeyError: 'a'`)."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _ending(error: BaseException) -> bool:
    """Tells whether the error only says that the node's end has closed its topics."""
    return isinstance(error, rospy.ROSException) and (rospy.core.is_shutdown_requested() or rospy.is_shutdown())


def _log(name: str, error: BaseException) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    rospy.logerr("%s: %s (%s, line %s)", name, described(error), place.filename.rsplit("/", 1)[-1], place.lineno)
