"""An audit of the commands after everything else: plain comparisons with the configuration that share no code with the
limits. It changes nothing and only counts; a count other than 0 is a fault of the filter."""
from __future__ import annotations

from typing import Dict, Sequence, Tuple

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.status import ArmCommand

ROUNDING = 1e-6        # allowance for rounding, m or rad


class CommandAudit:
    """Audits commands; remembers the joints last commanded to each arm."""

    def __init__(self, config: RobotConfig) -> None:
        self._bounds = {arm.name: Bounds(arm, config.dt) for arm in config.arms}
        self._last: Dict[str, Sequence[float]] = {}

    def violations(self, commands: Sequence[ArmCommand], anew: bool, relaxed: bool) -> int:
        """Counts the commands sent that break the configuration.

        Args:
            commands: Commands of this tick.
            anew: Whether the motion began again at rest since the last tick.
            relaxed: Whether the arms are re-entering: they are outside on purpose, and only their steps are checked.

            Returns:
                The number of these commands.
        """
        count = 0
        for command in commands:
            if not command.publish:
                self._last.pop(command.name, None)
                continue
            bounds, joints = self._bounds[command.name], command.joint_positions.tolist()
            last = joints if anew else self._last.get(command.name, joints)
            kept = bounds.small(last, joints) and (relaxed or bounds.inside(command.pose.position.tolist(), joints))
            count += not kept
            self._last[command.name] = joints
        return count


class Bounds:
    """The numbers of one arm. NaN is never inside and never small."""

    def __init__(self, arm: ArmConfig, dt: float) -> None:
        limits = arm.joint_limits
        near = limits.margin_rad - ROUNDING
        self._box = [(low - ROUNDING, high + ROUNDING) for low, high in zip(arm.workspace.lower_m, arm.workspace.upper_m)]
        self._planes = [(plane.normal, plane.offset_m - ROUNDING) for plane in arm.workspace.planes]
        self._joints: Sequence[Tuple[float, float]] = [(low + near, high - near) for low, high
                                                       in zip(limits.lower_rad, limits.upper_rad)]
        self._steps = [speed * dt + ROUNDING for speed in limits.velocity_rad_s]

    def inside(self, position: Sequence[float], joints: Sequence[float]) -> bool:
        """Returns whether position (3,) m and joints (dof,) rad are inside."""
        for value, (low, high) in zip(position, self._box):
            if not low <= value <= high:
                return False
        for value, (low, high) in zip(joints, self._joints):
            if not low <= value <= high:
                return False
        return all(a * position[0] + b * position[1] + c * position[2] >= offset for (a, b, c), offset in self._planes)

    def small(self, last: Sequence[float], joints: Sequence[float]) -> bool:
        """Returns whether no joint is commanded further in one tick than its speed allows."""
        return all(-most <= value - before <= most for before, value, most in zip(last, joints, self._steps))
