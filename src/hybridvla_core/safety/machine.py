"""The filter's states and what leads from one to another: INACTIVE, ACTIVE, HOLDING, STOPPED, RECOVERING."""
from __future__ import annotations

from typing import Optional, Tuple

from hybridvla_core.safety.config import RobotConfig
from hybridvla_core.safety.execution import Execution
from hybridvla_core.safety.homing import Homing
from hybridvla_core.safety.measured import MeasuredArms
from hybridvla_core.safety.motion import Motion
from hybridvla_core.safety.reentry import Reentry, worst_violation
from hybridvla_core.safety.reporting import Counters
from hybridvla_core.safety.status import Reason, State

DROPPING = (Reason.HEARTBEAT_LOST | Reason.JOINT_STATE | Reason.ROBOT_MODE | Reason.CLOCK_JUMP | Reason.DEADMAN
            | Reason.MEASURED_LIMIT | Reason.LAST_CHECK | Reason.OPERATOR)
Answer = Tuple[bool, str]


class StateMachine:
    """`state`, `reasons` and `detail` (a sentence on the reasons); answers of the operator's calls are (done, sentence)."""

    def __init__(self, config: RobotConfig, motion: Motion, arms: MeasuredArms, execution: Execution,
                 counters: Counters) -> None:
        self._config = config
        self._motion = motion
        self._arms = arms
        self._execution = execution
        self._counters = counters
        self._reentry: Optional[Reentry] = None
        self._homing: Optional[Homing] = None
        self.homed = False
        self._was_inactive = True
        self._seeded = False
        self._limited_before: frozenset = frozenset()
        self.deactivating = False
        self.state = State.INACTIVE
        self.reasons = Reason.NONE
        self.detail = ""

    @property
    def follows(self) -> bool:
        """Proposals may be carried out."""
        return self.state in (State.ACTIVE, State.HOLDING) and not self.deactivating

    @property
    def may_move(self) -> bool:
        return self.state in (State.ACTIVE, State.HOLDING, State.RECOVERING)

    @property
    def publishes(self) -> bool:
        """Commands go out: not before the first seed, not while inactive, not to a robot that reported an error."""
        if not self._seeded or self.state == State.INACTIVE:
            return False
        return self.state != State.STOPPED or not (self._was_inactive or self.reasons & Reason.ROBOT_MODE)

    # ---- operator ----------------------------------------------------------------------------------------------

    def activate(self, now: float) -> Answer:
        """Seed from the measured pose and allow motion."""
        if self.state == State.STOPPED:
            return False, "stopped: call resume first"
        if self.state != State.INACTIVE:
            return (False, "braking: wait until inactive") if self.deactivating else (True, "already active")
        problem = self._arms.not_ready(now) or self._tool_problem()
        if problem:
            return False, problem
        self._seed()
        return self._begin("active")

    def deactivate(self) -> Answer:
        """Bring the arms to rest and forbid motion."""
        if self.may_move and not self._motion.at_rest:
            self._execution.drop()
            self.deactivating = True
            return True, "braking, then inactive"
        self._to_inactive()
        return True, "inactive"

    def stop(self) -> Answer:
        """Decelerate and hold until `resume`."""
        if self.state != State.STOPPED:
            self._counters.add("stops")
        self._execution.drop()
        self._was_inactive = self.state == State.INACTIVE if self.state != State.STOPPED else self._was_inactive
        # After a robot's fault nothing goes out until `resume` has read its pose anew, whoever stops it besides.
        kept = self.reasons & Reason.ROBOT_MODE if self.state == State.STOPPED else Reason.NONE
        self.set(State.STOPPED, Reason.OPERATOR | kept, "")
        return True, "stopped"

    def resume(self, now: float) -> Answer:
        """The only way out of STOPPED: back to holding, or to inactive where it was inactive before."""
        if self.state != State.STOPPED:
            return False, "not stopped"
        if not self._motion.at_rest:
            return False, "still braking: try again"
        if self._was_inactive:
            self._to_inactive()
            return True, "inactive"
        problem = self._arms.not_ready(now)
        if problem:
            return False, problem
        self._motion.relaxed, self._reentry, self._homing = False, None, None
        if self.reasons & Reason.ROBOT_MODE or not self._execution.near_command():
            self._seed()
        return self._begin("holding until the next proposal")

    def reenter(self, now: float) -> Answer:
        """Lead arms that start outside a limit back inside, slowly, never making any violation worse."""
        if self.state != State.INACTIVE:
            return False, "only while inactive"
        problem = self._arms.not_ready(now) or self._tool_problem()
        if problem:
            return False, problem
        self._seed()
        outside = worst_violation(self._motion)
        if not outside:
            return False, "every arm is inside its limits: call activate"
        self._reentry = Reentry(self._config, self._motion)
        self.set(State.RECOVERING, Reason.OUTSIDE_AT_START, outside)
        return True, f"re-entering: {outside}"

    def go_to_start(self, now: float) -> Answer:
        """Lead the arms to their start joints, slowly and clear of everything, and be inactive again; `homed` says so."""
        if self.state != State.INACTIVE:
            return False, "only while inactive"
        problem = self._arms.not_ready(now) or self._tool_problem()
        if problem:
            return False, problem
        self._seed()
        outside = worst_violation(self._motion)
        homing = None if outside else Homing(self._config, self._motion)
        if homing is None or homing.blocked:
            return False, f"{outside}; call reenter" if homing is None else homing.blocked
        self._homing, self.homed = homing, False
        self.set(State.RECOVERING, Reason.NONE, "on the way to the start joints")
        return True, "on the way to the start joints"

    def _begin(self, answer: str) -> Answer:
        """Hold, ready to follow, unless an arm stands outside a limit."""
        outside = worst_violation(self._motion)
        if outside:
            self._to_inactive()
            self.set(State.INACTIVE, Reason.OUTSIDE_AT_START, f"{outside}; call reenter")
            return False, f"{outside}; call reenter"
        self.set(State.HOLDING, Reason.PROPOSAL_STALE, "")
        return True, answer

    # ---- the tick ----------------------------------------------------------------------------------------------

    def advance(self, now: float, reasons: Reason, detail: str, scale: float, dry_run: bool) -> bool:
        """Move state and trajectory by one tick. reasons: what the watchdogs saw. False when nothing may be sent."""
        motion = self._motion
        if self.state in (State.INACTIVE, State.STOPPED):
            moved = motion.step(None)
            if self.state == State.STOPPED and reasons & Reason.ROBOT_MODE:
                self.set(State.STOPPED, self.reasons | Reason.ROBOT_MODE, detail)
            self._execution.advance()
            return moved
        if reasons & Reason.ROBOT_MODE:
            self._execution.drop()
            self._counters.add("stops")
            self._was_inactive = False
            self.set(State.STOPPED, Reason.ROBOT_MODE, f"{detail}; recover it, then call resume")
            return motion.step(None)
        if self.state == State.RECOVERING and self._homing is not None:
            moved = self._home_step(reasons, detail)
        elif self.state == State.RECOVERING:
            moved = self._reenter_step(reasons, detail)
        else:
            if reasons & DROPPING:
                self._execution.drop()
            moved = self._follow(now, reasons, detail, scale, dry_run)
        self._execution.advance()
        if self.deactivating and motion.at_rest:
            self._to_inactive()
        return moved

    def set(self, state: State, reasons: Reason, detail: str) -> None:
        if state in (State.HOLDING, State.STOPPED) and self.state in (State.ACTIVE, State.RECOVERING):
            self._counters.add("holds")
        self.state, self.reasons, self.detail = state, reasons, detail

    def _follow(self, now: float, reasons: Reason, detail: str, scale: float, dry_run: bool) -> bool:
        moved, reasons = self._execution.step(now, reasons, scale, dry_run)
        self._count_limits()
        if not moved:
            self._counters.add("last_check_refusals")
        holding = self._execution.plan is None or bool(reasons & Reason.LEASH)
        if self.deactivating:
            reasons |= Reason.OPERATOR
        self.set(State.HOLDING if holding else State.ACTIVE, reasons, self._execution.detail or detail)
        return moved

    def _reenter_step(self, reasons: Reason, detail: str) -> bool:
        blocked = reasons & (Reason.JOINT_STATE | Reason.DEADMAN | Reason.CLOCK_JUMP)
        if blocked or self.deactivating:
            moved = self._motion.step(None)
            if blocked:
                self.set(State.RECOVERING, Reason.OUTSIDE_AT_START | blocked, detail)
            return moved
        moved = self._reentry.step(self._config.reenter_scale)
        self._count_limits()
        if self._reentry.finished:
            self._reentry = None
            self._motion.relaxed = False
            self.set(State.HOLDING, Reason.PROPOSAL_STALE, "")
        return moved

    def _home_step(self, reasons: Reason, detail: str) -> bool:
        waits = reasons & (Reason.JOINT_STATE | Reason.DEADMAN | Reason.CLOCK_JUMP | Reason.MEASURED_LIMIT)
        if waits or self.deactivating:
            self.set(State.RECOVERING, waits, detail)
            return self._motion.step(None)
        moved = self._homing.step(self._config.reenter_scale)
        self._count_limits()
        if self._homing.finished or self._homing.stuck:
            self.homed = self._homing.finished
            self._to_inactive()
            if not self.homed:
                self.set(State.INACTIVE, Reason.COLLISION, "something came in the way to the start joints")
        else:
            self.set(State.RECOVERING, Reason.NONE, "on the way to the start joints")
        return moved

    # ---- small things ------------------------------------------------------------------------------------------

    def _to_inactive(self) -> None:
        self._execution.drop()
        self.deactivating, self._reentry, self._homing = False, None, None
        self._motion.relaxed = False
        self.set(State.INACTIVE, Reason.NONE, "")

    def _seed(self) -> None:
        self._motion.seed(self._arms.joints)
        self._execution.seeded()
        self._counters.add("reseeds")
        self._seeded = True
        self._motion.relaxed = False

    def _tool_problem(self) -> str:
        text = self._arms.tool_problem()
        if text:
            self.set(self.state, Reason.TCP_MISMATCH, text)
        return text

    def _count_limits(self) -> None:
        limited = frozenset(self._motion.limited)
        for name in limited - self._limited_before:
            self._counters.add(f"limited/{name}")
        self._limited_before = limited
