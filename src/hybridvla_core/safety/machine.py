"""The filter's states and the transitions between them: INACTIVE, ACTIVE, HOLDING, STOPPED, RECOVERING."""
from __future__ import annotations

import math
from typing import Counter, Set, Tuple

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.execution import ENDING, Execution
from hybridvla_core.safety.execution.leading import ON_THE_WAY, Leading
from hybridvla_core.safety.execution.reentry import worst_violation
from hybridvla_core.safety.inputs.measured_arms import STOPPING, MeasuredArms
from hybridvla_core.safety.inputs.whereabouts import Whereabouts
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.status import BY_HAND, REENTER, Reason, State

RAMP_BEGIN = 0.1      # share of the speed at the beginning of a ramp
#: Reported while inactive, because `activate` would refuse or nothing would move after it.
WOULD_REFUSE = (Reason.JOINT_STATE | Reason.ROBOT_MODE | Reason.CONTROLLER | Reason.DEADMAN | Reason.HEARTBEAT_LOST
                | Reason.TCP_MISMATCH | Reason.CLOCK_JUMP)
Answer = Tuple[bool, str]


class StateMachine:
    """Holds `state`, `reasons` and `detail` (a sentence on the reasons). The operator's calls return (done, sentence)."""

    def __init__(self, config: RobotConfig, motion: Motion, arms: MeasuredArms, execution: Execution,
                 counters: Counter[str]) -> None:
        self._config = config
        self._motion = motion
        self._arms = arms
        self._execution = execution
        self._counters = counters
        self._leading = Leading(config, motion, arms, execution)
        self._was_inactive = True          # nothing was being commanded when the arms were stopped
        self._activated = False            # `activate` led to this state; nothing else leads to following the policy
        self._errored: Set[str] = set()
        self._where = Whereabouts(config, motion, arms, execution.near_command)
        self._note: Tuple[Reason, str] = (Reason.NONE, "")      # how the last motion ended, while inactive
        self.seed, self.seeded_at, self._ramp_at = 0, -math.inf, -math.inf
        self._seeded = False
        self._limited_before: frozenset = frozenset()
        self.deactivating = False
        self.state, self.reasons, self.detail = State.INACTIVE, Reason.NONE, ""

    @property
    def follows(self) -> bool:
        """Whether proposals may be carried out."""
        return self.state in (State.ACTIVE, State.HOLDING) and not self.deactivating

    @property
    def homed(self) -> bool:
        """Whether the last way to the start joints was completed."""
        return self._leading.homed

    @property
    def may_move(self) -> bool:
        return self.state in (State.ACTIVE, State.HOLDING, State.RECOVERING)

    def publishes(self, name: str) -> bool:
        """Returns whether commands go out: not before the first seed, while inactive, or to an arm that reported an error."""
        if not self._seeded or self.state == State.INACTIVE or name in self._errored:
            return False
        if self._where.unheard(name) and self._motion.at_rest:
            return False
        return self.state != State.STOPPED or not self._was_inactive

    @property
    def _braking(self) -> bool:
        """Whether the command is not at rest yet. A command returning to an arm that was moved away does not count: the next
        transition ends it."""
        return not self._motion.at_rest and self._execution.near_command()

    def activate(self, now: float, dry_run: bool = False) -> Answer:
        """Seeds from the measured pose and allows motion; a dry run may begin while others move the arms."""
        if self.state == State.STOPPED:
            return False, "stopped: call resume first"
        if self.state == State.RECOVERING:
            return False, "the arms are being led: wait until they are inactive again, or call stop"
        if self.state != State.INACTIVE:
            return (False, "braking: wait until inactive") if self.deactivating else (True, "already active")
        problem = self._arms.not_ready(now, others_move=dry_run) or self._tool_problem()
        if problem:
            return False, problem
        self._seed(now, keep=self._seeded and self._where.undisturbed)
        self._activated = True
        return self._begin("active", now, BY_HAND if dry_run else REENTER)

    def deactivate(self) -> Answer:
        """Brings the arms to rest and forbids motion. STOPPED stays latched: from then on `resume` leads to inactive."""
        if self.state == State.STOPPED:
            if self._braking:
                return False, "still braking: try again"
            self._was_inactive = True
            return True, "stopped, and nothing is commanded any more: resume leads to inactive"
        if self.may_move and not self._motion.at_rest:
            self._execution.drop()
            self.deactivating = True
            return True, "braking, then inactive"
        self._to_inactive()
        return True, "inactive"

    def stop(self, reason: Reason = Reason.OPERATOR, detail: str = "") -> Answer:
        """Decelerates and holds until `resume`."""
        self._execution.drop()
        if self.state != State.STOPPED:
            self._counters["stops"] += 1
            self._was_inactive = self.state == State.INACTIVE
            if self.state in (State.INACTIVE, State.RECOVERING):
                self._activated = False
            self.set(State.STOPPED, reason, detail)
        else:
            self.set(State.STOPPED, self.reasons | reason, detail or self.detail)
        return True, "stopped"

    def resume(self, now: float) -> Answer:
        """Leaves STOPPED, the only way to do so: back to holding, or to inactive if the filter was inactive before."""
        if self.state != State.STOPPED:
            return False, "not stopped"
        if self._braking:
            return False, "still braking: try again"
        if self._was_inactive or self.deactivating or not self._activated:
            self._to_inactive()
            return True, "inactive"
        problem = self._arms.not_ready(now)
        if problem:
            return False, problem
        self._leading.end()
        if self.reasons & STOPPING or self._errored or not self._execution.near_command():
            self._seed(now)
        return self._begin("holding until the next proposal", now)

    def reenter(self, now: float) -> Answer:
        """Leads arms that start outside a limit back inside, slowly, never making any violation worse."""
        problem = self._no_way(now)
        if problem:
            return False, problem
        outside = worst_violation(self._motion, self._arms.joints)
        if not outside:
            return False, "every arm is inside its limits: call activate"
        self._seed(now)
        self._leading.reenter()
        self.set(State.RECOVERING, Reason.OUTSIDE_AT_START, outside)
        return True, f"re-entering: {outside}"

    def go_to_start(self, now: float) -> Answer:
        """Leads the arms to their start joints, slowly and clear of everything; then the filter is inactive and `homed`."""
        problem = self._no_way(now)
        if problem:
            return False, problem
        outside = worst_violation(self._motion, self._arms.joints)
        problem = f"{outside}; {REENTER}" if outside else self._leading.go_to_start()
        if problem:
            return False, problem
        self._seed(now)
        self.set(State.RECOVERING, Reason.NONE, ON_THE_WAY)
        return True, ON_THE_WAY

    def _no_way(self, now: float) -> str:
        """Says why the arms may not be led slowly now. A refusal leaves the last command as it is: nothing is seeded here."""
        if self.state != State.INACTIVE:
            return "only while inactive"
        return self._arms.not_ready(now) or self._tool_problem()

    def change_dry_run(self) -> None:
        """Notes that the arms do not rest under the last command."""
        self._where.forget()

    def _begin(self, answer: str, now: float, cure: str = REENTER) -> Answer:
        """Holds, ready to follow at growing speed, unless an arm stands outside a limit; cure: what to do about that."""
        outside = worst_violation(self._motion)
        if outside:
            self._to_inactive(Reason.OUTSIDE_AT_START, f"{outside}; {cure}")
            return False, f"{outside}; {cure}"
        self._ramp_at = now
        self.set(State.HOLDING, Reason.PROPOSAL_STALE, "")
        return True, answer

    def _ramp(self, now: float) -> float:
        """Returns the share of the speed, which grows after every start."""
        span = self._config.ramp_s
        return 1.0 if span <= 0.0 else min(1.0, RAMP_BEGIN + (1.0 - RAMP_BEGIN) * max(0.0, now - self._ramp_at) / span)

    def advance(self, now: float, reasons: Reason, detail: str, scale: float, dry_run: bool) -> bool:
        """Moves state and trajectory by one tick. reasons: what the watchdogs saw. Returns False if nothing may be sent."""
        motion = self._motion
        self._watch_silence(dry_run)
        if self.state != State.INACTIVE and reasons & STOPPING:
            self._errored.update(self._arms.errored())
            if self.state != State.STOPPED:
                self.stop(reasons & STOPPING, f"{detail}; see to it, then call resume")
            elif reasons & STOPPING & ~self.reasons:
                self.set(State.STOPPED, self.reasons | reasons & STOPPING, detail)
        if self.state == State.INACTIVE:
            self._look_inactive(now, reasons, detail)
            return motion.step(None)
        if self.state == State.STOPPED:
            commands = not (dry_run or self._was_inactive)     # do not keep pushing whatever holds a commanded arm
            moved = self._execution.rest(scale, self._errored) if commands else motion.step(None)
            self._execution.advance(now, dry_run)
            return moved
        if self.state == State.RECOVERING:
            moved = self._led_step(reasons, detail)
        else:
            if reasons & ENDING:
                self._execution.drop()
            moved = self._follow(now, reasons, detail, scale * self._ramp(now), dry_run)
        self._execution.advance(now, dry_run)
        if self.deactivating and motion.at_rest:
            self._to_inactive()
        return moved

    def set(self, state: State, reasons: Reason, detail: str) -> None:
        if state in (State.HOLDING, State.STOPPED) and self.state in (State.ACTIVE, State.RECOVERING):
            self._counters["holds"] += 1
        self.state, self.reasons, self.detail = state, reasons, detail

    def _follow(self, now: float, reasons: Reason, detail: str, scale: float, dry_run: bool) -> bool:
        ended = detail if reasons & ENDING else ""
        moved, reasons = self._execution.step(now, reasons, scale, dry_run)
        self._count_limits()
        if not moved:
            self._counters["last_check_refusals"] += 1
        holding = self._execution.plan is None or bool(reasons & Reason.LEASH) or self._execution.stands
        if self.deactivating:
            reasons |= Reason.OPERATOR
        self.set(State.HOLDING if holding else State.ACTIVE, reasons,
                 ended or self._execution.detail or detail)
        return moved

    def _led_step(self, reasons: Reason, detail: str) -> bool:
        led = self._leading.step(reasons, detail, self.deactivating)
        self._count_limits()
        if led.ended:
            self._to_inactive(led.reasons, led.detail)
        elif not self.deactivating:
            self.set(State.RECOVERING, led.reasons, led.detail)
        return led.moved

    def _watch_silence(self, dry_run: bool) -> None:
        """Sends nothing more to an arm that moved while it was silent, until the motion begins anew where the arm is."""
        if self.state == State.INACTIVE or dry_run:
            self._where.silent.clear()
            return
        for name in self._where.lost():
            self._errored.add(name)
            self.stop(Reason.JOINT_STATE, f"{name}: the arm is not where it was when its joint states fell silent; see to it, "
                                          "then call resume")

    def _look_inactive(self, now: float, reasons: Reason, detail: str) -> None:
        """Reports what would make `activate` refuse, and how the last motion ended."""
        flags = reasons & (WOULD_REFUSE | Reason.CONFIGURATION)
        self._where.look(disturbed=bool(flags & (Reason.JOINT_STATE | STOPPING)))
        noted, text = self._note
        if noted & Reason.OUTSIDE_AT_START and not flags & Reason.JOINT_STATE and np.isfinite(
                self._arms.joints).all() and not worst_violation(self._motion, self._arms.joints):
            self._note = noted, text = Reason.NONE, ""
        self.set(State.INACTIVE, flags | noted, text or detail)

    def fail(self, error: Exception) -> bool:
        """Stops for good after the step failed, along the stored braking trajectory."""
        self._counters["internal_errors"] += 1
        self.stop(Reason.SOLVER, f"the step failed ({type(error).__name__}: {error}); report it, then call resume")
        return self._motion.step(None)

    def _to_inactive(self, reason: Reason = Reason.NONE, detail: str = "") -> None:
        self._where.keep(self.state in (State.ACTIVE, State.HOLDING) and not self._errored)
        self._execution.drop()
        self.deactivating, self._activated = False, False
        self._leading.end()
        self._note = reason, detail
        self.set(State.INACTIVE, reason, detail)

    def _seed(self, now: float, keep: bool = False) -> None:
        """Begins the motion anew at rest: at the measured joints, or at the last command (keep)."""
        self._motion.seed(self._motion.joints if keep else self._arms.joints)
        self._execution.seeded()
        self.seed, self.seeded_at = self.seed + 1, now
        self._note = Reason.NONE, ""
        self._where.forget()
        self._arms.accept_controllers()
        self._errored.clear()
        self._counters["reseeds"] += 1
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
            self._counters[f"limited/{name}"] += 1
        self._limited_before = limited
