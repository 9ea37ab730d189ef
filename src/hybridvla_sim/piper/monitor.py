"""Independent count, by the dual-arm rig, of joint commands that break a limit; it shares no code with the safety filter."""
from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import Deque, Optional, Sequence, Tuple

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_sim.monitor import LimitMonitor, MonitorLimits


@dataclass(frozen=True)
class JointMonitorLimits:
    """Limits against which joint commands are checked.

    Attributes:
        lower: Lower joint limits (dof,) rad.
        upper: Upper joint limits (dof,) rad.
        velocity: Velocity limits (dof,) rad/s.
        tool: Limits of the tool pose that results from the command.
    """

    lower: Tuple[float, ...]
    upper: Tuple[float, ...]
    velocity: Tuple[float, ...]
    tool: MonitorLimits

    @classmethod
    def of(cls, arm: ArmConfig, tick_hz: float) -> JointMonitorLimits:
        """Returns the limits of a robot's configuration, read here and not through the filter. tick_hz: rate of commands."""
        margin = arm.joint_limits.margin_rad
        return cls(lower=tuple(low + margin for low in arm.joint_limits.lower_rad),
                   upper=tuple(high - margin for high in arm.joint_limits.upper_rad),
                   velocity=tuple(arm.joint_limits.velocity_rad_s), tool=MonitorLimits.of(arm, 1.0 / tick_hz))


class JointMonitor:
    """Monitor of one arm: checks every command by the sender's stamps and counts violations by name.

    Speeds are checked as in `LimitMonitor`: a step over the longer of its real time and one period, a window over its
    real time plus one period of grace. Accelerations are not checked: the jitter of the stamps would hide them.
    """

    def __init__(self, limits: Optional[JointMonitorLimits] = None) -> None:
        self.limits = limits
        self._tool = LimitMonitor(limits.tool if limits else None)
        self._counts: Counter = Counter()
        self._last: Optional[Tuple[float, Tuple[float, ...]]] = None
        self._steps: Deque[Tuple[float, Tuple[float, ...]]] = deque()
        self._detail = ""
        self.commands = 0

    @property
    def counts(self) -> Counter:
        return self._counts + self._tool.counts

    @property
    def last_violation(self) -> str:
        return self._detail or self._tool.last_violation

    def restart(self) -> None:
        """Forget the last command but keep the counts."""
        self._last = None
        self._steps.clear()
        self._tool.restart()

    def command(self, time: float, joints: Sequence[float], position: Sequence[float], quaternion: Sequence[float]) -> None:
        """Check finite joints (dof,) rad sent at `time` s, and the resulting tool pose in the arm's base frame."""
        self.commands += 1
        joints = tuple(float(q) for q in joints)
        if self.limits is not None:
            self._check(time, joints)
            self._tool.target(time, position, quaternion)
        self._last = (time, joints)

    def broken(self, name: str, detail: str) -> None:
        """Count a violation that the caller found."""
        self._counts[name] += 1
        self._detail = f"{name}: {detail}"

    def _check(self, time: float, joints: Tuple[float, ...]) -> None:
        limits = self.limits
        for number, (value, low, high) in enumerate(zip(joints, limits.lower, limits.upper), start=1):
            if not low - 1e-6 <= value <= high + 1e-6:
                self.broken(f"joint_{number}_position", f"{value:.5f} rad")
        if self._last is None:
            return
        then, before = self._last
        if time <= then:
            self._steps.clear()
            return
        way = tuple(abs(a - b) for a, b in zip(joints, before))
        self._judge("step", way, max(time - then, limits.tool.period))
        self._steps.append((then, way))
        while len(self._steps) > 1 and self._steps[0][0] < time - limits.tool.window:
            self._steps.popleft()
        if any(way):      # a repeated command is no new violation
            total = tuple(map(math.fsum, zip(*(way for _, way in self._steps))))
            self._judge("window", total, time - self._steps[0][0] + limits.tool.period)

    def _judge(self, what: str, way: Tuple[float, ...], elapsed: float) -> None:
        for number, (distance, speed) in enumerate(zip(way, self.limits.velocity), start=1):
            if distance > speed * elapsed * (1.0 + self.limits.tool.tolerance) + 1e-5:
                self.broken(f"joint_{number}_speed_{what}", f"{distance:.5f} rad in {elapsed * 1e3:.2f} ms")
