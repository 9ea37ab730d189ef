"""The safety filter: proposals in, commands out, nothing in between that could move a robot past its limits.

The caller passes `now`, monotonic seconds, so that the same code runs at 200 Hz in a node, in lockstep with a simulation,
and in tests. `docs/safety.md` names the test behind each promise.
"""
from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Dict, List, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState, Heartbeat, Kind, Proposal
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.robots.config import LEAST_SCALE, RobotConfig
from hybridvla_core.safety.counters import new_counters
from hybridvla_core.safety.execution.execution import Execution
from hybridvla_core.safety.inputs.acceptance import ProposalGate
from hybridvla_core.safety.inputs.bases import Bases
from hybridvla_core.safety.inputs.clock_watch import ClockWatch
from hybridvla_core.safety.inputs.measured_arms import MeasuredArms
from hybridvla_core.safety.inputs.watchdogs import Watchdogs
from hybridvla_core.safety.machine import StateMachine
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.outputs.commands import Commands
from hybridvla_core.safety.outputs.status_report import StatusReport
from hybridvla_core.safety.status import NOT_DRY, Acceptance, FilterOutput, Reason, State, flag_names

EARLY = 0.4          # a further tick within this share of a tick changes nothing
NOTICE_S = 1.0       # a refused parameter is shown in the status for this long


