"""Everything that ends motion from outside or from ourselves, looked at once a tick on monotonic time."""
from __future__ import annotations

import math
from typing import Tuple

from hybridvla_core.contracts import PolicyState
from hybridvla_core.safety.acceptance import Gate
from hybridvla_core.safety.config import RobotConfig
from hybridvla_core.safety.measured import MeasuredArms
from hybridvla_core.safety.reporting import Counters
from hybridvla_core.safety.status import Reason


class Watchdogs:
    """Reasons to hold, with a sentence on the first."""

    def __init__(self, config: RobotConfig, gate: Gate, arms: MeasuredArms, counters: Counters) -> None:
        self._config = config
        self._gate = gate
        self._arms = arms
        self._deadman_at = -math.inf
        self._counters = counters

    def on_deadman(self, pressed: bool, now: float) -> None:
        self._deadman_at = now if pressed else -math.inf

    def deadman_missing(self, now: float) -> bool:
        """Required, and released or silent."""
        return self._config.deadman_required and not 0.0 <= now - self._deadman_at <= self._config.watchdogs.deadman_s

    def look(self, now: float, gap: float, judge_measured: bool) -> Tuple[Reason, str]:
        """gap: seconds since the tick before. judge_measured: whether measured values count against their limits."""
        limits = self._config.watchdogs
        reasons, detail = self._arms.look(now, limits.joint_state_s, judge_measured)
        if gap < 0.0 or gap > limits.clock_gap_s:
            reasons |= Reason.CLOCK_JUMP
        if gap < 0.0 or gap > min(limits.clock_gap_s, 1.5 * self._config.dt):
            self._counters.add("overruns")
        if self.deadman_missing(now):
            reasons |= Reason.DEADMAN
        if self._gate.heartbeat_lost(now):
            reasons |= Reason.HEARTBEAT_LOST
        elif self._gate.policy_state == PolicyState.FAULT:
            reasons |= Reason.HEARTBEAT_LOST
            detail = detail or f"the policy reports a fault: {self._gate.policy_message}"
        return reasons, detail
