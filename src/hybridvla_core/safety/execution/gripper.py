"""Gripper commands: sent only on change, with hysteresis, one at a time, each with a deadline, never faster than allowed."""
from __future__ import annotations

import math
from typing import Optional

from hybridvla_core.contracts import GripperState
from hybridvla_core.robots.arm import GripperConfig
from hybridvla_core.safety.execution.gripper_stream import GripperRamp

#: Fingers within this distance of where they were under the last command have not been moved since.
KEPT = 0.05


class GripperSequencer:
    """Commands one gripper. Openings range from 0 closed to 1 open; times are monotonic seconds."""

    def __init__(self, config: GripperConfig, dt: float) -> None:
        self._config = config
        self._stream = GripperRamp(config, dt)
        self.command: Optional[float] = None
        self._wanted: Optional[float] = None
        self._since = float("-inf")
        self._busy = False
        self._decided: Optional[float] = None       # last command really sent to a binary gripper, kept over a re-seed
        self._out: Optional[float] = None           # the last command sent, and where the fingers were under it
        self._under = math.nan
        self.failed = False

    @property
    def busy(self) -> bool:
        """Whether a command has been sent and has neither ended nor timed out."""
        return self._busy or self._wanted is not None and self.command != self._wanted

    @property
    def moving(self) -> bool:
        """Whether a streamed opening is on its way."""
        return self._stream.moving

    def restart(self, measured: float) -> None:
        """Forgets what was requested. A binary gripper's first command goes out whatever it is.

        The opening does not distinguish a gripper that holds something wide from an open one. A streamed gripper whose fingers
        nobody has moved keeps its last command, so that it does not drop what it holds.

        Args:
            measured: Measured opening, 0 closed to 1 open; NaN: unknown.
        """
        if self._config.binary:
            self.command = None
        elif abs(measured - self._under) <= KEPT:
            self.command = self._out
        else:
            self.command = None if math.isnan(measured) else measured
        self._stream.restart(self.command)
        self._wanted, self._busy, self.failed = None, False, False

    def want(self, opening: float) -> None:
        """Requests an opening; ignored if hysteresis or deadband say that it is the present one."""
        opening = min(max(opening, 0.0), 1.0)
        if self._config.binary:
            opening = self._decide(opening)
            if self.failed and opening == self.command:     # requested again: it is sent again
                self.command = None
        elif self.command is not None and not self._stream.moving and abs(opening - self.command) < self._config.deadband:
            self._wanted = None     # only at rest: a gripper on its way would come to rest elsewhere
            return
        self._wanted = opening

    def sent(self, measured: float) -> None:
        """Notes that this tick's command goes out, with the gripper at `measured` (NaN: unknown); not called in a dry run."""
        self._out, self._under = self.command, measured
        if self.command is not None:
            self._decided = self.command

    def cancel(self) -> None:
        """Drops a request that has not been sent yet."""
        self._wanted = None

    def tick(self, now: float, state: GripperState) -> Optional[float]:
        """Returns the command due now, or None."""
        if self._busy:
            waited = now - self._since
            if waited >= self._config.deadline_s:
                self._busy, self.failed = False, state in (GripperState.MOVING, GripperState.FAILED)
            elif waited >= self._config.minimum_wait_s and state in (GripperState.DONE, GripperState.FAILED):
                self._busy, self.failed = False, state == GripperState.FAILED
        if self._wanted == self.command and not self._stream.moving:
            self._wanted = None
        if self._wanted is None and not self._stream.moving:
            return None
        if self._config.binary or self.command is None:
            if self._busy:
                return None
            self.command = self._wanted
            if not self._config.binary:
                self._stream.restart(self.command)
        else:
            self.command = self._stream.advance(self._wanted)
        self._busy, self._since, self.failed = True, now, False
        return self.command

    def _decide(self, opening: float) -> float:
        if opening <= self._config.close_below:
            return 0.0
        last = self.command if self.command is not None else self._decided
        if opening >= self._config.open_above or last is None:
            return 1.0 if opening >= 0.5 or opening >= self._config.open_above else 0.0
        return last
