"""The rig's own count of targets that break a limit; it shares no code with the safety filter."""
from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple


@dataclass(frozen=True)
class MonitorLimits:
    """workspace_min, workspace_max: (3,) m in the base frame; speed m/s and rotation_speed rad/s between successive
    targets. tolerance: relative, for rounding and for the clock's resolution."""

    workspace_min: Tuple[float, ...]
    workspace_max: Tuple[float, ...]
    speed: float
    rotation_speed: float
    tolerance: float = 0.02


class LimitMonitor:
    """Looks at every target the rig is sent and counts what it breaks, by name."""

    def __init__(self, limits: Optional[MonitorLimits] = None) -> None:
        self.limits = limits
        self.counts: Counter = Counter()
        self.targets = 0
        self._last: Optional[Tuple[float, Sequence[float], Sequence[float]]] = None

    @property
    def violations(self) -> int:
        return sum(self.counts.values())

    def restart(self) -> None:
        """Forget the last target (the arm was moved by something else); counts stay."""
        self._last = None

    def target(self, time: float, position: Sequence[float], quaternion_xyzw: Sequence[float]) -> bool:
        """One target at `time` s; returns whether it is a pose at all."""
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
                self.counts["workspace_" + "xyz"[axis]] += 1
        if self._last is None:
            return
        then, before, turned = self._last
        elapsed = time - then
        distance = math.dist(position, before)
        dot = min(1.0, abs(sum(a * b for a, b in zip(quaternion, turned))))
        angle = 2.0 * math.acos(dot) if dot < 1.0 - 1e-9 else 0.0
        if distance > limits.speed * elapsed * (1 + limits.tolerance) + 1e-5:
            self.counts["speed"] += 1
        if angle > limits.rotation_speed * elapsed * (1 + limits.tolerance) + 1e-4:
            self.counts["rotation_speed"] += 1
