"""The safety filter: proposals in, commands out, nothing in between that could move a robot past its limits.

`now` is monotonic seconds, given by the caller, so that the same code runs at 200 Hz in a node, in lockstep with a
simulation, and in tests. Design sections 5 and 6; `docs/safety.md` names the test behind each promise.
"""
from __future__ import annotations

import math
import time
from typing import Dict, List, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState, GripperState, Heartbeat, Kind, PolicyState, Pose, Proposal
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.safety import reporting, rotations
from hybridvla_core.safety.acceptance import Gate
from hybridvla_core.safety.config import RobotConfig
from hybridvla_core.safety.gripper import GripperSequencer
from hybridvla_core.safety.limits.leash import Leash
from hybridvla_core.safety.measured import MeasuredArm
from hybridvla_core.safety.motion import Motion
from hybridvla_core.safety.plan import Plan
from hybridvla_core.safety.reentry import Reentry
from hybridvla_core.safety.status import Acceptance, ArmCommand, ArmSafety, FilterOutput, LimitMargin, Reason, SafetyStatus, State

EARLY = 0.4          # share of a tick before which a further tick changes nothing
DROPPING = (Reason.HEARTBEAT_LOST | Reason.JOINT_STATE | Reason.ROBOT_MODE | Reason.CLOCK_JUMP | Reason.DEADMAN
            | Reason.MEASURED_LIMIT | Reason.LAST_CHECK | Reason.OPERATOR)


