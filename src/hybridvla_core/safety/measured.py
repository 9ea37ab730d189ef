"""What the arms report: joint states by name, their age, jumps, readiness, and where they are against the limits."""
from __future__ import annotations

import math
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState
from hybridvla_core.safety import rotations
from hybridvla_core.safety.config import ArmConfig, RobotConfig
from hybridvla_core.safety.kinematics import ArmKinematics
from hybridvla_core.safety.reporting import Counters
from hybridvla_core.safety.status import Reason

JUMP_SHARE = 3.0       # times the joint's speed limit between two reports ...
JUMP_RAD = 0.05        # ... plus this is a jump, not a motion
OUTSIDE_RAD = 0.01     # tolerance on measured joints against their limits
OUTSIDE_M = 0.02       # tolerance on the measured tool pose against the box


class MeasuredArm:
    """The latest good report of one arm; times are monotonic seconds."""

    def __init__(self, arm: ArmConfig) -> None:
        self._arm = arm
        self.name = arm.name
        self._kinematics = ArmKinematics(arm)
        self._lower = np.array(arm.joint_limits.lower_rad)
        self._upper = np.array(arm.joint_limits.upper_rad)
        self._speed = np.array(arm.joint_limits.velocity_rad_s)
        self.state: Optional[ArmState] = None
        self.joints = np.full(arm.dof, np.nan)
        self.position = np.full(3, np.nan)
        self.matrix = np.full((3, 3), np.nan)
        self.fault = "no joint states yet"
        self._received = float("-inf")
        self._order: Tuple[Tuple[str, ...], List[int]] = ((), [])

    def update(self, state: ArmState, now: float) -> str:
        """Take a report; returns why it cannot be used, or an empty string. A jump is taken, and reported once."""
        problem = self._unusable(state)
        if problem:
            self.fault = problem
            return problem
        joints = np.asarray(state.joint_positions, dtype=float)[self._order[1]]
        elapsed = max(0.0, now - self._received)
        jump = np.abs(joints - self.joints) - (JUMP_SHARE * self._speed * elapsed + JUMP_RAD)
        worst = int(np.argmax(jump)) if self.state is not None else 0
        jumped = self.state is not None and jump[worst] > 0.0
        self.state, self.joints, self._received = state, joints, now
        self.position, self.matrix = self._kinematics.pose(joints)
        self.fault = f"joint {worst + 1} jumped within {elapsed * 1e3:.0f} ms" if jumped else ""
        return self.fault

    def age(self, now: float) -> float:
        return now - self._received

    def outside(self) -> str:
        """Which measured value lies outside its limit by more than the tolerance, or an empty string."""
        room = np.minimum(self.joints - self._lower, self._upper - self.joints)
        worst = int(np.argmin(room))
        if room[worst] < -OUTSIDE_RAD:
            return f"joint {worst + 1} is {-room[worst]:.3f} rad outside its limit"
        for axis, low, value, high in zip("xyz", self._arm.workspace.lower_m, self.position,
                                          self._arm.workspace.upper_m):
            if value < low - OUTSIDE_M or value > high + OUTSIDE_M:
                return f"the tool is {max(low - value, value - high) * 1e3:.0f} mm outside the box along {axis}"
        return ""

    def tool_mismatch(self) -> Optional[Tuple[float, float]]:
        """Distance m and angle rad between the driver's own tool pose and ours; None when it reports none."""
        if self.state is None or self.state.pose is None:
            return None
        angle = np.linalg.norm(rotations.log(rotations.to_matrix(self.state.pose.quaternion) @ self.matrix.T))
        return float(np.linalg.norm(self.state.pose.position - self.position)), float(angle)

    def _unusable(self, state: ArmState) -> str:
        names = tuple(state.joint_names)
        if names != self._order[0]:
            missing = [name for name in self._arm.joint_names if name not in names]
            if missing:
                return f"joint {missing[0]} is missing in the joint states"
            if len(set(names)) != len(names):
                return "a joint is named twice in the joint states"
            self._order = (names, [names.index(name) for name in self._arm.joint_names])
        values = np.asarray(state.joint_positions, dtype=float)
        if values.shape != (len(names),):
            return f"joint states carry {values.size} positions for {len(names)} names"
        if not np.isfinite(values[self._order[1]]).all():
            return "a joint position is not a number"
        return ""


class MeasuredArms:
    """All arms in the configuration's order. `joints` (A, dof) rad, `positions` (A, 3) m, `matrices` (A, 3, 3)."""

    def __init__(self, config: RobotConfig, counters: Counters) -> None:
        self._config = config
        self._counters = counters
        self._arms: Sequence[MeasuredArm] = [MeasuredArm(arm) for arm in config.arms]
        self._breached = False
        self.names = tuple(arm.name for arm in config.arms)

    def __iter__(self) -> Iterator[MeasuredArm]:
        return iter(self._arms)

    @property
    def joints(self) -> np.ndarray:
        return np.stack([arm.joints for arm in self._arms])

    @property
    def positions(self) -> np.ndarray:
        return np.stack([arm.position for arm in self._arms])

    @property
    def matrices(self) -> np.ndarray:
        return np.stack([arm.matrix for arm in self._arms])

    def update(self, state: ArmState, now: float) -> str:
        """Take a report; returns why it cannot be used, or an empty string."""
        for arm in self._arms:
            if arm.name == state.name:
                fault = arm.update(state, now)
                return f"{state.name}: {fault}; check the driver" if fault else ""
        return f"there is no arm {state.name!r}; check the driver"

    def look(self, now: float, longest_s: float, judge: bool) -> Tuple[Reason, str]:
        """What is wrong with the reports at `now`. judge: whether values outside their limits count."""
        reasons, detail, breached = Reason.NONE, "", False
        for arm in self._arms:
            age = arm.age(now)
            if age > longest_s:
                reasons |= Reason.JOINT_STATE
                silence = f"no usable joint states for {age:.2f} s" if math.isfinite(age) else arm.fault
                detail = detail or f"{arm.name}: {silence}; check the driver"
            elif arm.state is not None and not arm.state.ready:
                reasons |= Reason.ROBOT_MODE
                detail = detail or f"{arm.name}: {arm.state.message or 'the robot does not accept commands'}"
            elif judge:
                breach = arm.outside()
                if breach:
                    reasons |= Reason.MEASURED_LIMIT
                    breached = True
                    detail = detail or f"{arm.name}: {breach}"
        self._counters.add("measured_violations", int(breached and not self._breached))
        self._breached = breached
        return reasons, detail

    def not_ready(self, now: float) -> str:
        """Why no motion may begin, or an empty string."""
        for arm in self._arms:
            if not arm.age(now) <= self._config.watchdogs.joint_state_s:
                return f"{arm.name}: {arm.fault or f'joint states are {arm.age(now):.2f} s old'}; check the driver"
            if not arm.state.ready:
                return f"{arm.name}: {arm.state.message or 'the robot does not accept commands'}; recover it first"
        return ""

    def tool_problem(self) -> str:
        """How the driver's own tool pose disagrees with ours, or an empty string."""
        for arm in self._arms:
            mismatch = arm.tool_mismatch()
            if mismatch is not None and (mismatch[0] > self._config.tcp_tolerance_m
                                         or mismatch[1] > self._config.tcp_tolerance_rad):
                return (f"{arm.name}: the driver's tool pose differs from ours by {mismatch[0] * 1e3:.1f} mm and "
                        f"{math.degrees(mismatch[1]):.2f} degrees; check the tool in config/robots")
        return ""
