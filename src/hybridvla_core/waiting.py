"""Timed waits by the monotonic clock.

Before Python 3.10, a timed wait of `threading` (an event, a condition, a lock, a thread's end) uses the wall clock: if that
clock is set back by an hour, the wait blocks for an hour. ROS Noetic has 3.8. The classes here wait on a pipe, or by short
sleeps, which use the monotonic clock in every version.
"""
from __future__ import annotations

import os
import select
import threading
import time
from typing import Callable, List

#: Time between two checks of `wait_until`, s.
LOOK_S = 0.005


class Bell:
    """Bell that wakes the one thread waiting for it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._rung = False

    def __del__(self) -> None:
        os.close(self._read)
        os.close(self._write)

    def ring(self) -> None:
        """Wakes the thread that waits or will wait."""
        if not self._rung:
            self._rung = True
            os.write(self._write, b"!")

    def silence(self) -> None:
        """Resets the bell. Call it under the same lock as `ring`."""
        if self._rung:
            os.read(self._read, 1)
            self._rung = False

    def wait(self, seconds: float) -> bool:
        """Waits at most `seconds` for the bell; returns whether it rang."""
        return bool(select.select([self._read], [], [], max(0.0, seconds))[0])


class Condition:
    """Condition like `threading.Condition`: call `wait_for` and `notify_all` while holding it (`with condition:`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: List[Bell] = []
        self._spare: List[Bell] = []        # each wait needs its own pipe, and making one takes longer than using it

    def __enter__(self) -> Condition:
        self._lock.acquire()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()

    def notify_all(self) -> None:
        """Makes all waiting threads check again."""
        for bell in self._waiting:
            bell.ring()

    def wait_for(self, predicate: Callable[[], bool], seconds: float) -> bool:
        """Waits until a predicate holds.

        Args:
            predicate: Called with the condition held, at once and after every `notify_all`.
            seconds: The longest wait.

        Returns:
            Whether the predicate holds.
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
    """Event like `threading.Event`."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._set = False

    def is_set(self) -> bool:
        """Returns whether the event is set."""
        return self._set

    def set(self) -> None:
        """Sets the event and wakes all waiting threads."""
        with self._condition:
            self._set = True
            self._condition.notify_all()

    def clear(self) -> None:
        """Clears the event."""
        self._set = False

    def wait(self, seconds: float) -> bool:
        """Waits at most `seconds` for the event; returns whether it is set."""
        with self._condition:
            return self._condition.wait_for(self.is_set, seconds)


def wait_until(predicate: Callable[[], bool], seconds: float) -> bool:
    """Polls every few milliseconds for something that sends no notification: a thread's end, a free lock.

    Args:
        predicate: Condition to wait for. Its last call gives the answer, so it may take a lock.
        seconds: The longest wait; the predicate is called at least once.

    Returns:
        Whether the predicate came to hold.
    """
    end = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() >= end:
            return False
        time.sleep(LOOK_S)
    return True
