"""Independent count of the targets at the FR3's joint door that break a limit; it shares no code with the safety filter."""
from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_sim.piper.monitor import JointMonitor, JointMonitorLimits

ROUNDING_S = 1e-6


def tool_at(arm: ArmConfig, joints: Sequence[float]) -> Tuple[np.ndarray, np.ndarray]:
    """Returns position (3,) m and quaternion (4,) of the tool at joints (7,) rad, in the base frame, from the arm's table."""
    table, pose = arm.kinematics, np.eye(4)
    for joint, a, d, alpha, offset in zip(joints, table.a_m, table.d_m, table.alpha_rad, table.theta_offset_rad):
        cos, sin, c, s = np.cos(joint + offset), np.sin(joint + offset), np.cos(alpha), np.sin(alpha)
        pose = pose @ np.array([[cos, -sin, 0.0, a], [sin * c, cos * c, -s, -s * d], [sin * s, cos * s, c, c * d],
                                [0.0, 0.0, 0.0, 1.0]])
    turn, tool = Rotation.from_matrix(pose[:3, :3]), arm.tool
    position = pose[:3, 3] + turn.apply([0.0, 0.0, table.flange_m]) + turn.apply(tool.position_m)
    return position, (turn * Rotation.from_quat(tool.quaternion_xyzw)).as_quat()


class JointDoor:
    """Judges what comes in by trajectories.

    A target is one point that is due `trajectory_ahead_s` later and replaces the one before. Targets have no stamp, and a busy
    computer delivers them late, in bunches or not at all, so by the sender's own numbers each counts for one period at least. Any
    other trajectory is a stop or a planned way; after it the count begins anew.

    Args:
        config: Configuration of the robot, read here and not through the filter.

    Attributes:
        monitor: The counts.
    """

    def __init__(self, config: RobotConfig) -> None:
        self._arm, self._ahead_s, self._period = config.arms[0], config.franka.trajectory_ahead_s, config.dt
        self.monitor = JointMonitor(JointMonitorLimits.of(self._arm, config.tick_hz))
        self._heard, self._number, self._sent = 0.0, 0, 0.0

    def trajectory(self, now: float, number: int, times: np.ndarray, positions: np.ndarray) -> None:
        """Judges a trajectory.

        Args:
            now: When it arrived, s.
            number: The sender's number of the message.
            times: Times (n,) of the points, s from now.
            positions: Joint positions (n, 7), rad.
        """
        if len(times) != 1 or times[0] > self._ahead_s + ROUNDING_S:
            self.monitor.restart()
            return
        self._sent += max(now - self._heard, max(1, number - self._number) * self._period)
        self._heard, self._number = now, number
        if not np.isfinite(positions).all():
            self.monitor.broken("not_finite", "a joint is not a number")
            return
        self.monitor.command(self._sent, positions[0], *tool_at(self._arm, positions[0]))
