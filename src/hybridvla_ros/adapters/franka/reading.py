"""What a `FrankaState` means. No ROS here: any object with the message's fields works."""
from __future__ import annotations

from typing import List, Protocol, Sequence, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.contracts import Pose
from hybridvla_core.robots.arm import ArmConfig

OTHER, IDLE, MOVE, GUIDING, REFLEX, USER_STOPPED, RECOVERY = range(7)
MODES = ("OTHER", "IDLE", "MOVE", "GUIDING", "REFLEX", "USER_STOPPED", "AUTOMATIC_ERROR_RECOVERY")
ADVICE = {REFLEX: "clear the cause, then call /hybridvla/robot/recover",
          USER_STOPPED: "release the stop button, then call /hybridvla/robot/recover",
          GUIDING: "end hand guiding, then call /hybridvla/robot/recover",
          RECOVERY: "wait until the recovery has ended", OTHER: "look at Desk"}



class Flags(Protocol):
    """A `franka_msgs/Errors`: one flag per field."""

    __slots__: Sequence[str]


class RobotState(Protocol):
    """The fields that are read of a `franka_msgs/FrankaState`."""

    robot_mode: int
    current_errors: Flags
    last_motion_errors: Flags
    F_T_EE: Sequence[float]


def matrix(columns: Sequence[float]) -> np.ndarray:
    """Returns a 4 x 4 matrix from franka_ros' sixteen column-major numbers."""
    return np.reshape(np.asarray(columns, dtype=float), (4, 4)).T


def pose(columns: Sequence[float]) -> Pose:
    """Returns position and quaternion of a column-major pose; the rotation is made orthonormal."""
    values = matrix(columns)
    return Pose(values[:3, 3].copy(), Rotation.from_matrix(values[:3, :3]).as_quat())


def errors(flags: Flags) -> List[str]:
    """Returns the names of the flags that are set in a `franka_msgs/Errors`."""
    return [name for name in flags.__slots__ if getattr(flags, name) is True]


def mode_problem(state: RobotState, commanded: bool) -> str:
    """Says why the robot takes no commands.

    Errors do not latch in `current_errors`, so the mode decides and the cause is read from `last_motion_errors`.

    Args:
        state: State as the robot sent it.
        commanded: Whether one of our controllers should be moving it.

    Returns:
        A sentence, empty where the robot takes commands.
    """
    mode = int(state.robot_mode)
    if mode == MOVE or mode == IDLE and not commanded:
        return ""
    if mode == IDLE:
        return "the controller has no effect (mode IDLE): call /hybridvla/robot/recover"
    cause = errors(state.current_errors) or (errors(state.last_motion_errors) if mode == REFLEX else [])
    name = MODES[mode] if mode < len(MODES) else str(mode)
    return f"robot mode {name}{' (' + ', '.join(cause) + ')' if cause else ''}: {ADVICE.get(mode, 'look at Desk')}"


def tool_error(state: RobotState, arm: ArmConfig) -> Tuple[float, float]:
    """Returns distance, m, and angle, rad, between the driver's end-effector frame (F_T_EE) and the configured tool."""
    theirs = matrix(state.F_T_EE)
    turn = Rotation.from_matrix(theirs[:3, :3]) * Rotation.from_quat(arm.tool.quaternion_xyzw).inv()
    return float(np.linalg.norm(theirs[:3, 3] - np.array(arm.tool.position_m))), float(turn.magnitude())


def tool_problem(state: RobotState, arm: ArmConfig, tolerance_m: float, tolerance_rad: float) -> str:
    """Returns a sentence when the end-effector frame is not the configured tool."""
    distance, angle = tool_error(state, arm)
    if distance <= tolerance_m and angle <= tolerance_rad:
        return ""
    return (f"the end-effector frame in Desk differs from the configured tool by {distance * 1e3:.1f} mm and "
            f"{np.degrees(angle):.2f} degrees; make them agree (Desk, or tool in the robot's configuration)")


class RateMeter:
    """Rate of `franka_states` by the robot's own clock: lost messages lower it, a busy computer does not."""

    def __init__(self, count: int = 60) -> None:
        self._times: List[float] = []
        self._count = count

    def add(self, robot_time: float) -> None:
        if self._times and robot_time <= self._times[-1]:
            self._times.clear()  # the driver was started again
        self._times.append(robot_time)
        del self._times[:-self._count]

    @property
    def hz(self) -> float:
        """Returns the rate, Hz; NaN until enough states have arrived."""
        if len(self._times) < self._count:
            return float("nan")
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])
