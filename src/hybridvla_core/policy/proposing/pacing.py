"""When the next prediction may start: after the last action has been carried out, at once, or just before a chunk ends."""
from __future__ import annotations

import math
from collections import deque
from typing import Deque

from hybridvla_core.policy.config import PolicyConfig

#: Number of predictions whose durations decide how early the next must start; time added for delivery to the filter, s.
REMEMBERED, DELIVERY_S = 20, 0.02


class PredictionPacing:
    """The three ways of `PolicyConfig.execution`.

    blocking: waits for a keyframe until the filter reports it reached (or its timeout), for a chunk until its time is over.
    asynchronous: waits only for the rate; every proposal replaces the one before. overlap: starts the next prediction so early
    that it should arrive when the chunk ends, judged by the longest of the last predictions.
    Not thread safe; `Proposer` holds its lock around it.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._config, self._way = config, config.execution_way
        self._sequence = 0               # sequence of the awaited action; 0 when the next prediction may start
        self._since = self._length = 0.0
        self._reached = False
        self._durations: Deque[float] = deque(maxlen=REMEMBERED)
        # When the last keyframe was reached or the last chunk ends, and when that became known; on the clock of the stamps.
        self._reached_at = self._known_at = -math.inf

    def sent(self, sequence: int, now: float, clock: float, chunk: int, duration: float) -> None:
        """Notes that a proposal has left.

        Args:
            sequence: Sequence number of the proposal.
            now: Time at which it left, monotonic, s.
            clock: The same time on the clock of the stamps, s.
            chunk: Number of its steps.
            duration: Time since its prediction began, s.
        """
        self._durations.append(duration)
        self._length = chunk * self._config.convention.action_period_s
        self._since, self._reached = now, False
        self._sequence = 0 if self._way == "asynchronous" else sequence
        if self._way == "blocking" and not self._config.is_keyframe:
            self._reached_at, self._known_at = clock + self._length, clock

    def release(self, clock: float) -> None:
        """Stops waiting, because the instruction has changed. clock: time on the clock of the stamps, s."""
        self._sequence = 0
        # The rest of a chunk is not carried out: images from now on show the result.
        self._reached_at = min(self._reached_at, clock)

    def start_over(self) -> None:
        """Starts over after the clock of the stamps was set back: nothing is waited for, and no images are too old."""
        self._sequence = 0
        self._reached, self._reached_at, self._known_at = False, -math.inf, -math.inf

    def on_execution(self, ours: bool, sequence: int, at_target: bool, waiting: bool, now: float, clock: float) -> None:
        """Takes a report of the filter. ours: whether the filter executes a proposal of this policy's epoch."""
        if not self._sequence or not self._config.is_keyframe:
            return
        if ours and sequence == self._sequence:
            if at_target and not self._reached:
                self._reached, self._reached_at, self._known_at = True, clock, clock
            elif waiting and not at_target:
                self._sequence = 0  # dropped in a hold that has ended: continue from here
        elif now - self._since > self._config.acceptance_timeout_s:
            # The filter executes something else or nothing: this keyframe was refused or dropped.
            self._sequence = 0

    def shows_rest(self, stamp: float, clock: float) -> bool:
        """Returns whether images are from after the last keyframe or chunk; earlier images show the arm on its way.

        A clock that was set back (a looping bag) does not block.

        Args:
            stamp: Stamp of the images, s.
            clock: The present time on the same clock, s.

            Returns:
                True if they may be used.
        """
        return stamp >= self._reached_at or clock < self._known_at

    def waiting(self, now: float) -> str:
        """Returns why the next prediction has to wait; empty if it may start."""
        if self._sequence and not self._reached:
            if self._config.is_keyframe:
                if now - self._since < self._config.keyframe_timeout_s:
                    return f"waiting until keyframe {self._sequence} is reached"
            elif now - self._since < self._length - self._lead() - 1e-9:
                return f"waiting until chunk {self._sequence} is " + (
                    "nearly over" if self._way == "overlap" else "carried out")
        self._sequence = 0
        return ""

    def _lead(self) -> float:
        return max(self._durations) + DELIVERY_S if self._way == "overlap" else 0.0
