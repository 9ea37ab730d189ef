"""The filter as slower work of an adapter uses it: asks whether something may move, makes it stop, lets it go on."""
from __future__ import annotations

import time
from typing import Callable, ContextManager, Tuple

from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.status import State

PATIENCE_S = 3.0
HOMING_S = 90.0


class FilterHandle:
    """Calls may block; never from the control thread. lock: the one that serialises the filter's calls."""

    def __init__(self, safety: SafetyFilter, lock: ContextManager[bool]) -> None:
        self._filter, self._lock = safety, lock

    @property
    def state(self) -> State:
        """Returns the filter's state."""
        return self._filter.state

    @property
    def dry_run(self) -> bool:
        """Tells whether the filter computes everything and commands nothing."""
        return self._filter.dry_run

    def deactivate(self) -> str:
        """Brakes and makes the filter inactive; returns a sentence when it is not so after a while."""
        with self._lock:
            self._filter.activate(False, time.monotonic())
        deadline = time.monotonic() + PATIENCE_S
        while self.state != State.INACTIVE and time.monotonic() < deadline:
            time.sleep(0.02)
        return "" if self.state == State.INACTIVE else f"the filter is {self.state.name}; call resume first"

    def activate(self) -> Tuple[bool, str]:
        """Activates the filter once the arms rest."""
        return self.patiently(lambda now: self._filter.activate(True, now))

    def patiently(self, call: Callable[[float], Tuple[bool, str]]) -> Tuple[bool, str]:
        """Repeats a call that needs resting arms while they still settle after what moved them."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with self._lock:
                now = time.monotonic()
                done, message = call(now)
                moving = self._filter.moving(now)
            if done or not moving or now > deadline:
                return done, message
            time.sleep(0.05)

    def forbids(self) -> str:
        """Says why nothing but the filter may move the arms now; empty when it may."""
        if self.dry_run:
            return "this is a dry run: nothing is commanded"
        if self.state != State.INACTIVE:
            return f"the filter is {self.state.name}"
        if self._filter.deadman_missing(time.monotonic()):
            return "the deadman is released or silent"
        return ""

    def go_to_start(self) -> Tuple[bool, str]:
        """Moves by the filter's own slow way to the start joints, for a robot commanded by joints; returns at its end."""
        if self.dry_run:
            return False, "this is a dry run: nothing is commanded"
        done, message = self.patiently(self._filter.go_to_start)
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
