"""A SpaceMouse as the source of proposals: turns twist and buttons into targets for the same filter as a policy. No ROS.

The arm follows only while the deadman button is held and the device speaks. A target starts at the arm's commanded pose and
runs ahead of it by a bound at most. It is dropped on release and whenever the filter does not follow, so that the arm never
catches up afterwards.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.contracts import Pose
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.safety.status import SafetyStatus, State

#: The filter publishes at 20 Hz; a commanded pose older than this does not count, s.
STATUS_TIMEOUT_S = 0.5
#: States in which the filter follows nobody, and what leads out of them. Its status still names a pose: the last one sent.
DEAF = {State.INACTIVE: "the filter is inactive; call activate",
        State.STOPPED: "the filter is stopped; see to the cause, then call resume",
        State.RECOVERING: "the filter leads the arm slowly; wait until it is inactive, then call activate"}


@dataclass(frozen=True)
class TeleopConfig:
    """How a person's six-axis input moves the tool.

    Attributes:
        twist_topic: Topic of geometry_msgs/Twist in -1 to 1 (spacenav_node's).
        buttons_topic: Topic of sensor_msgs/Joy.
        deadman_button: Index of the deadman button.
        gripper_button: Index of the gripper button.
        linear_m_s: Speed at full deflection, m/s.
        angular_rad_s: Speed at full deflection, rad/s.
        view_yaw_rad: The operator's viewing direction about the base's z axis: 0 looks along +x, pi faces the robot, rad.
        rate_hz: Rate of the proposals, Hz.
        deadzone: Deflection below which an axis counts as at rest.
        input_timeout_s: Silence of the device that counts as a released button, s.
        lead_m: How far a target may run ahead of the commanded pose, m.
        lead_rad: How far a target may turn ahead of the commanded pose, rad.
    """

    twist_topic: str
    buttons_topic: str
    deadman_button: int
    gripper_button: int
    linear_m_s: float
    angular_rad_s: float
    view_yaw_rad: float
    rate_hz: float = 20.0
    deadzone: float = 0.08
    input_timeout_s: float = 0.2
    lead_m: float = 0.03
    lead_rad: float = 0.15

    def __post_init__(self) -> None:
        for key, low, high in (("rate_hz", 5.0, 100.0), ("linear_m_s", 0.001, 0.5), ("angular_rad_s", 0.01, 2.0),
                               ("view_yaw_rad", -math.pi, math.pi), ("deadzone", 0.0, 0.9), ("input_timeout_s", 0.05, 1.0),
                               ("lead_m", 0.001, 0.2), ("lead_rad", 0.01, 0.6)):
            if not low <= getattr(self, key) <= high:
                raise ConfigurationError(f"{key} is {getattr(self, key)}; use a value from {low:.4g} to {high:.4g}")
        if self.deadman_button == self.gripper_button or min(self.deadman_button, self.gripper_button) < 0:
            raise ConfigurationError("deadman_button and gripper_button must be two different indices from 0")
        if not self.twist_topic or not self.buttons_topic:
            raise ConfigurationError("twist_topic and buttons_topic must be named")

    @property
    def period_s(self) -> float:
        return 1.0 / self.rate_hz


class Teleop:
    """Teleoperation of one arm. Times are monotonic s. One caller at a time."""

    def __init__(self, config: TeleopConfig) -> None:
        self._config = config
        self._view = Rotation.from_euler("z", config.view_yaw_rad)
        self._twist, self._twist_at = np.zeros(6), -math.inf
        self._buttons: Tuple[int, ...] = ()
        self._buttons_at = -math.inf
        self._commanded: Optional[Pose] = None
        self._commanded_at = -math.inf
        self._state: Optional[State] = None
        self.seed = 0                    # of the filter, for the proposals
        self._target: Optional[Tuple[np.ndarray, Rotation]] = None
        self.opening = math.nan

    # Inputs ----------------------------------------------------------------------------------------------------------

    def on_twist(self, linear: Sequence[float], angular: Sequence[float], now: float) -> None:
        """Takes deflections in -1 to 1; a value that is not a number counts as rest."""
        twist = np.array([*linear, *angular], dtype=float)
        if not np.isfinite(twist).all():
            return
        twist = np.clip(twist, -1.0, 1.0)
        zone = self._config.deadzone
        self._twist = np.where(np.abs(twist) <= zone, 0.0, np.sign(twist) * (np.abs(twist) - zone) / (1.0 - zone))
        self._twist_at = now

    def on_buttons(self, buttons: Sequence[int], now: float) -> None:
        """Takes the buttons. The gripper button opens and closes in turn while the deadman is held."""
        before, self._buttons, self._buttons_at = self._pressed(self._config.gripper_button), tuple(buttons), now
        if self._pressed(self._config.gripper_button) and not before and self.deadman(now) and not math.isnan(self.opening):
            self.opening = 0.0 if self.opening > 0.5 else 1.0

    def on_status(self, status: SafetyStatus, arm: str, now: float) -> None:
        """Takes the filter's status. Its pose counts only while the filter follows proposals.

        Otherwise the arm may be elsewhere, and a hand that moves meanwhile asks for nothing.

        Args:
            status: The filter's status.
            arm: Name of the arm that is led.
            now: Monotonic time, s.
        """
        if status.seed != self.seed:     # the motion began anew, maybe at another place
            self.seed, self._target = status.seed, None
        self._state = status.state
        self.on_commanded(None if status.state in DEAF else status.commanded.get(arm), now)

    def on_commanded(self, pose: Optional[Pose], now: float) -> None:
        """Takes the pose that the filter commands for the tool; None, or without numbers, while it commands nothing."""
        known = pose is not None and np.isfinite(pose.position).all() and abs(np.linalg.norm(pose.quaternion) - 1.0) < 1e-2
        self._commanded, self._commanded_at = pose if known else None, now
        if not known:
            self._target = None

    def on_opening(self, opening: float, commanded: bool) -> None:
        """Takes an opening. A measured one counts only until a commanded one is known.

        An object in the fingers keeps them open; taking that for the wish would release it.

        Args:
            opening: Opening of the gripper, 0 closed to 1 open.
            commanded: Whether it was commanded, not measured.
        """
        if not math.isnan(opening) and (commanded or math.isnan(self.opening)):
            self.opening = float(np.clip(opening, 0.0, 1.0))

    # Outputs ---------------------------------------------------------------------------------------------------------

    def deadman(self, now: float) -> bool:
        """Tells whether the button is held and both inputs of the device are alive."""
        alive = max(now - self._twist_at, now - self._buttons_at) <= self._config.input_timeout_s
        return alive and self._pressed(self._config.deadman_button)

    def problem(self, now: float) -> str:
        """Says why no target can be made although the deadman is held, or who is silent; empty when all is well."""
        for what, at, topic in (("twist", self._twist_at, self._config.twist_topic),
                                ("buttons", self._buttons_at, self._config.buttons_topic)):
            if now - at > self._config.input_timeout_s:
                return f"no {what} on {topic}; is the device connected, and spacenav_node or keyboard_teleop running?"
        if self._start(now) is None:
            if self._state in DEAF and now - self._commanded_at <= STATUS_TIMEOUT_S:
                return DEAF[self._state]
            return "the filter has not said where the arm is commanded to be; activate it"
        if math.isnan(self.opening):
            return "the gripper's opening is unknown; check its joint states"
        return "" if self._pressed(self._config.deadman_button) else "hold the deadman button to move"

    def tick(self, now: float) -> Optional[Tuple[Pose, Pose, float]]:
        """Returns (base, target, opening) for the next period, or None while nothing may move."""
        start = self._start(now)
        if not self.deadman(now) or start is None or math.isnan(self.opening):
            self._target = None
            return None
        commanded = (np.asarray(start.position, float), Rotation.from_quat(start.quaternion))
        position, rotation = self._target or commanded
        period = self._config.period_s
        step = self._view.apply(self._twist[:3]) * self._config.linear_m_s * period
        turn = self._view.apply(self._twist[3:]) * self._config.angular_rad_s * period
        position = commanded[0] + _at_most(position + step - commanded[0], self._config.lead_m)
        ahead = (Rotation.from_rotvec(turn) * rotation * commanded[1].inv()).as_rotvec()
        rotation = Rotation.from_rotvec(_at_most(ahead, self._config.lead_rad)) * commanded[1]
        self._target = (position, rotation)
        return start, Pose(position, rotation.as_quat()), self.opening

    def _start(self, now: float) -> Optional[Pose]:
        """Returns the commanded pose, unless it is old: something else may have moved the arm since."""
        return self._commanded if now - self._commanded_at <= STATUS_TIMEOUT_S else None

    def _pressed(self, index: int) -> bool:
        return index < len(self._buttons) and bool(self._buttons[index])


def _at_most(vector: np.ndarray, length: float) -> np.ndarray:
    size = float(np.linalg.norm(vector))
    return vector if size <= length else vector * (length / size)
