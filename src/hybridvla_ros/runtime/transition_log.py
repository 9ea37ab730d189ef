"""One log line for each change of the filter's state, written outside the loop: a slow disk delays no tick."""
from __future__ import annotations

import queue
from typing import Optional

import rospy

from hybridvla_core.safety.status import SafetyStatus, State
from hybridvla_ros.runtime.workers import start_worker


class TransitionLog:
    """Writes `ACTIVE -> HOLDING: why` whenever the state of a status differs from the previous one."""

    def __init__(self) -> None:
        self._state: Optional[State] = None
        self._lines: queue.SimpleQueue = queue.SimpleQueue()       # of (State, sentence)
        start_worker("writing the log of transitions", self._write)

    def note(self, status: SafetyStatus) -> None:
        """Takes the status of a tick; returns at once."""
        before, self._state = self._state, status.state
        if before is not None and before != status.state:
            self._lines.put((status.state, f"{before.name} -> {status.state.name}: {status.message}"))

    def _write(self) -> None:
        while True:
            state, line = self._lines.get()
            write = {State.STOPPED: rospy.logerr, State.HOLDING: rospy.logwarn}.get(state, rospy.loginfo)
            write("%s", line)