class SafetyFilter:
    """See the module. Not thread safe: the caller serialises its calls."""

    def __init__(self, config: RobotConfig, dry_run: bool = False) -> None:
        self.config = config
        self._dry_run = dry_run
        self._speed_scale = config.speed_scale
        self._motion = Motion(config)
        self._leash = Leash(config.arms, config.dt)
        self._leash.restart(self._motion.positions, self._motion.rotations)
        self._gate = Gate(config)
        self._arms = {arm.name: MeasuredArm(arm) for arm in config.arms}
        self._grippers = [GripperSequencer(arm.gripper, config.dt) for arm in config.arms]
        self._posture = np.array([arm.start_joints_rad for arm in config.arms])
        self._reentry: Optional[Reentry] = None
        self._plan: Optional[Plan] = None
        self._executed: Optional[Proposal] = None
        self._state = State.INACTIVE
        self._reasons = Reason.NONE
        self._detail = ""
        self._counters = reporting.Counters()
        self._deactivating = False
        self._tick_at: Optional[float] = None
        self._deadman_at = -math.inf
        self._seeded = False
        self._output: Optional[FilterOutput] = None
        self._status_at = self._margins_at = -math.inf
        self._margins: Tuple[LimitMargin, ...] = ()
        self._applied = 1.0
        self._quaternions = [rotations.to_quaternion(matrix) for matrix in self._motion.rotations]
        self._limited_before: frozenset = frozenset()
        self._reject_detail = ""
        self._pending = Reason.NONE
        self._was_inactive = True
        self._detail_now = ""

    # ---- inputs ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._state

    @property
    def counters(self) -> Dict[str, int]:
        """Named counts since start, as in the status."""
        return self._counters.snapshot()

    @property
    def start_rotations(self) -> np.ndarray:
        """(A, 3, 3) tool rotations as commanded now; of the start joints before the first activation."""
        return self._motion.rotations.copy()

    def update_arm_state(self, state: ArmState, now: float) -> None:
        """A driver's report. Unusable ones are counted, and hold the arms (JOINT_STATE) until a good one comes."""
        arm = self._arms.get(state.name)
        if arm is None:
            self._counters.add("rejected/arm_state")
            return
        if arm.update(state, now):
            self._counters.add("rejected/arm_state")
            if self._state in (State.ACTIVE, State.HOLDING, State.RECOVERING):
                self._pending |= Reason.JOINT_STATE
                self._reject_detail = f"{state.name}: {arm.fault}; check the driver"

    def on_heartbeat(self, heartbeat: Heartbeat, now: float, publisher: str = "") -> None:
        reason, _ = self._gate.on_heartbeat(heartbeat, now, publisher, self._resting())
        if reason:
            self._count_rejection(reason)
        self._drop_replaced()

    def on_proposal(self, proposal: Proposal, now: float, publisher: str = "") -> Acceptance:
        """Take or refuse a proposal; whatever it holds, this neither raises nor moves anything by itself."""
        reason, text = self._gate.on_proposal(proposal, now, publisher, self._resting())
        if reason:
            self._count_rejection(reason)
            return Acceptance(False, text)
        self._counters.add("accepted")
        self._drop_replaced()
        if self._state not in (State.ACTIVE, State.HOLDING) or self._deactivating:
            return Acceptance(True)
        if proposal.kind == Kind.HOLD:
            self._drop()
            self._executed = proposal
            return Acceptance(True)
        if self.config.door == "cartesian" and self._motion.at_rest:
            self._follow_measured()
        plan = Plan(proposal, self.config, now)
        self._plan, self._executed = plan, proposal
        for index, gripper in enumerate(self._grippers):
            gripper.cancel()
            if not plan.keyframe:
                gripper.want(plan.openings[0, index])
        return Acceptance(True)

    def on_deadman(self, pressed: bool, now: float) -> None:
        self._deadman_at = now if pressed else -math.inf

    def set_speed_scale(self, scale: float) -> None:
        """Raises ConfigurationError unless 0 < scale <= 1; the old value stays."""
        if not (isinstance(scale, (int, float)) and 0.0 < scale <= 1.0):
            raise ConfigurationError(f"speed_scale is {scale}; use a number in (0, 1]")
        self._speed_scale = float(scale)

    def set_dry_run(self, dry_run: bool) -> None:
        """Only while inactive: a command stream never starts in the middle of a motion."""
        if dry_run != self._dry_run and self._state != State.INACTIVE:
            raise ConfigurationError("dry_run can be changed while the filter is inactive; deactivate first")
        self._dry_run = bool(dry_run)

    # ---- operator ----------------------------------------------------------------------------------------------

    def activate(self, active: bool, now: float) -> Tuple[bool, str]:
        """Seed from the measured pose and allow motion, or bring the arms to rest and forbid it."""
        if not active:
            if self._state in (State.ACTIVE, State.HOLDING, State.RECOVERING) and not self._motion.at_rest:
                self._drop()
                self._deactivating = True
                return True, "braking, then inactive"
            self._to_inactive()
            return True, "inactive"
        if self._state == State.STOPPED:
            return False, "stopped: call resume first"
        if self._state != State.INACTIVE:
            return (False, "braking: wait until inactive") if self._deactivating else (True, "already active")
        problem = self._not_ready(now) or self._tool_problem()
        if problem:
            return False, problem
        self._seed()
        outside = self._outside()
        if outside:
            self._set(State.INACTIVE, Reason.OUTSIDE_AT_START, f"{outside}; call reenter")
            return False, f"{outside}; call reenter"
        self._set(State.HOLDING, Reason.PROPOSAL_STALE, "")
        return True, "active"

    def stop(self, now: float) -> Tuple[bool, str]:
        """Decelerate and hold until `resume`."""
        if self._state != State.STOPPED:
            self._counters.add("stops")
        self._drop()
        self._was_inactive = self._state == State.INACTIVE if self._state != State.STOPPED else self._was_inactive
        self._set(State.STOPPED, Reason.OPERATOR, "")
        return True, "stopped"

    def resume(self, now: float) -> Tuple[bool, str]:
        """The only way out of STOPPED: back to holding, or to inactive where it was inactive before."""
        if self._state != State.STOPPED:
            return False, "not stopped"
        if not self._motion.at_rest:
            return False, "still braking: try again"
        if self._was_inactive:
            self._to_inactive()
            return True, "inactive"
        problem = self._not_ready(now)
        if problem:
            return False, problem
        self._motion.relaxed, self._reentry = False, None
        if self._reasons & Reason.ROBOT_MODE or not self._near_command():
            self._seed()
        outside = self._outside()
        if outside:
            self._to_inactive()
            self._set(State.INACTIVE, Reason.OUTSIDE_AT_START, f"{outside}; call reenter")
            return False, f"{outside}; call reenter"
        self._set(State.HOLDING, Reason.PROPOSAL_STALE, "")
        return True, "holding until the next proposal"

    def reenter(self, now: float) -> Tuple[bool, str]:
        """Lead arms that start outside a limit back inside, slowly, never making any violation worse."""
        if self._state != State.INACTIVE:
            return False, "only while inactive"
        problem = self._not_ready(now) or self._tool_problem()
        if problem:
            return False, problem
        self._seed()
        outside = self._outside()
        if not outside:
            return False, "every arm is inside its limits: call activate"
        self._reentry = Reentry(self.config, self._motion)
        self._set(State.RECOVERING, Reason.OUTSIDE_AT_START, outside)
        return True, f"re-entering: {outside}"

    # ---- the tick ----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> FilterOutput:
        """One step of the commanded trajectory and the status. Call at `config.tick_hz`."""
        wall, cpu = time.perf_counter(), time.thread_time()
        gap = 0.0 if self._tick_at is None else now - self._tick_at
        if self._output is not None and 0.0 <= gap < EARLY * self.config.dt:
            return self._output
        self._tick_at = now
        reasons = self._watch(now, gap)
        moved = self._advance(now, reasons)
        commands = self._commands(now, moved)
        status, changed = self._status(now, wall, cpu)
        self._output = FilterOutput(commands, status, changed)
        return self._output

    def _watch(self, now: float, gap: float) -> Reason:
        """Everything that ends motion, from outside and from ourselves."""
        reasons, self._pending = self._pending, Reason.NONE
        detail = self._reject_detail if reasons else ""
        if gap < 0.0 or gap > self.config.watchdogs.clock_gap_s:
            reasons |= Reason.CLOCK_JUMP
            self._counters.add("overruns")
        elif gap > 1.5 * self.config.dt:
            self._counters.add("overruns")
        for name, arm in self._arms.items():
            if arm.age(now) > self.config.watchdogs.joint_state_s:
                reasons |= Reason.JOINT_STATE
                detail = detail or (f"{name}: no usable joint states for {arm.age(now):.2f} s; check the driver"
                                    if math.isfinite(arm.age(now)) else f"{name}: {arm.fault}; check the driver")
            elif arm.state is not None and not arm.state.ready:
                reasons |= Reason.ROBOT_MODE
                detail = detail or f"{name}: {arm.state.message or 'the robot does not accept commands'}"
            elif self._state in (State.ACTIVE, State.HOLDING) and not self._dry_run:
                breach = arm.outside()
                if breach:
                    reasons |= Reason.MEASURED_LIMIT
                    self._counters.add("measured_violations", int(not self._reasons & Reason.MEASURED_LIMIT))
                    detail = detail or f"{name}: {breach}"
        if self.config.deadman_required and not 0.0 <= now - self._deadman_at <= self.config.watchdogs.deadman_s:
            reasons |= Reason.DEADMAN
        if self._gate.heartbeat_lost(now):
            reasons |= Reason.HEARTBEAT_LOST
        elif self._gate.policy_state == PolicyState.FAULT:
            reasons |= Reason.HEARTBEAT_LOST
            detail = detail or f"the policy reports a fault: {self._gate.policy_message}"
        if self._plan is not None and self._plan.expired(now):
            reasons |= Reason.PROPOSAL_STALE
            self._drop()
        self._detail_now = detail
        return reasons

    def _advance(self, now: float, reasons: Reason) -> bool:
        """Move the state machine and the trajectory by one tick. False when nothing may be sent."""
        motion = self._motion
        if self._state in (State.INACTIVE, State.STOPPED):
            moved = motion.step(None)
            if self._state == State.STOPPED and reasons & Reason.ROBOT_MODE:
                self._set(State.STOPPED, self._reasons | Reason.ROBOT_MODE, self._detail_now)
            self._leash.advance(motion.positions, motion.rotations)
            return moved
        if reasons & Reason.ROBOT_MODE:
            self._drop()
            self._counters.add("stops")
            self._was_inactive = False
            self._set(State.STOPPED, Reason.ROBOT_MODE, f"{self._detail_now}; recover it, then call resume")
            return motion.step(None)
        if self._state == State.RECOVERING:
            moved = self._reenter_step(reasons)
        else:
            if reasons & DROPPING:
                self._drop()
            moved = self._follow(now, reasons)
        self._leash.advance(motion.positions, motion.rotations)
        if self._deactivating and motion.at_rest:
            self._to_inactive()
        return moved

    def _follow(self, now: float, reasons: Reason) -> bool:
        motion, plan = self._motion, self._plan
        goal = None
        if plan is not None:
            if plan.advance(now):
                for index, gripper in enumerate(self._grippers):
                    gripper.want(plan.openings[plan.row, index])
            goal = plan.goal(now, motion.positions, motion.rotations)
            if self._leashed(goal):
                reasons |= Reason.LEASH
                goal = None
        elif not reasons:
            reasons |= Reason.PROPOSAL_STALE
        self._applied = self._speed_scale * self._caution()
        moved = motion.step(goal, self._applied, self._posture)
        self._applied *= motion.factor
        self._count_limits()
        reasons |= motion.reasons
        if not moved:
            self._drop()
            self._counters.add("last_check_refusals")
        if plan is not None and self._plan is plan:
            self._settle(plan, goal, now)
        if any(gripper.failed for gripper in self._grippers):
            reasons |= Reason.GRIPPER
        holding = self._plan is None or bool(reasons & Reason.LEASH)
        if self._deactivating:
            reasons |= Reason.OPERATOR
        self._set(State.HOLDING if holding else State.ACTIVE, reasons, self._detail_now)
        return moved

    def _settle(self, plan: Plan, goal, now: float) -> None:
        """Keyframes: arrival, then the gripper, then done. Dense rows: done when the last one has been reached."""
        if goal is None or plan.done:
            return
        rules, error = self.config.at_target, self._motion.error(goal)
        near = (np.abs(error[:, :3]).max() < 2.0 * rules.position_m
                and np.linalg.norm(error[:, :3], axis=1).max() <= rules.position_m
                and np.linalg.norm(error[:, 3:], axis=1).max() <= rules.rotation_rad)
        if not near:
            plan.arrived_at = None
            return
        if plan.arrived_at is None:
            plan.arrived_at = now
        if not (self._measured_near(goal) or now - plan.arrived_at >= rules.settle_s):
            return
        if plan.keyframe and not plan.gripper_sent:
            plan.gripper_sent = True
            for index, gripper in enumerate(self._grippers):
                gripper.want(plan.openings[plan.row, index])
            return
        if any(gripper.busy for gripper in self._grippers):
            return
        if plan.last_row:
            plan.done = True
        elif plan.keyframe:
            plan.next_row()

    def _measured_near(self, goal) -> bool:
        if self._dry_run:
            return True
        rules = self.config.at_target
        for index, arm in enumerate(self._arms.values()):
            if np.linalg.norm(arm.position - goal.positions[index]) > rules.measured_position_m:
                return False
            if np.linalg.norm(rotations.log(goal.rotations[index] @ arm.matrix.T)) > rules.measured_rotation_rad:
                return False
        return True

    def _leashed(self, goal) -> bool:
        """The bound is reached and the goal leads further away from where the arm is."""
        if self._dry_run:
            return False
        measured = np.stack([arm.position for arm in self._arms.values()])
        matrices = np.stack([arm.matrix for arm in self._arms.values()])
        room, turn_room = self._leash.margins(measured, matrices)
        for index in range(len(measured)):
            way = goal.positions[index] - self._motion.positions[index]
            if room[index] < 0.0 and self._leash.pulls_away(index, self._motion.positions[index], measured[index], way):
                self._detail_now = f"{self.config.arms[index].name}: the arm does not follow its command; free it"
                return True
            if turn_room[index] < 0.0:
                ahead = np.linalg.norm(rotations.log(goal.rotations[index] @ matrices[index].T))
                here = np.linalg.norm(rotations.log(self._motion.rotations[index] @ matrices[index].T))
                if ahead >= here:
                    self._detail_now = f"{self.config.arms[index].name}: the tool does not turn with its command"
                    return True
        return False

    def _reenter_step(self, reasons: Reason) -> bool:
        blocked = reasons & (Reason.JOINT_STATE | Reason.DEADMAN | Reason.CLOCK_JUMP)
        if blocked or self._deactivating:
            moved = self._motion.step(None)
            if blocked:
                self._set(State.RECOVERING, Reason.OUTSIDE_AT_START | blocked, self._detail_now)
            return moved
        moved = self._reentry.step(self.config.reenter_scale)
        self._count_limits()
        if self._reentry.finished:
            self._reentry = None
            self._motion.relaxed = False
            self._set(State.HOLDING, Reason.PROPOSAL_STALE, "")
        return moved

    def _caution(self) -> float:
        rules = self.config.caution
        prediction = self._plan.proposal.prediction if self._plan is not None else None
        if not rules.enabled or prediction is None:
            return 1.0
        doubtful = (prediction.path_distance > rules.distance_m or prediction.path_angle > rules.angle_rad
                    or prediction.mean_confidence < rules.confidence)
        return rules.scale if doubtful else 1.0

    # ---- small things ------------------------------------------------------------------------------------------

    def _resting(self) -> bool:
        return self._motion.at_rest

    def _drop(self) -> None:
        self._plan = None
        for gripper in self._grippers:
            gripper.cancel()

    def _drop_replaced(self) -> None:
        """The target of an instruction that has been replaced is dropped."""
        if self._plan is not None and self._plan.proposal.instruction_sequence < self._gate.instruction_sequence:
            self._drop()

    def _to_inactive(self) -> None:
        self._drop()
        self._deactivating, self._reentry = False, None
        self._motion.relaxed = False
        self._set(State.INACTIVE, Reason.NONE, "")

    def _set(self, state: State, reasons: Reason, detail: str) -> None:
        if state in (State.HOLDING, State.STOPPED) and self._state in (State.ACTIVE, State.RECOVERING):
            self._counters.add("holds")
        self._state, self._reasons, self._detail = state, reasons, detail

    def _seed(self) -> None:
        self._motion.seed(np.stack([arm.joints for arm in self._arms.values()]))
        self._leash.restart(self._motion.positions, self._motion.rotations)
        for gripper, arm in zip(self._grippers, self._arms.values()):
            gripper.restart(arm.state.gripper)
        self._counters.add("reseeds")
        self._seeded = True
        self._motion.relaxed = False
        self._drop()
        self._executed = None

    def _follow_measured(self) -> None:
        """At rest, the joint solution behind the command is found anew from the measured joints; the pose stays."""
        measured = np.stack([arm.joints for arm in self._arms.values()])
        if np.isfinite(measured).all() and np.abs(measured - self._motion.joints).max() > 1e-3:
            self._counters.add("reposes", int(self._motion.repose(measured)))

    def _not_ready(self, now: float) -> str:
        for name, arm in self._arms.items():
            if not arm.age(now) <= self.config.watchdogs.joint_state_s:
                return f"{name}: {arm.fault or f'joint states are {arm.age(now):.2f} s old'}; check the driver"
            if not arm.state.ready:
                return f"{name}: {arm.state.message or 'the robot does not accept commands'}; recover it first"
        return ""

    def _tool_problem(self) -> str:
        for name, arm in self._arms.items():
            mismatch = arm.tool_mismatch()
            if mismatch is None:
                continue
            if mismatch[0] > self.config.tcp_tolerance_m or mismatch[1] > self.config.tcp_tolerance_rad:
                text = (f"{name}: the driver's tool pose differs from ours by {mismatch[0] * 1e3:.1f} mm and "
                        f"{math.degrees(mismatch[1]):.2f} degrees; check the tool in config/robots")
                self._set(self._state, Reason.TCP_MISMATCH, text)
                return text
        return ""

    def _outside(self) -> str:
        """The worst positional limit broken at the seeded pose, with its amount, or an empty string."""
        worst, text = 0.0, ""
        for limit, margins in self._motion.margins(self._motion.joints):
            if limit.positional and not limit.may_lead_out and margins.size and margins.min() < worst - 1e-9:
                index = int(np.argmin(margins))
                worst = float(margins[index])
                text = f"{limit.names[index]} is outside by {-worst:.4f} {limit.unit}"
        return text

    def _near_command(self) -> bool:
        measured = np.stack([arm.position for arm in self._arms.values()])
        matrices = np.stack([arm.matrix for arm in self._arms.values()])
        room, turn = self._leash.margins(measured, matrices)
        return bool((room > 0.0).all() and (turn > 0.0).all())

    def _count_rejection(self, reason: Reason) -> None:
        self._counters.add(f"rejected/{reporting.flag_names(reason).lower()}")

    def _count_limits(self) -> None:
        limited = frozenset(self._motion.limited)
        for name in limited - self._limited_before:
            self._counters.add(f"limited/{name}")
        self._limited_before = limited

    def _commands(self, now: float, moved: bool) -> Tuple[ArmCommand, ...]:
        motion = self._motion
        publish = (moved and not self._dry_run and self._seeded and self._state != State.INACTIVE
                   and not (self._state == State.STOPPED and self._reasons & Reason.ROBOT_MODE)
                   and not (self._state == State.STOPPED and self._was_inactive))
        commands: List[ArmCommand] = []
        for index, (arm, gripper) in enumerate(zip(self._arms.values(), self._grippers)):
            quaternion = rotations.to_quaternion(motion.rotations[index])
            if float(quaternion @ self._quaternions[index]) < 0.0:
                quaternion = -quaternion
            self._quaternions[index] = quaternion
            state = arm.state.gripper_state if arm.state is not None else GripperState.UNKNOWN
            opening = gripper.tick(now, state)
            commands.append(ArmCommand(self.config.arms[index].name, Pose(motion.positions[index].copy(), quaternion),
                                       motion.joints[index].copy(), opening if publish else None, publish))
        return tuple(commands)

    def _status(self, now: float, wall: float, cpu: float) -> Tuple[SafetyStatus, bool]:
        last = self._output.status if self._output is not None else None
        done = self._plan.done if self._plan is not None else False
        executed = self._executed
        changed = (last is None or last.state != self._state or last.reasons != self._reasons
                   or last.sequence != (executed.sequence if executed else 0) or last.at_target != done)
        if not changed and 0.0 <= now - self._status_at < 1.0 / self.config.status_hz - 0.5 * self.config.dt:
            return last, False
        self._status_at = now
        goal = self._plan.goal(now, self._motion.positions, self._motion.rotations) if self._plan else None
        error = self._motion.error(goal) if goal is not None else np.full((len(self._arms), 6), np.nan)
        arms = []
        for index, (name, arm) in enumerate(self._arms.items()):
            measured = (Pose(arm.position, rotations.to_quaternion(arm.matrix)) if arm.state is not None else None)
            arms.append(ArmSafety(
                name, Pose(self._motion.positions[index].copy(), self._quaternions[index]), measured,
                float(np.linalg.norm(error[index, :3])), float(np.linalg.norm(error[index, 3:])), done,
                arm.state.gripper_state if arm.state is not None else GripperState.UNKNOWN,
                arm.state.robot_mode if arm.state is not None else 0, arm.age(now)))
        if not 0.0 <= now - self._margins_at < 1.0 / self.config.status_hz - 0.5 * self.config.dt:
            self._margins_at = now
            self._margins = tuple(LimitMargin(name, float(value), limit.unit, limit.name in self._motion.limited)
                                  for limit, values in self._motion.margins()
                                  for name, value in zip(limit.names, values))
        received = self._plan.received if self._plan is not None else math.nan
        status = SafetyStatus(
            self._state, self._reasons, reporting.sentence(self._state, self._reasons, self._detail), self._dry_run,
            self._speed_scale, self._applied, executed.epoch if executed else 0, executed.sequence if executed else 0,
            executed.instruction_sequence if executed else 0, now - received,
            now - received + executed.observation_age if executed else math.nan,
            (time.thread_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3, tuple(arms), self._margins,
            self._counters.snapshot())
        return status, changed
