"""The filter as slower work of an adapter uses it: asks whether something may move, makes it stop, lets it go on.

Every stop and every deactivation of the node passes through here and is counted, so that the last one wins: a request that is
still being repeated, or that has work to do before it moves anything, gives up when one has come after it.
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
    """What came of a deactivation.

    Attributes:
        problem: Why the filter is not inactive; empty when it is.
        ends: How many stops and deactivations there were with this one; more of them are later ones.
        followed: Until then the policy was followed; one that was on its way to inactive already was not.
    """

    problem: str
    ends: int
    followed: bool


class FilterHandle:
    """Calls may block; never from the control thread. lock: the one that serialises the filter's calls."""

    def __init__(self, safety: SafetyFilter, lock: ContextManager[bool]) -> None:
        self._filter, self._lock = safety, lock
        self._ends = 0

    @property
    def state(self) -> State:
        """Returns the filter's state."""
        return self._filter.state

    @property
    def dry_run(self) -> bool:
        """Tells whether the filter computes everything and commands nothing."""
        return self._filter.dry_run

    @property
    def ends(self) -> int:
        """Returns how many stops and deactivations there were; a request remembers it when it comes in."""
        return self._ends

    # What ends motion ----------------------------------------------------------------------------------------------

    def stop(self, reason: Reason = Reason.OPERATOR, detail: str = "") -> Answer:
        """Decelerates and holds until `resume`. reason, detail: who or what stops, for the status."""
        with self._lock:
            self._ends += 1
            return self._filter.stop(time.monotonic(), reason, detail)

    def let_go(self) -> Answer:
        """Brakes the arms and forbids motion. Returns at once, unless the arms are still braking after a stop."""
        with self._lock:
            self._ends += 1
        return self._repeated(lambda now: self._filter.activate(False, now), lambda: False)

    def deactivate(self) -> Deactivated:
        """Brakes and waits until the filter is inactive."""
        with self._lock:
            self._ends += 1
            ends, followed = self._ends, self._filter.follows
            self._filter.activate(False, time.monotonic())
        deadline = time.monotonic() + PATIENCE_S
        while self.state != State.INACTIVE and time.monotonic() < deadline:
            time.sleep(0.02)
        problem = "" if self.state == State.INACTIVE else f"the filter is {self.state.name}; call resume first"
        return Deactivated(problem, ends, followed)

    # What leads to motion ------------------------------------------------------------------------------------------

    def activate(self, since: Optional[int] = None) -> Answer:
        """Activates the filter once the arms rest. since: as in `patiently`."""
        return self.patiently(lambda now: self._filter.activate(True, now), since)

    def patiently(self, call: Callable[[float], Answer], since: Optional[int] = None) -> Answer:
        """Repeats a call that needs resting arms while they still settle after what moved them.

        Args:
            call: Of the filter; takes monotonic s.
            since: `ends` when the request came in, where it did not come in just now. A later stop or deactivation wins.

        Returns:
            The last answer; False and MEANWHILE where one has won.
        """
        ends = self._ends if since is None else since
        return self._repeated(call, lambda: self._ends != ends)

    def _repeated(self, call: Callable[[float], Answer], outdated: Callable[[], bool]) -> Answer:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with self._lock:       # of the look and of the attempt, so that no stop comes between them
                if outdated():
                    return False, MEANWHILE
                now = time.monotonic()
                done, message = call(now)
                moving = self._filter.moving(now)
            if done or not moving or now > deadline:
                return done, message
            time.sleep(0.05)

    def forbids(self, since: Optional[int] = None) -> str:
        """Says why nothing but the filter may move the arms now; empty when it may. since: as in `patiently`."""
        if since is not None and self._ends != since:
            return MEANWHILE
        if self.dry_run:
            return NOT_DRY
        if self.state != State.INACTIVE:
            return f"the filter is {self.state.name}"
        with self._lock:
            return self._filter.deadman_problem(time.monotonic())

    def go_to_start(self, since: int) -> Answer:
        """Moves by the filter's own slow way to the start joints, for a robot commanded by joints; returns at its end.

        Args:
            since: `ends` of the deactivation before it.

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
