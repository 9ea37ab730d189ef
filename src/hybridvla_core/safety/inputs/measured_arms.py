"""The reports of all arms together: what in them ends motion, and whether motion may begin."""
from __future__ import annotations

import math
from typing import Counter, Iterator, Sequence, Set, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.inputs.measured_arm import MeasuredArm
from hybridvla_core.safety.inputs.measured_limits import MeasuredLimits
from hybridvla_core.safety.status import Reason

SETTLED_S = 0.5        # after command and arm rest this long, the driver's tool pose must agree with ours as at activation
PAIRING_S = 0.1        # before that, pose and joints may be this far apart in time
#: Reasons that stop the arms until somebody deals with them, so that the sentence on them is the one that stays.
STOPPING = Reason.ROBOT_MODE | Reason.CONTROLLER


class MeasuredArms:
    """The measured arms in the configuration's order. `joints` (A, dof) rad, `positions` (A, 3) m, `matrices` (A, 3, 3)."""

    def __init__(self, config: RobotConfig, counters: Counter[str], watch_delay: bool = True) -> None:
        """Sets up all arms. watch_delay: stamps run with our own clock, so that growing delays of reports are noticed."""
        self._config = config
        self._counters = counters
        self._arms: Sequence[MeasuredArm] = [MeasuredArm(arm, watch_delay) for arm in config.arms]
        self.limits = MeasuredLimits(config)
        self.unknown: Set[str] = set()      # arms without usable joint states at the last look
        self._breached = False
        self._unsettled_at = float("-inf")

    def __iter__(self) -> Iterator[MeasuredArm]:
        return iter(self._arms)

    @property
    def joints(self) -> np.ndarray:
        return np.array([arm.joints for arm in self._arms])

    @property
    def positions(self) -> np.ndarray:
        return np.array([arm.position for arm in self._arms])

    @property
    def matrices(self) -> np.ndarray:
        return np.array([arm.matrix for arm in self._arms])

    def update(self, state: ArmState, now: float) -> str:
        """Takes a report; returns why it cannot be used, or an empty string."""
        for arm in self._arms:
            if arm.name == state.name:
                fault = arm.update(state, now)
                return f"{state.name}: {fault}; check the driver" if fault else ""
        return f"there is no arm {state.name!r}; check the driver"

    def heard(self, index: int, now: float) -> bool:
        """Returns whether the position of an arm is known."""
        arm = self._arms[index]
        return arm.state is not None and not arm.doubtful(now) and arm.age(now) <= self._config.watchdogs.joint_state_s

    def errored(self) -> Tuple[str, ...]:
        """Returns the arms that take no commands: their robot reports an error, or their controller does not run."""
        return tuple(arm.name for arm in self._arms
                     if arm.state is not None and not (arm.state.ready and arm.state.controller_ready))

    def accept_controllers(self) -> None:
        for arm in self._arms:
            arm.accept_controller()

    def look(self, now: float, judge: bool, resting: bool) -> Tuple[Reason, str]:
        """Judges the reports of all arms.

        Args:
            now: Monotonic time, s.
            judge: Whether measured values are checked against limits and tool pose.
            resting: Whether the command rests.

            Returns:
                Flags of what is wrong, and a sentence on the first fault that stops the arms, or else on the first fault.
        """
        reasons, detail, breached = Reason.NONE, "", False
        self.unknown.clear()
        if not resting or any(arm.moving(now) for arm in self._arms):
            self._unsettled_at = now
        for arm in self._arms:
            reason, text = self._fault(arm, now)
            if not reason and judge:
                text = "" if self.limits.relaxed else arm.outside()
                reason = Reason.MEASURED_LIMIT if text else Reason.NONE
                breached = breached or bool(text)
                if not text:
                    text = self._mismatch(arm, moving=now - self._unsettled_at < SETTLED_S)
                    reason = Reason.TCP_MISMATCH if text else Reason.NONE
            if reason:
                if not detail or reason & STOPPING and not reasons & STOPPING:
                    detail = f"{arm.name}: {text}"
                reasons |= reason
            if not arm.age(now) <= self._config.watchdogs.joint_state_s:
                self.unknown.add(arm.name)
        if judge and not reasons & Reason.JOINT_STATE and not breached:
            reason, text = self.limits.breach(self.joints)
            reasons, detail, breached = reasons | reason, detail or text, bool(reason)
        self._counters["measured_violations"] += int(breached and not self._breached)
        self._breached = breached
        return reasons, detail

    def not_ready(self, now: float, others_move: bool = False) -> str:
        """Says why motion may not begin.

        Args:
            now: Monotonic time, s.
            others_move: Whether others may move the arms meanwhile, because nothing will be commanded.

            Returns:
                A sentence; empty if motion may begin.
        """
        for arm in self._arms:
            reason, text = self._fault(arm, now, judge_change=False)
            if reason:
                return f"{arm.name}: {text}" + ("" if reason == Reason.JOINT_STATE else "; recover it first")
            if arm.moving(now) and not others_move:
                return f"{arm.name}: the arm is still moving; wait until it rests"
        return ""

    def tool_problem(self) -> str:
        """Returns how the driver's own tool pose disagrees with ours, or an empty string."""
        for arm in self._arms:
            text = self._mismatch(arm)
            if text:
                return f"{arm.name}: {text}"
        return ""

    def _fault(self, arm: MeasuredArm, now: float, judge_change: bool = True) -> Tuple[Reason, str]:
        age = arm.age(now)
        if not age <= self._config.watchdogs.joint_state_s:
            since = f"no usable joint states for {age:.2f} s" if math.isfinite(age) else ""
            if arm.lateness > self._config.watchdogs.joint_state_s:
                since = f"joint states come {arm.lateness:.2f} s later than they did, by their own stamps"
            return Reason.JOINT_STATE, f"{'; '.join(text for text in (since, arm.fault) if text)}; check the driver"
        if arm.doubtful(now):
            return Reason.JOINT_STATE, f"{arm.doubtful(now)}; check the driver"
        if arm.state is None:
            return Reason.JOINT_STATE, "no joint states yet; check the driver"
        if not arm.state.ready:
            return Reason.ROBOT_MODE, arm.state.message or "the robot does not accept commands"
        problem = arm.controller_problem()
        if problem and (judge_change or not arm.state.controller_ready):
            return Reason.CONTROLLER, problem
        return Reason.NONE, ""

    def _mismatch(self, arm: MeasuredArm, moving: bool = False) -> str:
        apart = arm.tool_mismatch()
        if apart is None:
            return ""
        limits, slack = self._config.arm(arm.name).cartesian_limits, PAIRING_S if moving else 0.0
        if (apart[0] <= self._config.tcp_tolerance_m + slack * limits.speed_m_s
                and apart[1] <= self._config.tcp_tolerance_rad + slack * limits.rotation_speed_rad_s):
            return ""
        return (f"the driver's tool pose differs from ours by {apart[0] * 1e3:.1f} mm and "
                f"{math.degrees(apart[1]):.2f} degrees; check the tool in config/robots")