class SafetyFilter:
    """The safety filter; see the module. Not thread safe: the caller serialises its calls."""

    def __init__(self, config: RobotConfig, dry_run: bool = False, simulated_time: bool = False) -> None:
        self.config = config
        self._dry_run = dry_run
        self._speed_scale = config.speed_scale
        self._counters = new_counters()
        self._motion = Motion(config)
        self._gate = ProposalGate(config, watch_delay=not simulated_time)
        self._arms = MeasuredArms(config, self._counters, watch_delay=not simulated_time)
        self._watchdogs = Watchdogs(config, self._gate, self._arms, self._counters, ClockWatch(simulated_time))
        self._execution = Execution(config, self._motion, self._arms)
        self._machine = StateMachine(config, self._motion, self._arms, self._execution, self._counters)
        self._commands = Commands(config, self._motion, self._arms, self._execution.grippers, self._counters)
        self._report = StatusReport(config, self._motion, self._arms, self._execution)
        self._bases = Bases(config)
        self._notice = ("", -math.inf)
        self._tick_at: Optional[float] = None
        self._output: Optional[FilterOutput] = None

    # ---- inputs ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._machine.state

    @property
    def follows(self) -> bool:
        """Whether proposals may be carried out: active, and not on the way to inactive."""
        return self._machine.follows

    @property
    def at_rest(self) -> bool:
        """Whether the commanded trajectory is at rest."""
        return self._motion.at_rest

    def moving(self, now: float) -> bool:
        """Returns whether the commanded trajectory or an arm has not come to rest."""
        return not self.at_rest or any(arm.moving(now) for arm in self._arms)

    @property
    def dry_run(self) -> bool:
        return self._dry_run

    @property
    def counters(self) -> Dict[str, int]:
        """The named counters since the start, as in the status."""
        return dict(self._counters)

    @property
    def commanded_rotations(self) -> np.ndarray:
        """(A, 3, 3) tool rotations as commanded now; before the first activation, those at the start joints."""
        return self._motion.rotations.copy()

    def update_arm_state(self, state: ArmState, now: float) -> None:
        """Takes a driver's report. Unusable reports are counted, and hold the arms (JOINT_STATE) until good ones come."""
        if self._arms.update(state, now):
            self._counters["rejected/arm_state"] += 1

    def on_heartbeat(self, heartbeat: Heartbeat, now: float, publisher: str = "") -> None:
        """Takes the policy's heartbeat. A heartbeat that waited in a queue while the filter was paused does not count."""
        if self._watchdogs.paused(now):
            return
        reason, _ = self._gate.on_heartbeat(heartbeat, now, publisher, self.at_rest)
        if reason:
            self._count_rejection(reason)
        self._execution.drop_older(self._gate.instruction_sequence)

    def on_proposal(self, proposal: Proposal, now: float, publisher: str = "") -> Acceptance:
        """Accepts or refuses a proposal. Whatever it contains, this call neither raises nor moves anything by itself."""
        if self._watchdogs.paused(now):
            return self._refused(Reason.PROPOSAL_STALE, "it waited while the filter stood still")
        self._gate.seeded(self._machine.seed, self._machine.seeded_at)
        reason, text = self._gate.on_proposal(proposal, now, publisher, self.at_rest)
        if not reason and proposal.seed and proposal.kind == Kind.ACTION:
            reason, text = self._bases.far(proposal, self._execution.asked)
            if reason:
                self._gate.refuse(reason, text, now)
        if reason:
            return self._refused(reason, text)
        self._counters["accepted"] += 1
        self._execution.drop_older(self._gate.instruction_sequence)
        if not self._machine.follows:
            return Acceptance(True)
        if proposal.kind == Kind.HOLD:
            self._execution.drop()
            self._execution.executed = proposal
            return Acceptance(True)
        if self.config.door == "cartesian" and self._motion.at_rest:
            self._follow_measured()
        at_once = self._motion.at_rest and not any(gripper.moving for gripper in self._execution.grippers)
        self._execution.take(replace(proposal, observation_age=proposal.observation_age + self._gate.late), now)
        return Acceptance(True, at_once=at_once)

    def on_unreadable_proposal(self, text: str, now: float, publisher: str = "") -> Acceptance:
        """Treats a message that cannot be read as a proposal like an ill-formed proposal. text: why it cannot be read."""
        if self._watchdogs.paused(now):
            return self._refused(Reason.PROPOSAL_STALE, "it waited while the filter stood still")
        return self._refused(*self._gate.on_unreadable(text, now, publisher, self.at_rest))

    def _refused(self, reason: Reason, text: str) -> Acceptance:
        self._count_rejection(reason)
        if reason == Reason.PROPOSAL_INVALID:     # a policy that makes no sense is not followed any further
            self._execution.drop()
        return Acceptance(False, text)

    def on_deadman(self, pressed: bool, now: float, publisher: str = "") -> None:
        """Takes a report on the dead-man switch. One publisher that reports "released" is enough to hold, whatever others report.

        A report "held" does not count while messages that were queued during a pause of the filter are still arriving; a report
        "released" always counts.
        """
        if pressed and self._watchdogs.paused(now):
            return
        self._watchdogs.deadman.say(pressed, now, publisher)

    def deadman_missing(self, now: float) -> bool:
        """Returns whether the dead-man switch is required, and released or silent."""
        return self._watchdogs.deadman_missing(now)

    def deadman_problem(self, now: float) -> str:
        """Says that the dead-man switch is missing, and which publishers disagree; empty if it is held or not required."""
        if not self.deadman_missing(now):
            return ""
        return self._watchdogs.deadman.disagreement(now) or "the deadman is released or silent"

    def deadman_publishers(self, now: float) -> List[str]:
        """Returns the names of the nodes that have reported on the dead-man switch lately."""
        return self._watchdogs.deadman.publishers(now)

    def hold_for(self, reason: Reason, text: str) -> None:
        """Ends motion for a cause that only the caller sees, until this is called again without a text."""
        self._watchdogs.hold_for(reason, text)

    def refuse_parameter(self, text: str, now: float) -> None:
        """Refuses a parameter that may not be set: nothing changes, and the arms hold until the next proposal."""
        self._counters["rejected/configuration"] += 1
        self._execution.drop()
        self._notice = (text, now)

    def set_speed_scale(self, scale: float) -> None:
        """Sets the speed scale. Raises ConfigurationError unless LEAST_SCALE <= scale <= 1; the old value then stays."""
        if isinstance(scale, bool) or not (isinstance(scale, (int, float)) and LEAST_SCALE <= scale <= 1.0):
            raise ConfigurationError(f"speed_scale is {scale}; use a number from {LEAST_SCALE} to 1")
        self._speed_scale = float(scale)

    def set_dry_run(self, dry_run: bool) -> None:
        """Sets the dry run, only while inactive: a command stream never starts in the middle of a motion."""
        if dry_run != self._dry_run and self.state != State.INACTIVE:
            raise ConfigurationError("dry_run can be changed while the filter is inactive; deactivate first")
        if dry_run != self._dry_run:
            self._machine.change_dry_run()
        self._dry_run = bool(dry_run)

    # ---- operator ----------------------------------------------------------------------------------------------

    def activate(self, active: bool, now: float) -> Tuple[bool, str]:
        """Seeds from the measured pose and allows motion, or brings the arms to rest and forbids motion."""
        if not active:
            return self._machine.deactivate()
        done, text = self._machine.activate(now, self._dry_run)
        if done and self.deadman_missing(now):
            text = f"{text}, but holding: {self._watchdogs.deadman.disagreement(now) or 'press the dead-man'}"
        return done, text

    def stop(self, now: float, reason: Reason = Reason.OPERATOR, detail: str = "") -> Tuple[bool, str]:
        """Decelerates and holds until `resume`. reason, detail: who or what stops, for the status."""
        return self._machine.stop(reason, detail)

    def resume(self, now: float) -> Tuple[bool, str]:
        """Leaves STOPPED, the only way to do so: back to holding, or to inactive if the filter was inactive before."""
        return self._machine.resume(now)

    def reenter(self, now: float) -> Tuple[bool, str]:
        """Leads arms that start outside a limit back inside, slowly, never making any violation worse; not in a dry run."""
        return (False, NOT_DRY) if self._dry_run else self._machine.reenter(now)

    def go_to_start(self, now: float) -> Tuple[bool, str]:
        """Begins the slow way to the start joints (robots commanded by joints); inactive again at its end; not in a dry run."""
        return (False, NOT_DRY) if self._dry_run else self._machine.go_to_start(now)

    @property
    def detail(self) -> str:
        """The reason for the present state in words, as in the status; may be empty."""
        return self._machine.detail

    @property
    def homed(self) -> bool:
        """Whether the last way to the start joints was completed."""
        return self._machine.homed

    # ---- the tick ----------------------------------------------------------------------------------------------

    def tick(self, now: float, clock: Optional[float] = None) -> FilterOutput:
        """Makes one step of the commanded trajectory, and the status. Call at `config.tick_hz`. clock: ROS time, s, if any."""
        began = time.perf_counter(), time.thread_time()
        if self._output is not None and self._tick_at is not None and 0.0 <= now - self._tick_at < EARLY * self.config.dt:
            return self._output.again()
        self._tick_at = now
        reasons, detail = self._watch(now, clock)
        try:
            moved = self._machine.advance(now, reasons, detail, self._speed_scale, self._dry_run)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, np.linalg.LinAlgError) as error:
            moved = self._machine.fail(error)
        self._note_bases(now)
        sends = moved and not self._dry_run
        commands = self._commands.make(now, lambda name: sends and self._machine.publishes(name))
        status, changed = self._report.make(now, self._machine, self._dry_run, self._speed_scale, self._counters, began,
                                            self._commands.quaternions)
        self._output = FilterOutput(commands, status, changed)
        return self._output

    def _watch(self, now: float, clock: Optional[float]) -> Tuple[Reason, str]:
        """Returns flags of what ends motion this tick or was refused lately, and a sentence on it."""
        judged = self._machine.may_move and not self._dry_run
        reasons, detail = self._watchdogs.look(now, clock, judged, self.at_rest)
        if self._execution.expired(now):
            self._execution.drop()
        refused, text = self._gate.shown(now)
        reasons, detail = reasons | refused, detail or text
        if 0.0 <= now - self._notice[1] <= NOTICE_S:
            reasons, detail = reasons | Reason.CONFIGURATION, detail or self._notice[0]
        return reasons, detail

    def _follow_measured(self) -> None:
        """At rest, solves for the joints of the command anew from the measured joints; the pose stays."""
        measured = self._arms.joints
        if np.isfinite(measured).all() and np.abs(measured - self._motion.joints).max() > 1e-3:
            self._counters["reposes"] += int(self._motion.repose(measured))

    def _note_bases(self, now: float) -> None:
        if self._machine.follows:
            self._bases.see(self._motion.positions, now)
        else:
            self._bases.forget()

    def _count_rejection(self, reason: Reason) -> None:
        self._counters[f"rejected/{flag_names(reason).lower()}"] += 1
