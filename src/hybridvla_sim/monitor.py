"""Independent count, by the rig, of targets that break a limit; it shares no code with the safety filter."""
from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import Deque, Optional, Sequence, Tuple

from hybridvla_core.robots.arm import ArmConfig


@dataclass(frozen=True)
class MonitorLimits:
    """Limits against which targets are checked.

    A single step is checked over the longer of its real time and `period`, because a sender's clock jitters. Over `window`, the
    real time counts, plus one period of grace.

    Attributes:
        workspace_min: Lower corner (3,) of the workspace in the base frame, m.
        workspace_max: Upper corner (3,) of the workspace in the base frame, m.
        speed: Largest speed of the targets, m/s.
        rotation_speed: Largest rotation speed of the targets, rad/s.
        period: Time between targets, s.
        window: Time over which motion is summed, s.
        tolerance: Relative tolerance for rounding.
    """

    workspace_min: Tuple[float, ...]
    workspace_max: Tuple[float, ...]
    speed: float
    rotation_speed: float
    period: float = 0.005
    window: float = 0.1
    tolerance: float = 0.03

    @classmethod
    def of(cls, arm: ArmConfig, period: float = 0.005) -> MonitorLimits:
        """Returns the limits of a robot's configuration, read here and not through the filter. period: between targets, s."""
        return cls(workspace_min=tuple(arm.workspace.lower_m), workspace_max=tuple(arm.workspace.upper_m),
                   speed=arm.cartesian_limits.speed_m_s, rotation_speed=arm.cartesian_limits.rotation_speed_rad_s,
                   period=period)


class LimitMonitor:
    """Checks every target that the rig is sent and counts violations by name."""

    def __init__(self, limits: Optional[MonitorLimits] = None) -> None:
        self.limits = limits
        self.counts: Counter = Counter()
        self.targets = 0
        self._last: Optional[Tuple[float, Sequence[float], Sequence[float]]] = None
        self.last_violation = ""
        self._steps: Deque[Tuple[float, float, float]] = deque()  # time of the previous target, distance, angle

    @property
    def violations(self) -> int:
        return sum(self.counts.values())

    def restart(self) -> None:
        """Forget the last target (something else moved the arm) but keep the counts."""
        self._last = None
        self._steps.clear()

    def target(self, time: float, position: Sequence[float], quaternion_xyzw: Sequence[float]) -> bool:
        """Check one target sent at `time` s; return whether it is a pose at all."""
        self.targets += 1
        position, quaternion = [float(v) for v in position], [float(v) for v in quaternion_xyzw]
        if not all(math.isfinite(value) for value in (*position, *quaternion)):
            self.counts["not_finite"] += 1
            return False
        norm = math.sqrt(sum(value * value for value in quaternion))
        if abs(norm - 1.0) > 1e-3:
            self.counts["quaternion"] += 1
            return False
        if self.limits is not None:
            self._check(time, position, quaternion)
        self._last = (time, position, quaternion)
        return True

    def _check(self, time: float, position: Sequence[float], quaternion: Sequence[float]) -> None:
        limits = self.limits
        for axis, value in enumerate(position):
            if value < limits.workspace_min[axis] - 1e-6 or value > limits.workspace_max[axis] + 1e-6:
                self._count("workspace_" + "xyz"[axis], f"{value:.5f} m")
        if self._last is None:
            return
        then, before, turned = self._last
        distance = math.dist(position, before)
        dot = min(1.0, abs(sum(a * b for a, b in zip(quaternion, turned))))
        angle = 2.0 * math.acos(dot) if dot < 1.0 - 1e-9 else 0.0
        self._judge("step", distance, angle, max(time - then, limits.period))
        if time < then:
            self._steps.clear()  # the sender's clock was set back: the window starts over, and this step has no duration
            return
        # A step counts from the previous target: where messages were lost, one step spans the whole gap.
        self._steps.append((then, distance, angle))
        while len(self._steps) > 1 and self._steps[0][0] < time - limits.window:
            self._steps.popleft()
        if distance > 0.0 or angle > 0.0:      # a repeated target is no new violation
            self._judge("window", sum(step[1] for step in self._steps), sum(step[2] for step in self._steps),
                        time - self._steps[0][0] + limits.period)

    def _judge(self, what: str, distance: float, angle: float, elapsed: float) -> None:
        limits = self.limits
        if distance > limits.speed * elapsed * (1 + limits.tolerance) + 1e-5:
            self._count(f"speed_{what}", f"{distance * 1e3:.3f} mm in {elapsed * 1e3:.2f} ms")
        if angle > limits.rotation_speed * elapsed * (1 + limits.tolerance) + 1e-4:
            self._count(f"rotation_speed_{what}", f"{angle:.5f} rad in {elapsed * 1e3:.2f} ms")

    def _count(self, name: str, detail: str) -> None:
        self.counts[name] += 1
        self.last_violation = f"{name}: {detail}"
