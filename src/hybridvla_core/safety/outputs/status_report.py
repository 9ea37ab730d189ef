"""The status, made at its own rate and on every change."""
from __future__ import annotations

import math
import time
from typing import Counter, List, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import GripperState, Pose
from hybridvla_core.geometry import rotations
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.execution import Execution
from hybridvla_core.safety.inputs.measured_arms import MeasuredArms
from hybridvla_core.safety.machine import StateMachine
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.status import ArmSafety, LimitMargin, SafetyStatus, status_sentence


class StatusReport:
    """Makes the status and remembers the last one; margins are computed only when a status is due."""

    def __init__(self, config: RobotConfig, motion: Motion, arms: MeasuredArms, execution: Execution) -> None:
        self._motion = motion
        self._arms = arms
        self._execution = execution
        self._period = 1.0 / config.status_hz - 0.5 * config.dt
        self._at = self._margins_at = -math.inf
        self._margins: Tuple[LimitMargin, ...] = ()
        self._last: Optional[SafetyStatus] = None

    def make(self, now: float, machine: StateMachine, dry_run: bool, speed_scale: float, counters: Counter[str],
             began: Tuple[float, float], quaternions: List[np.ndarray]) -> Tuple[SafetyStatus, bool]:
        """Returns the status, and whether something in it changed. began: wall and thread CPU clock at the tick's beginning."""
        last, executed, plan = self._last, self._execution.executed, self._execution.plan
        state, reasons, sentence = machine.state, machine.reasons, machine.detail
        changed = (last is None or last.state != state or last.reasons != reasons
                   or last.sequence != (executed.sequence if executed else 0)
                   or last.at_target != self._execution.done or last.seed != machine.seed)
        if last is not None and not changed and 0.0 <= now - self._at < self._period:
            return last, False
        self._at = now
        received = plan.received if plan is not None else math.nan
        self._last = SafetyStatus(
            state, reasons, status_sentence(state, reasons, sentence), dry_run, speed_scale, self._execution.applied,
            executed.epoch if executed else 0, executed.sequence if executed else 0,
            executed.instruction_sequence if executed else 0, now - received,
            now - received + executed.observation_age if executed else math.nan,
            (time.thread_time() - began[1]) * 1e3, (time.perf_counter() - began[0]) * 1e3,
            self._arm_reports(now, quaternions), self._margins_now(now), dict(counters),
            machine.seed)
        return self._last, changed

    def _arm_reports(self, now: float, quaternions: List[np.ndarray]) -> Tuple[ArmSafety, ...]:
        goal, plan = self._execution.goal(now), self._execution.plan
        error = self._motion.error(goal) if goal is not None else np.full((len(quaternions), 6), np.nan)
        asked = plan.asked if plan is not None else None
        reports = []
        for index, arm in enumerate(self._arms):
            state = arm.state
            known = state is not None
            measured = Pose(arm.position, rotations.to_quaternion(arm.matrix)) if known else None
            wanted = Pose(asked.positions[index], rotations.to_quaternion(asked.rotations[index])) if asked is not None else None
            reports.append(ArmSafety(
                arm.name, Pose(self._motion.positions[index].copy(), quaternions[index]), measured,
                float(np.linalg.norm(error[index, :3])), float(np.linalg.norm(error[index, 3:])), self._execution.done,
                state.gripper_state if state is not None else GripperState.UNKNOWN, state.robot_mode if state is not None else 0,
                arm.age(now), self._execution.guard.push(index) if known else math.nan, wanted,
                plan is not None and bool(plan.outside[index] > 0.0)))
        return tuple(reports)

    def _margins_now(self, now: float) -> Tuple[LimitMargin, ...]:
        if not 0.0 <= now - self._margins_at < self._period:
            self._margins_at = now
            self._margins = tuple(LimitMargin(name, value, limit.unit, limit.name in self._motion.limited)
                                  for limit, values in self._motion.margins()
                                  for name, value in zip(limit.names, values.tolist()))
            self._margins += tuple(self._arms.limits.margins(self._arms.joints))
        return self._margins
