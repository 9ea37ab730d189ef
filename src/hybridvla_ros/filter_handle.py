"""The filter as seen by an adapter's slower work: asks whether something may move, stops the filter, lets it go on.

Every stop and every deactivation of the node passes through here and is counted, so that the last one wins. A request that is
still being repeated, or that has work to do before it moves anything, gives up when a stop or deactivation came after it.
"""
from __future__ import annotations

import time
from typing import Callable, ContextManager, NamedTuple, Optional, Tuple

from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.status import NOT_DRY, Reason, State

PATIENCE_S = 3.0
HOMING_S = 90.0
MEANWHILE = "stopped meanwhile: a stop or a deactivation came after this call"

Answer = Tuple[bool, str]


class Deactivated(NamedTuple):
    """Result of a deactivation.

    Attributes:
        problem: Why the filter is not inactive; empty when it is.
        ends: Number of stops and deactivations so far, including this one unless it was refused; a higher count means that later
            ones followed.
        followed: Whether the policy was followed until then; False if the filter was already on its way to inactive.
    """

    problem: str
    ends: int
    followed: bool


class FilterHandle:
    """Calls may block: never call from the control thread. lock: the lock that serialises the filter's calls."""

    def __init__(self, safety: SafetyFilter, lock: ContextManager[bool]) -> None:
        self._filter, self._lock = safety, lock
        self._ends = 0

    @property
    def state(self) -> State:
        """Returns the filter's state."""
        return self._filter.state

    @property
    def dry_run(self) -> bool:
        """Tells whether the filter computes everything but commands nothing."""
        return self._filter.dry_run

    @property
    def ends(self) -> int:
        """Returns the number of stops and deactivations so far; a request remembers it on arrival."""
        return self._ends

    # What ends motion ----------------------------------------------------------------------------------------------

    def stop(self, reason: Reason = Reason.OPERATOR, detail: str = "") -> Answer:
        """Decelerates and holds until `resume`. reason, detail: who or what stops the arms, for the status."""
        with self._lock:
            self._ends += 1
            return self._filter.stop(time.monotonic(), reason, detail)

    def let_go(self) -> Answer:
        """Brakes the arms and forbids motion. Returns at once, unless the arms are still braking after a stop."""
        with self._lock:
            self._ends += 1
        return self._repeated(lambda now: self._filter.activate(False, now), lambda: False)

    def deactivate(self) -> Deactivated:
        """Brakes and waits until the filter is inactive. Refused while it is STOPPED: it then goes on holding the arms."""
        with self._lock:
            if self.state == State.STOPPED:
                return Deactivated(self._call_resume(), self._ends, False)
            self._ends += 1
            ends, followed = self._ends, self._filter.follows
            self._filter.activate(False, time.monotonic())
        deadline = time.monotonic() + PATIENCE_S
        while self.state != State.INACTIVE and time.monotonic() < deadline:
            time.sleep(0.02)
        return Deactivated("" if self.state == State.INACTIVE else self._call_resume(), ends, followed)

    def _call_resume(self) -> str:
        return f"the filter is {self.state.name}; call resume first"

    # What leads to motion ------------------------------------------------------------------------------------------

    def activate(self, since: Optional[int] = None) -> Answer:
        """Activates the filter once the arms are at rest. since: see `patiently`."""
        return self.patiently(lambda now: self._filter.activate(True, now), since)

    def patiently(self, call: Callable[[float], Answer], since: Optional[int] = None) -> Answer:
        """Repeats a call that needs arms at rest while they still settle after a motion.

        Args:
            call: Call to the filter; takes monotonic time, s.
            since: Value of `ends` when the request came in, unless it came in just now. A later stop or deactivation wins.

        Returns:
            The last answer; False and MEANWHILE where a later stop or deactivation won.
        """
        ends = self._ends if since is None else since
        return self._repeated(call, lambda: self._ends != ends)

    def _repeated(self, call: Callable[[float], Answer], outdated: Callable[[], bool]) -> Answer:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with self._lock:       # covers both check and attempt, so that no stop comes between them
                if outdated():
                    return False, MEANWHILE
                now = time.monotonic()
                done, message = call(now)
                moving = self._filter.moving(now)
            if done or not moving or now > deadline:
                return done, message
            time.sleep(0.05)

    def forbids(self, since: Optional[int] = None) -> str:
        """Says why only the filter may move the arms now; empty when others may. since: see `patiently`."""
        if since is not None and self._ends != since:
            return MEANWHILE
        if self.dry_run:
            return NOT_DRY
        if self.state != State.INACTIVE:
            return f"the filter is {self.state.name}"
        with self._lock:
            return self._filter.deadman_problem(time.monotonic())

    def go_to_start(self, since: int) -> Answer:
        """Moves to the start joints by the filter's own slow motion, for a robot commanded by joints; returns when it ends.

        Args:
            since: Value of `ends` of the deactivation before it.

        Returns:
            Whether the arms got there, and a sentence.
        """
        done, message = self.patiently(self._filter.go_to_start, since)
        if not done:
            return done, message
        deadline = time.monotonic() + HOMING_S
        while self.state == State.RECOVERING and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.state == State.RECOVERING:
            self.deactivate()
            return False, f"the arms did not reach their start joints within {HOMING_S:.0f} s; is the deadman held?"
        if self._filter.homed:
            return True, "at the start joints"
        return False, f"the way to the start joints ended early: {self._filter.detail or self.state.name}"
