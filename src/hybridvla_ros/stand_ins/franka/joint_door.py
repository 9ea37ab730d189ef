"""Independent count of the targets at the FR3's joint door that break a limit; it shares no code with the safety filter."""
from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.robots.config import RobotConfig
from hybridvla_sim.fr3.scene import SceneIndex, tool_pose
from hybridvla_sim.piper.monitor import JointMonitor, JointMonitorLimits

ROUNDING_S = 1e-6


class JointDoor:
    """Judges what comes in by trajectories.

    A target is one point that is due `trajectory_ahead_s` later and replaces the one before. Targets have no stamp, and a busy
    computer delivers them late, in bunches or not at all, so by the sender's own numbers each counts for one period at least. Any
    other trajectory is a stop or a planned way; after it the count begins anew.

    Args:
        model: Model of the scene.
        index: Addresses of the arm in it.
        config: Configuration of the robot, read here and not through the filter.

    Attributes:
        monitor: The counts.
    """

    def __init__(self, model: mujoco.MjModel, index: SceneIndex, config: RobotConfig) -> None:
        self._model, self._index, self._data = model, index, mujoco.MjData(model)
        self._ahead_s, self._period = config.franka.trajectory_ahead_s, config.dt
        self.monitor = JointMonitor(JointMonitorLimits.of(config.arms[0], config.tick_hz))
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
        self._data.qpos[self._index.arm_qpos] = positions[0]
        mujoco.mj_kinematics(self._model, self._data)
        position, rotation = tool_pose(self._model, self._data, self._index)
        self.monitor.command(self._sent, positions[0], position, Rotation.from_matrix(rotation).as_quat())
