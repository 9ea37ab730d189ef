"""Timed waits by the clock that nobody sets.

Before Python 3.10 a timed wait of `threading` (an event, a condition, a lock, a thread's end) waits by the wall clock: set back
by an hour, it stands still for an hour. ROS Noetic has 3.8. What is here waits on a pipe, or by short sleeps, which are measured
by the monotonic clock in every version.
"""
from __future__ import annotations

import os
import select
import threading
import time
from typing import Callable, List

#: Between two looks of `wait_until`, s.
LOOK_S = 0.005


class Bell:
    """Wakes the one thread that waits for it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._rung = False

    def __del__(self) -> None:
        os.close(self._read)
        os.close(self._write)

    def ring(self) -> None:
        """Wakes who waits, or will wait."""
        if not self._rung:
            self._rung = True
            os.write(self._write, b"!")

    def silence(self) -> None:
        """Forgets that it was rung. Under the lock that `ring` is called under."""
        if self._rung:
            os.read(self._read, 1)
            self._rung = False

    def wait(self, seconds: float) -> bool:
        """Waits until it is rung, at most `seconds`; returns whether it was."""
        return bool(select.select([self._read], [], [], max(0.0, seconds))[0])


class Condition:
    """As `threading.Condition`: `wait_for` and `notify_all` are called with it held (`with condition:`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: List[Bell] = []
        self._spare: List[Bell] = []        # a wait needs a pipe of its own, and making one takes longer than using one

    def __enter__(self) -> Condition:
        self._lock.acquire()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()

    def notify_all(self) -> None:
        """Has everybody who waits look again."""
        for bell in self._waiting:
            bell.ring()

    def wait_for(self, predicate: Callable[[], bool], seconds: float) -> bool:
        """Waits until something holds.

        Args:
            predicate: What it is; looked at with the condition held, at once and after every `notify_all`.
            seconds: The longest wait.

        Returns:
            Whether it holds.
        """
        end = time.monotonic() + seconds
        while not predicate():
            left = end - time.monotonic()
            if left <= 0.0:
                return False
            self._wait(left)
        return True

    def _wait(self, seconds: float) -> None:
        bell = self._spare.pop() if self._spare else Bell()
        self._waiting.append(bell)
        self._lock.release()
        try:
            bell.wait(seconds)
        finally:
            self._lock.acquire()
            self._waiting.remove(bell)
            bell.silence()
            self._spare.append(bell)


class Event:
    """As `threading.Event`."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._set = False

    def is_set(self) -> bool:
        """Returns whether it has happened."""
        return self._set

    def set(self) -> None:
        """Says that it has happened; whoever waits is woken."""
        with self._condition:
            self._set = True
            self._condition.notify_all()

    def clear(self) -> None:
        """Forgets it."""
        self._set = False

    def wait(self, seconds: float) -> bool:
        """Waits until it has happened, at most `seconds`; returns whether it has."""
        with self._condition:
            return self._condition.wait_for(self.is_set, seconds)


def wait_until(predicate: Callable[[], bool], seconds: float) -> bool:
    """Looks every few milliseconds, for what tells nobody: a thread's end, a lock that is free.

    Args:
        predicate: What is waited for. Its last look is the answer, so it may take a lock.
        seconds: The longest wait; it looks at least once.

    Returns:
        Whether it came to hold.
    """
    end = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() >= end:
            return False
        time.sleep(LOOK_S)
    return True
