"""The reports of one arm: joint states by name, their age, jumps, rest, and their position against the limits."""
from __future__ import annotations

import math
from dataclasses import replace
from typing import List, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState
from hybridvla_core.geometry import poses, rotations
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.kinematics import ArmKinematics

JUMP_SHARE = 3.0       # times the joint's speed limit between two reports ...
JUMP_RAD = 0.05        # ... plus this is a jump, not a motion
OUTSIDE_RAD = 0.01     # tolerance on measured joints against their limits
OUTSIDE_M = 0.02       # tolerance on the measured tool pose against the box
DOUBT_S = 0.2          # after an unusable report or a jump, good reports have to come for this long
SET_BACK_S = 0.1       # a stamp older than the last by more: the clock was set back; by less: another report overtook it
SET_AHEAD_S = 1.0      # a stamp that gains more than this on our own clock: the clock was set ahead
REST_RAD = 0.003       # movement of any joint within REST_S that counts as moving
REST_S = 0.1
REST_RAD_S = 0.05      # reported joint speed that counts as moving
IMPOSSIBLE_RAD = 1.0   # no joint can be this far outside its range: another unit, or another joint
MOST_NAMES = 9         # largest number of names that a sentence gives
DRIFT = 1e-3           # seconds per second by which the driver's clock may run slower than ours


