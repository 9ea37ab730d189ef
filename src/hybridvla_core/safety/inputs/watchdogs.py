"""All watchdogs that end motion, for causes outside or within the filter, checked once a tick on monotonic time."""
from __future__ import annotations

import math
from collections import deque
from typing import Counter, Deque, Dict, Optional, Tuple

from hybridvla_core.contracts import PolicyState
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.inputs.acceptance import ProposalGate
from hybridvla_core.safety.inputs.clock_watch import ClockWatch
from hybridvla_core.safety.inputs.deadman import Deadman
from hybridvla_core.safety.inputs.measured_arms import MeasuredArms
from hybridvla_core.safety.status import Reason

OVERRUNS = 10        # this many late ticks ...
OVERRUN_S = 1.0      # ... within this time are reported in the status
DRAIN_S = 0.15       # after the filter itself paused, old messages leave the queues for this long and are ignored


class Watchdogs:
    """Finds reasons to hold, with a sentence on the first. `deadman`: the reports on the dead-man switch."""

    def __init__(self, config: RobotConfig, gate: ProposalGate, arms: MeasuredArms, counters: Counter[str],
                 clock: ClockWatch) -> None:
        self._config = config
        self._gate = gate
        self._arms = arms
        self._counters = counters
        self._clock = clock
        self.deadman = Deadman(config.watchdogs.deadman_s)
        self._tick_at: Optional[float] = None
        self._deaf_until = -math.inf
        self._outside: Dict[Reason, str] = {}
        self._late: Deque[float] = deque(maxlen=OVERRUNS)

    def deadman_missing(self, now: float) -> bool:
        """Returns whether the dead-man switch is required, and released or silent."""
        return self._config.deadman_required and not self.deadman.held(now)

    def hold_for(self, reason: Reason, text: str) -> None:
        """Ends motion for a cause outside the filter, until this is called again without a text."""
        if text:
            self._outside[reason] = text
        else:
            self._outside.pop(reason, None)

    def paused(self, now: float) -> bool:
        """Returns whether the filter has just been paused, so that messages arriving now may have been sent long ago."""
        late = self._tick_at is not None and now - self._tick_at > self._config.watchdogs.clock_gap_s
        return late or now < self._deaf_until

    def look(self, now: float, clock: Optional[float], judge_measured: bool, resting: bool) -> Tuple[Reason, str]:
        """Checks everything that has to arrive in time.

        Args:
            now: Monotonic time, s.
            clock: ROS time, s, if there is one.
            judge_measured: Whether measured values are checked against their limits.
            resting: Whether the command rests.

            Returns:
                Flags of what is wrong, and a sentence on the first fault.
        """
        reasons, detail = self._arms.look(now, judge_measured, resting)
        problem = self._gap(now) or (self._clock.look(clock, now) if clock is not None else "")
        if problem:
            reasons |= Reason.CLOCK_JUMP
            detail = detail or f"{problem}; waiting for a new proposal"
            self._gate.forget_stamp()
        for reason, text in self._outside.items():
            reasons |= reason
            detail = detail or text
        if len(self._late) == OVERRUNS and 0.0 <= now - self._late[0] <= OVERRUN_S:
            reasons |= Reason.TICK_OVERRUN
        if self.deadman_missing(now):
            reasons |= Reason.DEADMAN
            detail = detail or self.deadman.disagreement(now)
        if self._gate.heartbeat_lost(now):
            reasons |= Reason.HEARTBEAT_LOST
        elif self._gate.policy_state == PolicyState.FAULT:
            reasons |= Reason.HEARTBEAT_LOST
            detail = detail or f"the policy reports a fault: {self._gate.policy_message}"
        second = self._gate.second_publisher(now)
        if second:
            reasons |= Reason.SECOND_PUBLISHER
            detail = detail or f"{second}; stop one of them"
        return reasons, detail

    def _gap(self, now: float) -> str:
        gap = 0.0 if self._tick_at is None else now - self._tick_at
        self._tick_at = now
        longest = self._config.watchdogs.clock_gap_s
        if gap < 0.0 or gap > min(longest, 1.5 * self._config.dt):
            self._counters["overruns"] += 1
            self._late.append(now)
        if 0.0 <= gap <= longest:
            return ""
        self._deaf_until = now + DRAIN_S
        return f"the filter was paused for {gap:.2f} s" if gap > 0.0 else "the filter's clock went back"
