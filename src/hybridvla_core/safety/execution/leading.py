"""Slow motion led by the filter itself: back inside the limits, or to the start joints.

A way is complete when the arms, and not just their commands, are at its end: an arm that is blocked, or sags, by less than the
leash does not stop its command. "Inside" means the same as for `activate`. The start is reached like a keyframe, by the
tolerances of `at_target` for the measured tool, doubled after `settle_s`: a compliant arm is never exactly at its command.
"""
from __future__ import annotations

from typing import NamedTuple, Optional

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.execution import SETTLED, Execution
from hybridvla_core.safety.execution.homing import Homing
from hybridvla_core.safety.execution.reentry import Reentry, worst_violation
from hybridvla_core.safety.inputs.measured_arms import MeasuredArms
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import Goal
from hybridvla_core.safety.status import Reason

WAITS = (Reason.JOINT_STATE | Reason.DEADMAN | Reason.CLOCK_JUMP | Reason.MEASURED_LIMIT | Reason.OPERATOR | Reason.TCP_MISMATCH)
ON_THE_WAY = "on the way to the start joints"


class Led(NamedTuple):
    """The result of one tick.

    Attributes:
        moved: Whether the command has moved.
        ended: Whether the way is over, so that the filter has to be inactive, with these flags and this sentence.
        reasons: Flags of what is in the way.
        detail: A sentence on these reasons.
    """

    moved: bool
    ended: bool
    reasons: Reason
    detail: str


class Leading:
    """Leads the arms along at most one way at a time. `homed`: whether the last way to the start joints was completed."""

    def __init__(self, config: RobotConfig, motion: Motion, arms: MeasuredArms, execution: Execution) -> None:
        self._config, self._motion, self._arms, self._execution = config, motion, arms, execution
        self._reentry: Optional[Reentry] = None
        self._homing: Optional[Homing] = None
        self._settle_ticks = round(config.at_target.settle_s / config.dt)
        self._rested = 0                 # number of ticks for which the command has been at the end of its way
        self.homed = False

    def reenter(self) -> None:
        """Begins the way back inside; limits that are broken now may stay broken, but no further."""
        self._reentry, self._rested = Reentry(self._config, self._motion), 0
        self._arms.limits.relax(self._arms.joints)

    def go_to_start(self) -> str:
        """Begins the way from where the arms are to the start joints. The motion has to begin anew there before the first step.

        Returns:
            What is in the way, or an empty string.
        """
        homing = Homing(self._config, self._motion, self._arms.joints)
        if not homing.blocked:
            self._homing, self.homed, self._rested = homing, False, 0
            self._motion.lead(True)
        return homing.blocked

    def end(self) -> None:
        self._reentry = self._homing = None
        self._motion.relaxed = False
        self._motion.lead(False)
        self._arms.limits.relax(None)

    def step(self, reasons: Reason, detail: str, braking: bool) -> Led:
        """Makes one tick. reasons, detail: what the watchdogs saw; braking: whether the operator ends the way."""
        shown = Reason.OUTSIDE_AT_START if self._reentry is not None else Reason.NONE
        waits, guard = reasons & WAITS, self._execution.guard
        if guard.held and not braking:       # do not push the arm harder, whatever the filter waits for
            return Led(self._draw_back(), False, shown | waits | Reason.LEASH, (detail if waits else "") or guard.detail)
        if waits or braking:
            return Led(self._motion.step(None), False, shown | waits, detail)
        if self._reentry is not None:
            return self._reentry_step(self._reentry)
        return self._homing_step(self._homing) if self._homing is not None else Led(True, True, Reason.NONE, "")

    def _reentry_step(self, reentry: Reentry) -> Led:
        moved = reentry.step(self._config.reenter_scale)
        settled = self._settled(reentry.finished)
        left = worst_violation(self._motion, self._arms.joints if reentry.finished else None)
        if reentry.finished and not left:
            return Led(moved, True, Reason.NONE, "the arms are inside their limits")
        if settled:
            return Led(moved, True, Reason.OUTSIDE_AT_START, f"the way back was gone, and the arm did not follow: {left}; "
                                                             "free it, or tell the robot its payload")
        if reentry.stuck and not reentry.finished:
            return Led(moved, True, Reason.OUTSIDE_AT_START, f"no way back inside was found, {left}; move the arm by hand")
        return Led(moved, False, Reason.OUTSIDE_AT_START, left)

    def _homing_step(self, homing: Homing) -> Led:
        moved = homing.step(self._config.reenter_scale)
        settled = self._settled(homing.finished)
        if homing.finished:
            end = Goal(self._motion.positions, self._motion.rotations)
            self.homed = self._execution.measured_near(end, SETTLED if settled else 1.0)
            if self.homed:
                return Led(moved, True, Reason.NONE, "")
            if settled:
                return Led(moved, True, Reason.LEASH, self._execution.short(end))
        elif homing.stuck:
            return Led(moved, True, Reason.COLLISION, "something came in the way to the start joints")
        return Led(moved, False, Reason.NONE, ON_THE_WAY)

    def _settled(self, finished: bool) -> bool:
        """Counts a tick; returns whether arms that follow have had time to reach the end of the way."""
        self._rested = self._rested + 1 if finished else 0
        return self._rested > self._settle_ticks

    def _draw_back(self) -> bool:
        """Draws the command back towards an arm that does not follow, until what holds the arm is gone."""
        self._motion.relaxed = True        # the arm itself is already there: going back to it makes nothing worse
        self._motion.forgive(self._arms.joints)
        moved = self._motion.step_joints(self._execution.guard.joints(), self._config.reenter_scale)
        self._motion.relaxed = self._reentry is not None
        self._motion.forgive(None)
        return moved