class MeasuredArm:
    """The latest good report of one arm; times are monotonic seconds."""

    def __init__(self, arm: ArmConfig, watch_delay: bool = True) -> None:
        self._arm = arm
        self._watch_delay = watch_delay
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
        self.controller = ""
        self._received = self._doubt_until = self._moved_at = float("-inf")
        self._stamp = math.nan
        self._delay, self._least_delay = math.nan, math.inf      # arrival minus stamp: latest and smallest
        self._anchor, self._anchor_at = np.full(arm.dof, np.nan), float("-inf")
        self._order: Tuple[Tuple[str, ...], List[int]] = ((), [])

    def update(self, state: ArmState, now: float) -> str:
        """Takes a report; returns why it cannot be used, or an empty string. A jump is accepted, and doubted for a while."""
        fault = self._unusable(state)
        if not fault:
            fault, new = self._clock_fault(state.stamp, now)
            if not new:
                self._retell(state)
                return ""
            fault = self._take(state, now) or fault
            if now >= self._doubt_until:
                self.fault = ""
        if fault:
            self.fault, self._doubt_until = fault, now + DOUBT_S
        return fault

    def _retell(self, state: ArmState) -> None:
        """Takes the same reading once more: position and its age stay as they are; the driver's other reports are renewed."""
        if self.state is not None:
            self.state = replace(self.state, ready=state.ready, message=state.message, robot_mode=state.robot_mode,
                                 gripper=state.gripper, gripper_state=state.gripper_state, controller=state.controller,
                                 controller_ready=state.controller_ready)

    def age(self, now: float) -> float:
        """Returns the age of the last report, s: time since receipt, plus how much later than usual it came by its stamp."""
        return now - self._received + self.lateness

    @property
    def lateness(self) -> float:
        """Growth of (arrival - stamp), s; needs no common clock. NaN stamps are never late."""
        late = self._delay - self._least_delay
        return late if self._watch_delay and late > 0.0 else 0.0

    def doubtful(self, now: float) -> str:
        """Returns why the last reports cannot be trusted yet, or an empty string."""
        return self.fault if now < self._doubt_until else ""

    def moving(self, now: float) -> bool:
        """Returns whether the arm has moved within the last REST_S, or reports a speed."""
        speeds = self.state.joint_velocities if self.state is not None else None
        if speeds is not None and np.size(speeds) and float(np.nanmax(np.abs(speeds))) > REST_RAD_S:
            return True
        return now - self._moved_at < REST_S

    def accept_controller(self) -> None:
        """Accepts the controller that takes our commands now as the one they are meant for."""
        self.controller = self.state.controller if self.state is not None else ""

    def controller_problem(self) -> str:
        """Returns why commands would reach no controller or the wrong one, or an empty string."""
        if self.state is None:
            return ""
        if not self.state.controller_ready:
            return self.state.message or "the controller that takes our commands does not run"
        if self.state.controller != self.controller:
            return f"the controller changed from {self.controller!r} to {self.state.controller!r}"
        return ""

    def outside(self) -> str:
        """Returns which measured value is outside its limit by more than the tolerance, or an empty string."""
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
        """Returns distance m and angle rad between the driver's own tool pose and ours; None if the driver reports none."""
        if self.state is None or self.state.pose is None:
            return None
        angle = poses.turn(rotations.to_matrix(self.state.pose.quaternion), self.matrix)
        return rotations.length(self.state.pose.position - self.position), angle

    def _take(self, state: ArmState, now: float) -> str:
        joints = np.asarray(state.joint_positions, dtype=float)[self._order[1]]
        elapsed = max(0.0, now - self._received)
        jump = np.abs(joints - self.joints) - (JUMP_SHARE * self._speed * elapsed + JUMP_RAD)
        worst = int(np.argmax(jump)) if self.state is not None else 0
        jumped = self.state is not None and jump[worst] > 0.0
        if self.state is not None and np.abs(joints - self._anchor).max() > REST_RAD:
            self._moved_at = now
        if self.state is None or self._moved_at == now or now - self._anchor_at >= REST_S:
            self._anchor, self._anchor_at = joints, now
        self.state, self.joints, self._received = state, joints, now
        self.position, self.matrix = self._kinematics.pose(joints)
        return f"joint {worst + 1} jumped within {elapsed * 1e3:.0f} ms" if jumped else ""

    def _clock_fault(self, stamp: float, now: float) -> Tuple[str, bool]:
        """Returns what is wrong with the driver's clock, and whether the report is newer than the last."""
        if math.isnan(stamp):
            return "", True
        last, self._stamp = self._stamp, stamp
        if math.isnan(last) or stamp > last:
            delay = now - stamp
            gone = 0.0 if math.isnan(self._delay) else max(0.0, now - self._received)
            set_back = math.isnan(last) or stamp - last > gone + SET_AHEAD_S
            self._least_delay = delay if set_back else min(delay, self._least_delay + DRIFT * gone)
            self._delay = delay
        if math.isnan(last) or stamp > last and stamp - last <= now - self._received + SET_AHEAD_S:
            return "", True
        if stamp > last:
            return f"the driver's clock was set ahead by {stamp - last:.1f} s", True
        if stamp < last - SET_BACK_S:
            self._delay = self._least_delay = now - stamp
            return f"the driver's clock was set back by {last - stamp:.1f} s", True
        self._stamp = last
        if now - self._received > DOUBT_S:
            self.fault = "the stamps of its joint states stand still"
        return "", False

    def _unusable(self, state: ArmState) -> str:
        if state.stamp == 0.0 or math.isinf(state.stamp):
            return "joint states carry no stamp"
        names = tuple(state.joint_names)
        if names != self._order[0] or not names:
            missing = [name for name in self._arm.joint_names if name not in names]
            if missing:
                named = f"{', '.join(names[:MOST_NAMES])}{', ...' if len(names) > MOST_NAMES else ''}" if names else "nothing"
                return f"joint {missing[0]} is missing in the joint states, which name {named}"
            if len(set(names)) != len(names):
                return "a joint is named twice in the joint states"
            self._order = (names, [names.index(name) for name in self._arm.joint_names])
        values = np.asarray(state.joint_positions, dtype=float)
        if values.shape != (len(names),):
            return f"joint states carry {values.size} positions for {len(names)} names"
        joints = values[self._order[1]]
        if not np.isfinite(joints).all():
            return "a joint position is not a number"
        beyond = np.maximum(self._lower - joints, joints - self._upper)
        worst = int(np.argmax(beyond))
        if beyond[worst] > IMPOSSIBLE_RAD:
            return (f"joint {worst + 1} reads {joints[worst]:.4g}, where no arm can be: its range is {self._lower[worst]:.4g} to "
                    f"{self._upper[worst]:.4g} rad; does the driver report degrees, or another joint?")
        return ""
